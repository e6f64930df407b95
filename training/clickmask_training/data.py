"""The weighted mixture of data sets, and the choice of an object in one of their images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clickmask_training.checks import ConfigError
from clickmask_training.settings import DataSettings
from clickmask_training.sources import Annotated, load_set

_DRAWS = 100  # of objects, until one is seen in its mask


class TrainingData:
    """Weighted mixture of data-set folders."""

    def __init__(
        self,
        root: Path,
        mixture: Mapping[str, float],
        settings: DataSettings | None = None,
        *,
        held_out: bool = False,
    ) -> None:
        """Reads every folder of the mixture.

        Args:
            root: folder that holds the data-set folders.
            mixture: data-set name -> share of the samples; normalised to sum 1.
            settings: what is drawn from them.
            held_out: the images kept for validation instead of those to train on; sets without any are
                left out.

        Raises:
            ConfigError: a data set has nothing to train on.
        """
        self._settings = settings = settings or DataSettings()
        sets = {name: load_set(root / name, settings, held_out=held_out) for name in mixture}
        if not held_out and (empty := [name for name, images in sets.items() if not images]):
            raise ConfigError(
                f"mixture: expected objects of at least {settings.min_area} pixels to train on, found none "
                f"in {', '.join(str(root / name) for name in empty)}"
            )
        kept = {name: images for name, images in sets.items() if images}
        self._sets = list(kept.values())
        self._chances = [_image_chances(root, name, images, settings) for name, images in kept.items()]
        shares = np.array([mixture[name] for name in kept], dtype=np.float64)
        self._shares = shares / shares.sum()

    def __len__(self) -> int:
        """Images with masks, an image with two masks counted twice."""
        return sum(len(images) for images in self._sets)

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """A random object: image (H, W, 3) uint8 and mask (H, W) uint8 of 0, 1, 2 (others), 255 (ignored).

        Raises:
            ConfigError: the masks show hardly any of the objects that their lists name.
        """
        for _ in range(_DRAWS):
            image, mask = self._draw(rng)
            if (mask == 1).any():
                return image, mask
        raise ConfigError(
            f"mixture: expected masks that show the objects named beside them, got none in {_DRAWS} draws"
        )

    def _draw(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        index = int(rng.choice(len(self._sets), p=self._shares))
        images, chances = self._sets[index], self._chances[index]
        item = images[rng.integers(len(images)) if chances is None else rng.choice(len(images), p=chances)]
        together = 2 if len(item.ids) > 1 and rng.random() < self._settings.merge else 1
        return item.pixels.read(rng.choice(item.ids, together, replace=False, p=item.weights).tolist())


def _image_chances(
    root: Path, name: str, images: list[Annotated], settings: DataSettings
) -> NDArray[np.float64] | None:
    """Chance of each image of a data set; None where all have the same."""
    if name not in settings.scores:
        return None
    path = root / settings.scores[name]
    try:
        scores = json.loads(path.read_text())
        chances = np.array([(1 - float(scores[item.name])) ** settings.score_power for item in images])
        if not (chances >= 0).all() or not chances.sum() > 0:
            raise ValueError("scores outside [0, 1]")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"data.scores: expected {path} to hold {{image file: score in [0, 1]}} for all images of {name}, "
            f"got: {error!r}"
        ) from error
    return chances / chances.sum()
