"""Readers of data-set folders for training, told apart by what lies in them.

Layouts: this project's own (images/, masks/, instances.json), SBD, Pascal VOC and COCO as they are released
(LVIS and panoptic masks beside it), and a plain folder of images/ and masks/. Those that the evaluation reads
too are found and checked by its reader.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clickmask.evaluation.datasets import detect, read_dataset, read_instances
from clickmask.evaluation.truths import IGNORED, read_drawn, read_indices, read_sbd_instances
from clickmask_training.checks import ConfigError
from clickmask_training.coco_sources import coco_objects
from clickmask_training.pixels import Decoded, Entry, IndexFiles, Instance, Pixels
from clickmask_training.settings import DataSettings

_HOLDOUT = 32  # one image in 32, by name, is never trained on
_BENCHMARKS = ("grabcut", "berkeley", "davis", "mval_dev")  # in the names of their folders


@dataclass(frozen=True)
class Annotated:
    """One image with its objects.

    Attributes:
        name: the image's file name.
        pixels: image and masks.
        ids: objects that are large enough to click.
        weights: chance of each, summing to 1.
    """

    name: str
    pixels: Pixels
    ids: NDArray[np.int64]
    weights: NDArray[np.float64]


def load_set(root: Path, settings: DataSettings, *, held_out: bool) -> list[Annotated]:
    """The images of one data-set folder that hold an object worth a click.

    Args:
        root: the folder; its name is what ``settings.splits`` knows it by.
        settings: which objects count, and how likely each is.
        held_out: the images kept for validation instead of those to train on.

    Raises:
        ConfigError: a benchmark that training must not see, or files that do not fit each other.
        InvalidInputError: not a data-set folder, or files that cannot be read.
    """
    layout, folder = detect(root)
    _refuse_benchmark(root, layout)
    split = settings.splits.get(root.name)

    def wanted(name: str) -> bool:
        return is_held_out(name) == held_out

    readers: dict[str, Callable[[], Iterable[Entry]]] = {
        "indexed": lambda: _own(folder, settings.in_memory, wanted),
        "sbd": lambda: _files(folder, layout, split or "train", _read_sbd, settings.in_memory, wanted),
        "voc": lambda: _files(folder, layout, split or "train", read_indices, settings.in_memory, wanted),
        "berkeley": lambda: _files(folder, layout, None, _read_drawn, settings.in_memory, wanted),
        "coco": lambda: coco_objects(folder, split or "train2017", wanted),
    }
    annotated = []
    for name, pixels, objects in readers[layout]():
        large = [item for item in objects if item.area >= settings.min_area]
        if large:
            chances = np.array([settings.things if item.thing else 1.0 for item in large])
            chances *= np.array([item.area for item in large], np.float64) ** settings.area_power
            ids = np.array([item.id for item in large])
            annotated.append(Annotated(name, pixels, ids, chances / chances.sum()))
    return annotated


def _refuse_benchmark(root: Path, layout: str) -> None:
    """What quality is measured on is not trained on: it is known by its layout, its name, or a folder `eval`.

    Berkeley's own layout is also that of a plain folder of images and masks, so that there the name decides.
    """
    place = root.resolve()
    named = any(benchmark in place.name.lower() for benchmark in _BENCHMARKS)
    if layout in ("grabcut", "davis") or named or place.parent.name == "eval":
        raise ConfigError(f"{root}: expected a data set to train on, got one that quality is measured on")


def is_held_out(name: str) -> bool:
    """Whether an image, by its file name, is kept for validation in every data set."""
    return zlib.crc32(name.encode()) % _HOLDOUT == 0


def _own(root: Path, in_memory: bool, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    for name, entry in read_instances(root).items():
        if not wanted(name):
            continue
        decoded = None
        for mask, instances in entry["masks"].items():
            objects = [
                Instance(int(i), item["area"], item.get("thing", True)) for i, item in instances.items()
            ]
            files = IndexFiles(root / "images" / name, root / "masks" / mask, read_indices)
            if not in_memory:
                yield name, files, objects
                continue
            one = files.decoded()
            decoded = decoded or one  # the masks of an image share its pixels
            yield name, Decoded(decoded.image, one.indices), objects


def _files(
    root: Path,
    layout: str,
    split: str | None,
    reader: Callable[[Path], NDArray[np.uint8]],
    in_memory: bool,
    wanted: Callable[[str], bool],
) -> Iterator[Entry]:
    """Layouts of one image file and one mask file each; what is in a mask takes reading it."""
    pairs = {(sample.image_path, sample.source.path): None for sample in read_dataset(root, layout, split)}
    for image, mask in pairs:
        if not wanted(image.name):
            continue
        files = IndexFiles(image, mask, reader)
        decoded = files.decoded()
        counts = np.bincount(decoded.indices.ravel(), minlength=256)
        objects = [Instance(int(i), int(counts[i])) for i in np.flatnonzero(counts[:IGNORED]) if i > 0]
        yield image.name, decoded if in_memory else files, objects


def _read_drawn(path: Path) -> NDArray[np.uint8]:
    return read_drawn(path)[0]


def _read_sbd(path: Path) -> NDArray[np.uint8]:
    return read_sbd_instances(path).astype(np.uint8)  # at most a few dozen objects
