"""Readers of data-set folders for training, told apart by what lies in them.

Layouts: this project's own (images/, masks/, instances.json), SBD, Pascal VOC and COCO as they are released
(LVIS and panoptic masks beside it), and a plain folder of images/ and masks/. Those that the evaluation reads
too are found and checked by its reader.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickmask.evaluation.datasets import detect, read_dataset, read_instances
from clickmask.evaluation.truths import IGNORED, read_indices, read_sbd_instances
from clickmask_training.checks import ConfigError
from clickmask_training.pixels import CocoObjects, Decoded, IndexFiles, PanopticObjects, Pixels
from clickmask_training.settings import DataSettings

_HOLDOUT = 32  # one image in 32, by name, is never trained on
_UNKNOWN = 128  # in a grey mask: brighter is object, and here nobody says
_PANOPTIC = "panoptic_"  # begins the names of COCO's panoptic annotation files
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


@dataclass(frozen=True)
class _Object:
    id: int
    area: float
    thing: bool = True


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
    readers: dict[str, Callable[[], Iterable[tuple[str, Pixels, list[_Object]]]]] = {
        "indexed": lambda: _own(folder, settings.in_memory, held_out),
        "sbd": lambda: _files(folder, layout, split or "train", _read_sbd, settings.in_memory, held_out),
        "voc": lambda: _files(folder, layout, split or "train", read_indices, settings.in_memory, held_out),
        "berkeley": lambda: _files(folder, layout, None, read_mask, settings.in_memory, held_out),
        "coco": lambda: _coco(folder, split or "train2017", held_out),
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


def read_mask(path: Path) -> NDArray[np.uint8]:
    """A mask of a plain folder as object indices, (H, W) uint8.

    An indexed PNG, or a grey one whose levels are all below 128, numbers the objects 1, 2, ... (255 ignored).
    Otherwise what is brighter than 128 is one object, and 128 itself is ignored.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            indexed = file.mode == "P"
            levels = np.array(file if indexed else file.convert("L"), np.uint8)
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable mask, got: {error}") from error
    if indexed or levels.max() < _UNKNOWN:
        return levels
    return np.where(levels == _UNKNOWN, IGNORED, levels > _UNKNOWN).astype(np.uint8)


def is_held_out(name: str) -> bool:
    """Whether an image, by its file name, is kept for validation in every data set."""
    return zlib.crc32(name.encode()) % _HOLDOUT == 0


def _own(root: Path, in_memory: bool, held_out: bool) -> Iterator[tuple[str, Pixels, list[_Object]]]:
    for name, entry in read_instances(root).items():
        if is_held_out(name) != held_out:
            continue
        decoded = None
        for mask, instances in entry["masks"].items():
            objects = [
                _Object(int(i), item["area"], item.get("thing", True)) for i, item in instances.items()
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
    held_out: bool,
) -> Iterator[tuple[str, Pixels, list[_Object]]]:
    """Layouts of one image file and one mask file each; what is in a mask takes reading it."""
    pairs = {(sample.image_path, sample.source.path): None for sample in read_dataset(root, layout, split)}
    for image, mask in pairs:
        if is_held_out(image.name) != held_out:
            continue
        files = IndexFiles(image, mask, reader)
        decoded = files.decoded()
        counts = np.bincount(decoded.indices.ravel(), minlength=256)
        objects = [_Object(int(i), int(counts[i])) for i in np.flatnonzero(counts[:IGNORED]) if i > 0]
        yield image.name, decoded if in_memory else files, objects


def _read_sbd(path: Path) -> NDArray[np.uint8]:
    return read_sbd_instances(path).astype(np.uint8)  # at most a few dozen objects


def _coco(root: Path, split: str, held_out: bool) -> Iterator[tuple[str, Pixels, list[_Object]]]:
    """The objects of all annotation files of a split, joined by image; crowds are left out."""
    entries: dict[str, tuple[Path, tuple[int, int], list[tuple[Any, float]]]] = {}
    for part in split.split("+"):
        document = _annotations(root, part)
        try:
            if part.startswith(_PANOPTIC):
                yield from _panoptic(root, part, document, held_out)
                continue
            names = {image["id"]: image for image in document["images"]}
            for annotation in document["annotations"]:
                image = names[annotation["image_id"]]
                file = _coco_file(image, part)
                if annotation.get("iscrowd") or is_held_out(file.name) != held_out:
                    continue
                size = (image["width"], image["height"])
                entry = entries.setdefault(file.name, (_photo(root, file), size, []))
                entry[2].append((_compact(annotation["segmentation"]), annotation["area"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{root}: expected COCO's annotations in {part}, got: {error!r}") from error
    for name, (photo, size, objects) in entries.items():
        pixels = CocoObjects(photo, size, tuple(segmentation for segmentation, _ in objects))
        yield name, pixels, [_Object(index, area) for index, (_, area) in enumerate(objects)]


def _panoptic(
    root: Path, part: str, document: dict[str, Any], held_out: bool
) -> Iterator[tuple[str, Pixels, list[_Object]]]:
    """COCO's panoptic masks, things and stuff: a PNG an image, in a folder named as the annotation file."""
    folders = (root / "annotations" / part, root / part)
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise ConfigError(f"expected the masks of {part}.json in {folders[0]} or {folders[1]}, found neither")
    names = {image["id"]: image for image in document["images"]}
    things = {category["id"]: bool(category["isthing"]) for category in document["categories"]}
    for annotation in document["annotations"]:
        file = _coco_file(names[annotation["image_id"]], part.removeprefix(_PANOPTIC))
        if is_held_out(file.name) != held_out:
            continue
        segments = annotation["segments_info"]
        crowds = tuple(segment["id"] for segment in segments if segment.get("iscrowd"))
        single = [segment for segment in segments if segment["id"] not in crowds]
        mask = folder / annotation["file_name"]
        pixels = PanopticObjects(_photo(root, file), mask, tuple(s["id"] for s in single), crowds)
        objects = [_Object(i, s["area"], things[s["category_id"]]) for i, s in enumerate(single)]
        yield file.name, pixels, objects


def _annotations(root: Path, part: str) -> dict[str, Any]:
    paths = [root / "annotations" / f"{name}.json" for name in (f"instances_{part}", part)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise ConfigError(f"data.splits: expected {paths[0]} or {paths[1].name}, found neither")
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path}: expected JSON, got: {error}") from error
    return document


def _coco_file(image: dict[str, Any], part: str) -> PurePosixPath:
    """Folder and name of an image: LVIS gives an address that ends in both, COCO the name alone."""
    if "file_name" in image:
        return PurePosixPath(part, PurePosixPath(image["file_name"]).name)
    return PurePosixPath(*PurePosixPath(image["coco_url"]).parts[-2:])


def _photo(root: Path, file: PurePosixPath) -> Path:
    places = (root / file, root / "images" / file, root / "images" / file.name)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ConfigError(f"expected the image {places[0]}, found no such file")
    return found


def _compact(segmentation: Any) -> Any:
    """Polygons as arrays: a million lists of Python's numbers would fill the memory."""
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        return segmentation
    return [np.asarray(ring, np.float32) for ring in segmentation]
