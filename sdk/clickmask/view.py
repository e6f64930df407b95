"""Views: a box of the image at a network input size, and the one transform between the two frames."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from .clicks import Click
from .errors import InvalidInputError

Fit = Literal["letterbox", "squash"]
Coordinates = Literal["half_pixel", "public"]


@dataclass(frozen=True)
class Box:
    """A half-open rectangle of whole pixels: columns x0 .. x1 - 1, rows y0 .. y1 - 1.

    Raises:
        InvalidInputError: the box is empty or inverted.
    """

    x0: int
    y0: int
    x1: int
    y1: int

    def __post_init__(self) -> None:
        if not (self.x0 < self.x1 and self.y0 < self.y1):
            raise InvalidInputError(f"a box must have x0 < x1 and y0 < y1, but got {self}")

    @property
    def width(self) -> int:
        """Columns."""
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        """Rows."""
        return self.y1 - self.y0

    @property
    def slices(self) -> tuple[slice, slice]:
        """(rows, columns), to index an array of shape (H, W, ...)."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def holds(self, click: Click) -> bool:
        """Whether the pixel of a click lies in the box."""
        column, row = click.pixel
        return self.x0 <= column < self.x1 and self.y0 <= row < self.y1


@dataclass(frozen=True)
class View:
    """A box of the image at a network input size: the only transform between the two frames.

    The network input is always size x size. Under "letterbox" the box keeps its aspect, its long side becomes
    `size`, it sits at the top left and the rest is padding; under "squash" it fills the square.

    Attributes:
        box: the part of the image.
        size: side of the network input in pixels.
        fit: "letterbox" or "squash".
        coordinates: "half_pixel", the exact mapping of pixel centres, or "public", the mapping of the
            published code (images by aligned corners, clicks by plain scaling); see docs/coordinates.md.
    """

    box: Box
    size: int
    fit: Fit = "letterbox"
    coordinates: Coordinates = "half_pixel"

    @cached_property  # asked for a dozen times a click
    def valid_size(self) -> tuple[int, int]:
        """(w', h'): the part of the network input that shows the image; the rest is padding."""
        if self.fit == "squash":
            return self.size, self.size
        long_side = max(self.box.width, self.box.height)
        return self._side(self.box.width, long_side), self._side(self.box.height, long_side)

    def _side(self, side: int, long_side: int) -> int:
        return max(1, (2 * side * self.size + long_side) // (2 * long_side))  # rounds half up, exactly

    def to_network(self, x: float, y: float) -> tuple[float, float]:
        """Where a click lies in the network input.

        Args:
            x: column in image pixels, centres at integers; a point off the box lands off the valid part.
            y: row, likewise.

        Returns:
            (x', y') in network pixels, centres at integers.
        """
        (sx, sy), c = self._click_scale, self._centre
        return (x - self.box.x0 + c) * sx - c, (y - self.box.y0 + c) * sy - c

    def to_image(self, x: float, y: float) -> tuple[float, float]:
        """The inverse of `to_network`: network pixels to image pixels."""
        (sx, sy), c = self._click_scale, self._centre
        return (x + c) / sx - c + self.box.x0, (y + c) / sy - c + self.box.y0

    def sampling(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where the network input samples the image: per axis (step, start), columns first.

        Network pixel i shows the image at `start + step * i` (image pixels, centres at integers). With
        "half_pixel" this is `to_image`; with "public" it is the aligned-corner grid, which is *not* where
        that option puts clicks.
        """
        (w, h), (vw, vh) = (self.box.width, self.box.height), self.valid_size
        if self.coordinates == "public":
            return (
                ((w - 1) / (vw - 1) if vw > 1 else 0.0, float(self.box.x0)),
                ((h - 1) / (vh - 1) if vh > 1 else 0.0, float(self.box.y0)),
            )
        return (w / vw, self.box.x0 + 0.5 * w / vw - 0.5), (h / vh, self.box.y0 + 0.5 * h / vh - 0.5)

    @cached_property
    def _click_scale(self) -> tuple[float, float]:
        width, height = self.valid_size
        return width / self.box.width, height / self.box.height

    @property
    def _centre(self) -> float:
        return 0.0 if self.coordinates == "public" else 0.5


SizeRule = Callable[[Box, Sequence[int]], int]
"""Chooses one of a bundle's input sizes, ascending, for a box of the image."""


def choose_size(box: Box, sizes: Sequence[int]) -> int:
    """The network input size nearest to a crop's native long side; of two equally near, the smaller."""
    long_side = max(box.width, box.height)
    return min(sizes, key=lambda size: (abs(size - long_side), size))


def resolve_size(wanted: int | None, sizes: Sequence[int]) -> int | None:
    """A session's fixed input size: one of the bundle's, or None to choose by crop."""
    if wanted is None:
        return None
    whole = isinstance(wanted, numbers.Integral) and not isinstance(wanted, bool)
    if not whole or wanted not in sizes:
        raise InvalidInputError(
            f"size must be None or one of the bundle's {tuple(sizes)}, but got {wanted!r}"
        )
    return int(wanted)


def resolve_coordinates(wanted: Coordinates | None, own: Coordinates) -> Coordinates:
    """A session's coordinate option: the one wanted, or the bundle's own."""
    if wanted is not None and wanted not in get_args(Coordinates):
        raise InvalidInputError(f"coordinates must be one of {get_args(Coordinates)}, but got {wanted!r}")
    return wanted or own
