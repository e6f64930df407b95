"""Readers of benchmark folders.

The folder layout is ``images/``, ``masks/`` (8-bit indexed PNG: 0 background, 1..254 instance, 255
ignored) and ``instances.json`` (image file -> its mask files and their instances).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickmask.errors import InvalidInputError
from clickmask.picture_files import read_picture

IGNORED = 255


@dataclass(frozen=True)
class Sample:
    """One object of one image; arrays are read when asked for.

    Attributes:
        name: mask file name, unique within its data set.
        image_path: the photo.
        mask_path: indexed PNG; the object is every index in 1..254.
    """

    name: str
    image_path: Path
    mask_path: Path

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return read_picture(self.image_path)

    def truth(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(object, ignored), both (H, W) bool.

        Raises:
            InvalidInputError: no pixel is object.
        """
        indices = read_indices(self.mask_path)
        truth = (indices > 0) & (indices != IGNORED)
        if not truth.any():
            raise InvalidInputError(f"{self.mask_path}: expected an object, got no index in 1..254")
        return truth, indices == IGNORED


def read_instances(root: Path) -> dict[str, Any]:
    """The ``instances.json`` of a data-set folder."""
    path = root / "instances.json"
    if not path.is_file():
        raise InvalidInputError(
            f"expected a data-set folder with images/, masks/ and instances.json, but {path} does not exist"
        )
    try:
        instances: dict[str, Any] = json.loads(path.read_text())
        if not instances or not all(entry["masks"] for entry in instances.values()):
            raise ValueError("no image, or one without masks")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInputError(
            f'{path}: expected {{image file: {{"masks": {{mask file: ...}}}}}}, got something else: {error!r}'
        ) from error
    return instances


def read_dataset(root: Path) -> list[Sample]:
    """Every mask of a data-set folder as one binary object, in file order."""
    samples = [
        Sample(mask, root / "images" / image, root / "masks" / mask)
        for image, entry in read_instances(root).items()
        for mask in entry["masks"]
    ]
    return sorted(samples, key=lambda sample: sample.name)


def read_indices(path: Path) -> NDArray[np.uint8]:
    """Raw palette indices of an indexed PNG, (H, W) uint8; OpenCV would return the palette's colours."""
    try:
        from PIL import Image
    except ImportError as error:
        raise InvalidInputError(
            'reading indexed masks needs Pillow: pip install "clickmask[evaluation]"'
        ) from error
    with Image.open(path) as file:
        if file.mode not in ("P", "L"):
            raise InvalidInputError(f"{path}: expected an 8-bit indexed PNG, got mode {file.mode}")
        return np.array(file, dtype=np.uint8)


def fingerprint(samples: list[Sample]) -> str:
    """sha256 over the bytes of every image and mask, so that a report names the data it measured."""
    digest = hashlib.sha256()
    for chunk in _file_bytes(samples):
        digest.update(chunk)
    return digest.hexdigest()


def _file_bytes(samples: list[Sample]) -> Iterator[bytes]:
    for sample in samples:
        yield sample.name.encode()
        yield sample.image_path.read_bytes()
        yield sample.mask_path.read_bytes()
