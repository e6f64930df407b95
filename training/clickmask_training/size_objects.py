"""Objects of training images that are as large in their picture as those that people click on.

A rule for the input size matters where a crop is smaller than the network's input or about as large, and it
shows only where the truth is finer than the rule's effect. So these are no specks and no backgrounds: objects
of 3 to 60 % of their image that touch at most two of its edges.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickmask.evaluation.datasets import read_instances
from clickmask.evaluation.samples import Sample
from clickmask.evaluation.truths import IndexedTruth, Masks
from clickmask.evaluation.work import Objects
from clickmask_training.sources import is_held_out

_SETS = ("bsds_regions", "ccp", "coco_mval_train", "coco_panoptic", "coco_tiny", "voc_animals_extra")
_SETS += ("voc_objects",)  # all of natural scenes; the others are a thirtieth of the training
_SHARES = 0.03, 0.6  # of its image, that an object covers
_EDGES = 2  # of its image, that it touches at most
_EACH = 3  # objects of one held-out image at most
_SEEN_SET, _SEEN = "bsds_regions", 40  # the photos with the longest sides (481 px), one object each


def study_objects(root: Path, limit: int | None = None) -> list[Objects]:
    """What the rules are compared on: held-out objects, and some of larger photos that were trained on.

    Args:
        root: folder of the training data sets.
        limit: objects of each kind at most.
    """
    seen = _some(large_objects(root, [_SEEN_SET], held_out=False, each=1), _SEEN)[:limit]
    return [
        held_out_objects(root, limit),
        Objects.of("481 px, trained on", "indexed-instances", seen),
    ]


def held_out_objects(root: Path, limit: int | None = None, *, mirrored: bool = False) -> Objects:
    """Those of images that are never trained on; so many at most, each a second time if ``mirrored``."""
    samples = large_objects(root, _SETS, held_out=True, each=_EACH)[:limit]
    if not mirrored:
        return Objects.of("held out", "indexed-instances", samples)
    twins = [
        _Mirrored(f"{sample.name}, mirrored", sample.image_path, sample.source, sample.group)
        for sample in samples
    ]
    return Objects.of("held out, and mirrored", "indexed-instances", [*samples, *twins])


class _Mirrored(Sample):
    """An object with left and right exchanged."""

    def image(self) -> NDArray[np.uint8]:
        return np.ascontiguousarray(super().image()[:, ::-1])

    def truth(self) -> Masks:
        truth, ignored = super().truth()
        return np.ascontiguousarray(truth[:, ::-1]), np.ascontiguousarray(ignored[:, ::-1])


def large_objects(root: Path, names: Sequence[str], held_out: bool, each: int) -> list[Sample]:
    """Large objects of training images, chosen by a hash of their names.

    Args:
        root: folder of the data sets.
        names: of them.
        held_out: those of images that are never trained on, or of the others.
        each: objects of an image at most.
    """
    chosen = []
    for name in names:
        for image, entry in read_instances(root / name).items():
            if is_held_out(image) != held_out:
                continue
            mask, instances = next(iter(entry["masks"].items()))  # the coarsest, where two people drew
            photo, path = root / name / "images" / image, root / name / "masks" / mask
            large = [
                Sample(f"{name}/{mask}#{index}", photo, IndexedTruth(path, int(index)), f"{name}/{image}")
                for index, instance in instances.items()
                if _is_large(instance, entry["size"])
            ]
            chosen += _some(large, each)
    return chosen


def _is_large(instance: Mapping[str, Any], size: tuple[int, int]) -> bool:
    (width, height), (x0, y0, x1, y1) = size, instance["bbox"]
    share = instance["area"] / (width * height)
    edges = (x0 == 0) + (y0 == 0) + (x1 == width) + (y1 == height)
    return _SHARES[0] <= share <= _SHARES[1] and edges <= _EDGES and instance.get("thing", True)


def _some(samples: Iterable[Sample], count: int) -> list[Sample]:
    """A fixed choice of so many, whatever their order."""
    return sorted(samples, key=lambda sample: zlib.crc32(sample.name.encode()))[:count]
