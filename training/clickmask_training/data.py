"""Training images, decoded once into memory, and the choice of an object in one of them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clickmask.evaluation.datasets import IGNORED, read_indices, read_instances
from clickmask.picture_files import read_picture
from clickmask_training.config import ConfigError

_HOLDOUT = 32  # one image in 32, by name, is never trained on
_MIN_AREA = 150  # pixels of the smallest object worth a click


@dataclass(frozen=True)
class Annotated:
    """One image with one index mask.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        indices: (H, W) uint8 instance indices, 0 background, 255 ignored.
        ids: instance indices that are large enough to click.
        weights: chance of each id, summing to 1.
    """

    image: NDArray[np.uint8]
    indices: NDArray[np.uint8]
    ids: NDArray[np.int64]
    weights: NDArray[np.float64]


class TrainingData:
    """Weighted mixture of data-set folders."""

    def __init__(self, root: Path, mixture: Mapping[str, float], *, held_out: bool = False) -> None:
        """Reads every folder of the mixture.

        Args:
            root: folder that holds the data-set folders.
            mixture: data-set name -> share of the samples; normalised to sum 1.
            held_out: the images kept for validation instead of those to train on; sets without any are
                left out.

        Raises:
            ConfigError: a data set has nothing to train on.
        """
        sets = {name: load_set(root / name, held_out=held_out) for name in mixture}
        if not held_out and (empty := [name for name, images in sets.items() if not images]):
            raise ConfigError(
                f"mixture: expected objects of at least {_MIN_AREA} pixels to train on, found none in "
                f"{', '.join(str(root / name) for name in empty)}"
            )
        self._sets = [images for images in sets.values() if images]
        shares = np.array([mixture[name] for name, images in sets.items() if images], dtype=np.float64)
        self._shares = shares / shares.sum()

    def __len__(self) -> int:
        return sum(len(images) for images in self._sets)

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """A random object: image (H, W, 3) uint8 and mask (H, W) uint8 of 0, 1, 255 (ignored)."""
        images = self._sets[rng.choice(len(self._sets), p=self._shares)]
        item = images[rng.integers(len(images))]
        chosen = [rng.choice(item.ids, p=item.weights)]
        if len(item.ids) > 1 and rng.random() < 0.15:  # two objects as one (RITM's augmentation)
            chosen.append(rng.choice(item.ids, p=item.weights))
        mask = np.isin(item.indices, chosen).astype(np.uint8)
        mask[item.indices == IGNORED] = IGNORED
        return item.image, mask


def load_set(root: Path, *, held_out: bool, min_area: int = _MIN_AREA) -> list[Annotated]:
    """Decodes one data-set folder; things are drawn three times as often as stuff."""
    annotated = []
    for name, entry in read_instances(root).items():
        if (zlib.crc32(name.encode()) % _HOLDOUT == 0) != held_out:
            continue
        image = read_picture(root / "images" / name)
        for mask_name, instances in entry["masks"].items():
            ids = [int(i) for i, instance in instances.items() if instance["area"] >= min_area]
            if not ids:
                continue
            chances = np.array([3.0 if instances[str(i)].get("thing", True) else 1.0 for i in ids])
            # Large regions are what people click; the square root keeps small ones in play.
            chances *= np.sqrt([instances[str(i)]["area"] for i in ids])
            annotated.append(
                Annotated(
                    image,
                    read_indices(root / "masks" / mask_name),
                    np.array(ids),
                    chances / chances.sum(),
                )
            )
    return annotated
