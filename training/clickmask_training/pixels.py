"""An image with its objects: kept in memory, or read whenever it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from clickmask.evaluation.coco_masks import coco_mask
from clickmask.evaluation.truths import IGNORED
from clickmask.picture_files import read_picture
from clickmask_training.checks import ConfigError

OTHER = 2
"""In a mask: an object that was not chosen. 0 is background, 1 the chosen object, 255 ignored."""

Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Instance:
    """An object of an image: its number there, its pixels, and whether it is a thing rather than stuff."""

    id: int
    area: float
    thing: bool = True


class Pixels(Protocol):
    """Where an image and the masks of its objects come from."""

    def read(self, chosen: Sequence[int]) -> tuple[Image, Mask]:
        """Image (H, W, 3) uint8 RGB, mask (H, W) uint8: 1 where a chosen object is, else 0, `OTHER`, 255."""
        ...


Entry = tuple[str, Pixels, list[Instance]]
"""Of an image: its file name, its pixels and its objects."""


@dataclass(frozen=True)
class Decoded:
    """Pixels in memory.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        indices: (H, W) uint8 object indices, 0 background, 255 ignored.
    """

    image: Image
    indices: Mask

    def read(self, chosen: Sequence[int]) -> tuple[Image, Mask]:
        """See `Pixels`."""
        return self.image, select(self.indices, chosen)


@dataclass(frozen=True)
class IndexFiles:
    """An image file beside a file of object indices; ``reader`` gives the latter as (H, W) uint8."""

    image: Path
    mask: Path
    reader: Callable[[Path], Mask]

    def read(self, chosen: Sequence[int]) -> tuple[Image, Mask]:
        """See `Pixels`."""
        decoded = self.decoded()
        return decoded.image, select(decoded.indices, chosen)

    def decoded(self) -> Decoded:
        """Both in memory.

        Raises:
            ConfigError: they differ in size.
        """
        image, indices = read_picture(self.image), self.reader(self.mask)
        _check_size(self.mask, indices, image)
        return Decoded(image, indices)


@dataclass(frozen=True)
class CocoObjects:
    """An image file and its objects as COCO segmentations, which may overlap.

    Attributes:
        image: the file.
        size: (width, height).
        segmentations: polygons or run lengths of object 0, 1, ...
    """

    image: Path
    size: tuple[int, int]
    segmentations: tuple[Any, ...]

    def read(self, chosen: Sequence[int]) -> tuple[Image, Mask]:
        """See `Pixels`; where objects overlap, the chosen ones lie on top."""
        image = read_picture(self.image)
        mask = np.zeros(self.size[::-1], np.uint8)
        others = [index for index in range(len(self.segmentations)) if index not in chosen]
        for value, indices in ((OTHER, others), (1, chosen)):
            for index in indices:
                mask[coco_mask(self.segmentations[index], self.size)] = value
        _check_size(self.image, mask, image)
        return image, mask


@dataclass(frozen=True)
class PanopticObjects:
    """An image file and its COCO panoptic mask: a PNG whose colours are the segments' numbers.

    Attributes:
        image: the file.
        mask: the PNG; a segment's number is R + 256 G + 65536 B, and what is 0 is nothing's.
        segments: number of object 0, 1, ...
        crowds: numbers of segments that hold many objects; their pixels are ignored.
    """

    image: Path
    mask: Path
    segments: tuple[int, ...]
    crowds: tuple[int, ...] = ()

    def read(self, chosen: Sequence[int]) -> tuple[Image, Mask]:
        """See `Pixels`."""
        image = read_picture(self.image)
        numbers = read_picture(self.mask).astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        mask = np.where(numbers > 0, np.uint8(OTHER), np.uint8(0))
        mask[np.isin(numbers, self.crowds)] = IGNORED
        mask[np.isin(numbers, [self.segments[index] for index in chosen])] = 1
        _check_size(self.mask, mask, image)
        return image, mask


def _check_size(path: Path, mask: Mask, image: Image) -> None:
    if image.shape[:2] != mask.shape:
        raise ConfigError(f"{path}: expected a mask of the image's size, {image.shape[:2]}, got {mask.shape}")


def select(indices: Mask, chosen: Sequence[int]) -> Mask:
    """A map of object indices as a mask of 0, 1 (chosen), `OTHER` and 255 (ignored)."""
    table = np.full(256, OTHER, np.uint8)
    table[[0, IGNORED]] = 0, IGNORED
    table[list(chosen)] = 1
    return np.asarray(cv2.LUT(indices, table), np.uint8)
