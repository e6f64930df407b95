"""Ground truth of one object, read as each benchmark's public code reads it.

A truth is a frozen value that pickles in a few bytes, so that a worker process reads the pixels itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clickmask.errors import InvalidInputError
from clickmask.evaluation.coco_masks import coco_mask
from clickmask.picture_files import read_picture

IGNORED = 255
_UNKNOWN = 128  # GrabCut's trimaps: the band along the border that nobody labelled

Masks = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""(object, ignored), both (H, W) bool and disjoint."""


class Truth(Protocol):
    """Where an object's ground truth comes from."""

    def read(self) -> Masks:
        """(object, ignored), both (H, W) bool."""
        ...

    def content(self) -> bytes:
        """What decides it, for the hash of the data."""
        ...


@dataclass(frozen=True)
class IndexedTruth:
    """An indexed PNG: 0 background, 1..254 instances, 255 ignored (Pascal VOC, and this project's folders).

    Attributes:
        path: the file.
        instance: the one index that is the object; None takes all of 1..254 as one object.
    """

    path: Path
    instance: int | None = None

    def read(self) -> Masks:
        """See `Truth`."""
        indices = read_indices(self.path)
        ignored = indices == IGNORED
        return ((indices > 0) & ~ignored if self.instance is None else indices == self.instance), ignored

    def content(self) -> bytes:
        """See `Truth`."""
        return read_bytes(self.path)


@dataclass(frozen=True)
class DrawnTruth:
    """One object of Berkeley's masks, or of a mask in a folder of one's own; see `read_drawn`."""

    path: Path
    instance: int

    def read(self) -> Masks:
        """See `Truth`."""
        numbers, _ = read_drawn(self.path)
        return numbers == self.instance, numbers == IGNORED

    def content(self) -> bytes:
        """See `Truth`."""
        return read_bytes(self.path)


@dataclass(frozen=True)
class TrimapTruth:
    """A grey picture: above 128 object, 128 ignored, below background (GrabCut)."""

    path: Path

    def read(self) -> Masks:
        """See `Truth`."""
        grey = read_picture(self.path)[:, :, 2]  # blue: the first channel of the public code's BGR
        return grey > _UNKNOWN, grey == _UNKNOWN

    def content(self) -> bytes:
        """See `Truth`."""
        return read_bytes(self.path)


@dataclass(frozen=True)
class ColourTruth:
    """A picture where everything that is not black is one object (DAVIS-345, COCO-MVal)."""

    path: Path

    def read(self) -> Masks:
        """See `Truth`."""
        truth = np.asarray(read_picture(self.path).any(axis=2))
        return truth, np.zeros_like(truth)

    def content(self) -> bytes:
        """See `Truth`."""
        return read_bytes(self.path)


@dataclass(frozen=True)
class SbdTruth:
    """One instance of an SBD `inst/*.mat` file."""

    path: Path
    instance: int

    def read(self) -> Masks:
        """See `Truth`."""
        truth = read_sbd_instances(self.path) == self.instance
        return truth, np.zeros_like(truth)

    def content(self) -> bytes:
        """See `Truth`."""
        return read_bytes(self.path)


@dataclass(frozen=True)
class CocoTruth:
    """One annotation of a COCO file.

    Attributes:
        size: (width, height) of the image.
        segmentation: the annotation's `segmentation` as JSON text: polygons or run lengths.
    """

    size: tuple[int, int]
    segmentation: str

    def read(self) -> Masks:
        """See `Truth`."""
        truth = coco_mask(json.loads(self.segmentation), self.size)
        return truth, np.zeros_like(truth)

    def content(self) -> bytes:
        """See `Truth`."""
        return f"{self.size} {self.segmentation}".encode()


def read_indices(path: Path) -> NDArray[np.uint8]:
    """Raw palette indices of an indexed PNG, (H, W) uint8; OpenCV would return the palette's colours."""
    with _opened(path) as file:
        if file.mode not in ("P", "L"):
            raise InvalidInputError(f"{path}: expected an 8-bit indexed PNG, got mode {file.mode}")
        return np.array(file, dtype=np.uint8)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A picture by Pillow, which knows palettes."""
    try:
        from PIL import Image
    except ImportError as error:
        raise InvalidInputError('reading masks needs Pillow: pip install "clickmask[evaluation]"') from error
    try:
        with Image.open(path) as file:
            yield file
    except OSError as error:
        raise InvalidInputError(f"{path}: expected a readable mask, got: {error}") from error


def read_drawn(path: Path) -> tuple[NDArray[np.uint8], bool]:
    """A mask of a folder of one's own.

    An indexed picture, or a grey one whose levels are all below 128, numbers the objects 1, 2, ... Of any
    other, and of an indexed one of black, grey 128 and white alone, what is lighter than 128 is object 1.

    Returns:
        The numbers, (H, W) uint8, 0 background and 255 ignored; and whether it is the file that numbers them.

    Raises:
        InvalidInputError: it cannot be read, or has more than 8 bits a pixel.
    """
    with _opened(path) as file:
        if file.mode.startswith("I") or file.mode == "F":  # converted, all above 255 would be 255: ignored
            raise InvalidInputError(f"{path}: expected an 8-bit mask, got mode {file.mode}; save it as 8-bit")
        grey = np.array(file.convert("L"), np.uint8)
        if file.mode == "P":
            colours = np.array(file.convert("RGB"), np.uint8)
            plain = np.isin(grey, (0, _UNKNOWN, IGNORED)).all() and (colours == grey[:, :, None]).all()
            if not plain:
                return np.array(file, np.uint8), True
        elif 0 < grey.max() < _UNKNOWN:
            return grey, True
    return np.where(grey == _UNKNOWN, IGNORED, grey > _UNKNOWN).astype(np.uint8), False


def read_sbd_instances(path: Path) -> NDArray[np.int32]:
    """Instance numbers of an SBD `inst/*.mat` file, (H, W) int32, 0 background."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise InvalidInputError(
            'reading SBD\'s .mat files needs SciPy: pip install "clickmask[evaluation]"'
        ) from error
    try:
        document: dict[str, Any] = loadmat(str(path))
        return np.asarray(document["GTinst"]["Segmentation"][0, 0], dtype=np.int32)
    except (OSError, KeyError, ValueError, IndexError, TypeError, NotImplementedError) as error:
        raise InvalidInputError(
            f"{path}: expected a MATLAB file with GTinst.Segmentation, as SBD's inst/ has, got: {error!r}"
        ) from error


def read_bytes(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        InvalidInputError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"expected a readable file {path}, got: {error.strerror}") from error
