"""Readers of the benchmarks' folders as they are released, told apart by what lies in them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clickmask.errors import InvalidInputError
from clickmask.evaluation.coco_masks import coco_mask
from clickmask.evaluation.samples import Sample, check_samples, few
from clickmask.evaluation.truths import (
    IGNORED,
    CocoTruth,
    ColourTruth,
    DrawnTruth,
    IndexedTruth,
    SbdTruth,
    TrimapTruth,
    Truth,
    read_drawn,
    read_indices,
    read_sbd_instances,
)
from clickmask.image import MAX_SIDE

_MARKERS = {
    "indexed": ("images", "masks", "instances.json"),
    "grabcut": ("data_GT", "boundary_GT"),
    "sbd": ("img", "inst"),
    "davis": ("img", "gt"),
    "voc": ("JPEGImages", "SegmentationObject"),
    "coco": ("annotations",),
    "berkeley": ("images", "masks"),
}
"""What a layout is known by, the more telling first."""

LAYOUTS = (*_MARKERS, "indexed-instances")
"""`indexed` takes a mask as one object, `indexed-instances` each of its indices; the other names are the
benchmarks', and COCO-MVal has the layout of `davis`."""

_INNER = {"sbd": ("dataset", "benchmark_RELEASE/dataset"), "voc": ("VOC2012", "VOCdevkit/VOC2012")}
"""Folders that the released archives put around a layout."""

_TINY = 16  # COCO's area below which an annotation may cover no pixel at all


def read_dataset(root: Path, layout: str | None = None, split: str | None = None) -> list[Sample]:
    """Every object of a data-set folder, in the order of names (SBD, VOC, COCO: of their lists).

    Args:
        root: the folder.
        layout: one of `LAYOUTS`; None finds it out (`detect`).
        split: SBD and VOC: a list such as "val", the default; COCO: "val2017", the default, names
            annotations/instances_val2017.json and the folder of its images. The others have none.

    Raises:
        InvalidInputError: not such a folder, an image or list that is missing, or an object named twice.
    """
    try:
        return _read_dataset(root, layout, split)
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise InvalidInputError(f"{root}: expected a readable data-set folder, got: {error}") from error


def _read_dataset(root: Path, layout: str | None, split: str | None) -> list[Sample]:
    name, root = detect(root) if layout is None else (layout, _inner(root, layout))
    readers: dict[str, Callable[[Path, str | None], list[Sample]]] = {
        "indexed": lambda folder, _: _indexed(folder, apart=False),
        "indexed-instances": lambda folder, _: _indexed(folder, apart=True),
        "grabcut": lambda folder, _: _pairs(folder / "data_GT", folder / "boundary_GT", _one(TrimapTruth)),
        "berkeley": lambda folder, _: _pairs(folder / "images", folder / "masks", _drawn),
        "davis": lambda folder, _: _pairs(folder / "img", folder / "gt", _one(ColourTruth)),
        "sbd": _sbd,
        "voc": _voc,
        "coco": _coco,
    }
    if name not in readers:
        raise InvalidInputError(f"layout: expected one of {', '.join(LAYOUTS)}, got {name!r}")
    if split is not None and name not in ("sbd", "voc", "coco"):
        raise InvalidInputError(f"split: the layout {name!r} has no splits, got {split!r}; leave it out")
    samples = readers[name](root, split)
    check_samples(samples, root)
    return samples


def detect(root: Path) -> tuple[str, Path]:
    """(layout, folder) of a data-set folder; the folder is an inner one where an archive adds a level.

    Raises:
        InvalidInputError: no layout fits; the message lists what each is known by.
    """
    for layout, markers in _MARKERS.items():
        folder = _inner(root, layout)
        if all((folder / marker).exists() for marker in markers):
            return layout, folder
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        raise InvalidInputError(f"expected a data-set folder, but {root} {what}")
    known = "; ".join(f"{layout}: {', '.join(markers)}" for layout, markers in _MARKERS.items())
    raise InvalidInputError(f"{root}: expected a data-set folder with one of these contents: {known}")


def read_instances(root: Path) -> dict[str, Any]:
    """The ``instances.json`` of the layout `indexed`: {image file: {"masks": {mask file: ...}}}."""
    path = root / "instances.json"
    if not path.is_file():
        raise InvalidInputError(
            f"expected a data-set folder with images/, masks/ and instances.json, but {path} does not exist"
        )
    try:
        instances: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        masks = [entry["masks"] for entry in instances.values()]
        if not masks or not all(isinstance(files, dict) and files for files in masks):
            raise ValueError("no image, or one without masks")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInputError(
            f'{path}: expected {{image file: {{"masks": {{mask file: ...}}}}}}, got something else: {error!r}'
        ) from error
    return instances


def _inner(root: Path, layout: str) -> Path:
    """The folder that holds a layout's first marker: the root, or the level that an archive adds."""
    marker = _MARKERS.get(layout, ("",))[0]
    folders = (root, *(root / name for name in _INNER.get(layout, ())))
    return next((folder for folder in folders if (folder / marker).exists()), root)


def _indexed(root: Path, *, apart: bool) -> list[Sample]:
    samples = []
    for image, entry in read_instances(root).items():
        group = f"group {entry['group']}" if "group" in entry else image
        for mask in entry["masks"]:
            photo, path = root / "images" / image, root / "masks" / mask
            if apart:
                ids = [int(i) for i in np.unique(read_indices(path)) if 0 < i < IGNORED]
                samples += [Sample(f"{mask}#{i}", photo, IndexedTruth(path, i), group) for i in ids]
            else:
                samples.append(Sample(mask, photo, IndexedTruth(path), group))
    return samples if apart else sorted(samples, key=lambda sample: sample.name)


