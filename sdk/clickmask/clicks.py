"""Click: one point of an annotator, and the rules a point must satisfy."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .errors import InvalidInputError


@dataclass(frozen=True)
class Click:
    """A point that says "object" or "not object".

    Attributes:
        x: column in image pixels; pixel centres lie at integers, so pixel column 0 covers [-0.5, 0.5).
        y: row in image pixels, same convention.
        positive: True for the object, False for the background.

    Raises:
        InvalidInputError: a coordinate is not a finite real number, or `positive` is not a bool.
    """

    x: float
    y: float
    positive: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", _coordinate("x", self.x))
        object.__setattr__(self, "y", _coordinate("y", self.y))
        if not isinstance(self.positive, (bool, np.bool_)):
            raise InvalidInputError(
                f"positive must be True (object) or False (background), but got {self.positive!r}; "
                "convert other labels first, for example positive=label == 1"
            )
        object.__setattr__(self, "positive", bool(self.positive))

    @property
    def pixel(self) -> tuple[int, int]:
        """(column, row) of the pixel that the click lies in."""
        return _nearest(self.x), _nearest(self.y)


def _nearest(value: float) -> int:
    # halves up; floor(value + 0.5) would round the sum, so that the last number below 0.5 became 1
    whole = math.floor(value)
    return whole + (value - whole >= 0.5)


def _coordinate(name: str, value: object) -> float:
    # bool is a number to Python; click(True, ...) is a forgotten argument, not column 1
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise InvalidInputError(
            f"{name} must be a real number in image pixels, but got {value!r} ({type(value).__name__}); "
            "clicks are click(x, y, positive=True)"
        )
    try:
        number = float(value)
    except OverflowError:  # a Python int beyond float's range
        number = math.inf
    if not math.isfinite(number):
        raise InvalidInputError(f"{name} must be finite, but got {number}")
    return number


def check_inside(click: Click, image_size: tuple[int, int]) -> None:
    """Make sure that a click lies in the image.

    Args:
        click: the click.
        image_size: (width, height) in pixels.

    Raises:
        InvalidInputError: the click is outside [-0.5, width - 0.5) x [-0.5, height - 0.5).
    """
    width, height = image_size
    if not (-0.5 <= click.x < width - 0.5 and -0.5 <= click.y < height - 0.5):
        raise InvalidInputError(
            f"click (x={click.x:g}, y={click.y:g}) is outside the image: "
            f"expected -0.5 <= x < {width - 0.5:g} and -0.5 <= y < {height - 0.5:g} "
            f"for an image {width} wide and {height} high; is (x, y) swapped?"
        )


def as_clicks(clicks: Iterable[Click | tuple[float, float, bool]]) -> tuple[Click, ...]:
    """Read clicks given as `Click` or as (x, y, positive).

    Args:
        clicks: any iterable of them, in the order they were made.

    Returns:
        The clicks as a tuple.

    Raises:
        InvalidInputError: an item is neither, or is not a valid click; its index is named.
    """
    try:
        items = list(clicks)
    except TypeError:
        raise InvalidInputError(
            f"clicks must be an iterable of Click or (x, y, positive), but got {type(clicks).__name__}"
        ) from None
    return tuple(_as_click(index, item) for index, item in enumerate(items))


def _as_click(index: int, item: object) -> Click:
    if isinstance(item, Click):
        return item
    if not isinstance(item, (tuple, list)) or len(item) != 3:
        raise InvalidInputError(f"clicks[{index}] must be a Click or (x, y, positive), but got {item!r}")
    try:
        return Click(*item)
    except InvalidInputError as error:
        raise InvalidInputError(f"clicks[{index}]: {error}") from None
