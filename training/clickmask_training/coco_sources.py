"""COCO for training: its instances, LVIS's of the same images, and its panoptic masks, things and stuff."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from clickmask_training.checks import ConfigError
from clickmask_training.pixels import CocoObjects, Entry, Instance, PanopticObjects

_PANOPTIC = "panoptic_"  # begins the names of COCO's panoptic annotation files


def coco_objects(root: Path, split: str, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    """The objects of all annotation files of a split, joined by image; crowds are left out.

    Args:
        root: the folder that holds annotations/.
        split: such as "train2017" or "train2017+lvis_v1_train".
        wanted: which images, by their file names.

    Raises:
        ConfigError: files that are missing or are not COCO's.
    """
    entries: dict[str, tuple[Path, tuple[int, int], list[tuple[Any, float]]]] = {}
    for part in split.split("+"):
        document = _annotations(root, part)
        try:
            if part.startswith(_PANOPTIC):
                yield from _panoptic(root, part, document, wanted)
                continue
            names = {image["id"]: image for image in document["images"]}
            for annotation in document["annotations"]:
                image = names[annotation["image_id"]]
                file = _coco_file(image, part)
                if annotation.get("iscrowd") or not wanted(file.name):
                    continue
                size = (image["width"], image["height"])
                entry = entries.setdefault(file.name, (_photo(root, file), size, []))
                entry[2].append((_compact(annotation["segmentation"]), annotation["area"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{root}: expected COCO's annotations in {part}, got: {error!r}") from error
    for name, (photo, size, objects) in entries.items():
        pixels = CocoObjects(photo, size, tuple(segmentation for segmentation, _ in objects))
        yield name, pixels, [Instance(index, area) for index, (_, area) in enumerate(objects)]


def _panoptic(
    root: Path, part: str, document: dict[str, Any], wanted: Callable[[str], bool]
) -> Iterator[Entry]:
    """COCO's panoptic masks, things and stuff: a PNG an image, in a folder named as the annotation file."""
    folders = (root / "annotations" / part, root / part)
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise ConfigError(f"expected the masks of {part}.json in {folders[0]} or {folders[1]}, found neither")
    names = {image["id"]: image for image in document["images"]}
    things = {category["id"]: bool(category["isthing"]) for category in document["categories"]}
    for annotation in document["annotations"]:
        file = _coco_file(names[annotation["image_id"]], part.removeprefix(_PANOPTIC))
        if not wanted(file.name):
            continue
        segments = annotation["segments_info"]
        crowds = tuple(segment["id"] for segment in segments if segment.get("iscrowd"))
        single = [segment for segment in segments if segment["id"] not in crowds]
        mask = folder / annotation["file_name"]
        pixels = PanopticObjects(_photo(root, file), mask, tuple(s["id"] for s in single), crowds)
        objects = [Instance(i, s["area"], things[s["category_id"]]) for i, s in enumerate(single)]
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