def _pairs(images: Path, masks: Path, truths: Callable[[Path], dict[str, Truth]]) -> list[Sample]:
    """The objects of each mask file, by what their names add to its own; its image has the same stem.

    Berkeley has several objects in some images: masks 12003a and 12003b may share the image 12003.
    """
    by_stem: dict[str, Path] = {}
    for path in _files(images):
        if path.stem in by_stem:
            both = f"{by_stem[path.stem].name} and {path.name}"
            raise InvalidInputError(f"{images}: expected one image named {path.stem}, got {both}")
        by_stem[path.stem] = path
    samples, used = [], set()
    for mask in _files(masks):
        stem = mask.stem if mask.stem in by_stem else re.sub(r"(?<=\d)[a-z]$", "", mask.stem)
        used.add(stem)
        photo = by_stem.get(stem, images / f"{mask.stem}.*")  # check_samples names what is missing
        samples += [Sample(mask.stem + end, photo, truth, photo.name) for end, truth in truths(mask).items()]
    alone = sorted(path.name for stem, path in by_stem.items() if stem not in used)
    if alone:
        raise InvalidInputError(f"{masks}: expected a mask for each image, got none for {few(alone)}")
    return samples


def _one(truth: Callable[[Path], Truth]) -> Callable[[Path], dict[str, Truth]]:
    return lambda mask: {"": truth(mask)}


def _drawn(mask: Path) -> dict[str, Truth]:
    """Berkeley's one object; of a mask in a folder of one's own, which may number several, each of them."""
    numbers, numbered = read_drawn(mask)
    if not numbered:
        return {"": DrawnTruth(mask, 1)}
    return {f"#{i}": DrawnTruth(mask, int(i)) for i in np.unique(numbers) if 0 < i < IGNORED}


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InvalidInputError(f"expected a folder {folder}, but it does not exist; see --layout")
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InvalidInputError(f"expected a list of images {path}, but it does not exist; see --split")
    return path.read_text(encoding="utf-8").split()


def _sbd(root: Path, split: str | None) -> list[Sample]:
    samples = []
    for name in _lines(root / f"{split or 'val'}.txt"):
        photo, path = root / "img" / f"{name}.jpg", root / "inst" / f"{name}.mat"
        ids = [int(i) for i in np.unique(read_sbd_instances(path)) if i > 0]
        samples += [Sample(f"{name}#{i}", photo, SbdTruth(path, i), name) for i in ids]
    return samples


def _voc(root: Path, split: str | None) -> list[Sample]:
    samples = []
    for name in _lines(root / "ImageSets" / "Segmentation" / f"{split or 'val'}.txt"):
        photo, path = root / "JPEGImages" / f"{name}.jpg", root / "SegmentationObject" / f"{name}.png"
        ids = [int(i) for i in np.unique(read_indices(path)) if 0 < i < IGNORED]
        samples += [Sample(f"{name}#{i}", photo, IndexedTruth(path, i), name) for i in ids]
    return samples


def _coco(root: Path, split: str | None) -> list[Sample]:
    """Each annotation is an object, crowds left out: they are regions of many."""
    name = split or "val2017"
    path = root / "annotations" / f"instances_{name}.json"
    if not path.is_file():
        have = sorted(p.name for p in (root / "annotations").glob("instances_*.json"))
        raise InvalidInputError(
            f"expected {path}, but it does not exist; name another with --split, of {few(have) or 'none'}"
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        images = {image["id"]: image for image in document["images"]}
        order = {image: index for index, image in enumerate(images)}
        objects = [a for a in document["annotations"] if not a.get("iscrowd")]
        if strangers := [str(a["image_id"]) for a in objects if a["image_id"] not in images]:
            raise ValueError(f"annotations of images that it does not list: {few(strangers)}")
        objects.sort(key=lambda a: order[a["image_id"]])  # an image's objects together
        pairs = [(a, images[a["image_id"]]) for a in objects]
        return [_coco_sample(root, name, *pair) for pair in pairs if not _is_empty(*pair)]
    except InvalidInputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{path}: expected COCO's instances, got: {error!r}") from error


def _coco_sample(root: Path, split: str, annotation: dict[str, Any], image: dict[str, Any]) -> Sample:
    folders = (root / split, root / "images" / split, root / "images")
    photo = next((f / image["file_name"] for f in folders if (f / image["file_name"]).is_file()), None)
    truth = CocoTruth(_coco_size(image), json.dumps(annotation["segmentation"]))
    return Sample(str(annotation["id"]), photo or folders[0] / image["file_name"], truth, image["file_name"])


def _is_empty(annotation: dict[str, Any], image: dict[str, Any]) -> bool:
    """Whether an annotation covers no pixel, as a few polygons of COCO do."""
    if annotation["area"] >= _TINY:
        return False
    return not coco_mask(annotation["segmentation"], _coco_size(image)).any()


def _coco_size(image: dict[str, Any]) -> tuple[int, int]:
    sides = (image["width"], image["height"])
    if not all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
        raise ValueError(f"width and height {sides} of image {image['id']!r}, which are no numbers of pixels")
    return sides
