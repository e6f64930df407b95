"""Crops: which part of the image the network sees, decided by `next_box` and a `CropPolicy`."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .clicks import Click
from .errors import InvalidInputError
from .view import Box

CropKind = Literal["paper", "fbrs", "stable", "global_to_local", "none"]

_MOST = 1_000_000  # beyond any image's side or number of clicks
_CELLS = 16  # "stable": grid cells along a crop's long side, at least
_MARGIN = 1 / 32  # "stable": of a crop's long side, what must lie between object and edge
_CLOSER = 2  # a close look shows a crop this many times larger


@dataclass(frozen=True)
class CropPolicy:
    """When the network looks at a crop rather than the whole image, and at which.

    Attributes:
        kind: "paper" makes a new crop at each click, "fbrs" keeps the crop while it is good enough, "stable"
            keeps it for longer, takes it from a grid and knows it before the click, "global_to_local" sees
            the whole image first and then a crop around what it found there, at each click, "none" always
            takes the whole image.
        start_click: the first click (counted from 1) that may see a crop.
        expansion: factor on width and height of the box around the object, >= 1 (1.4 adds 40 %).
        small_object_expansion: the same for an object of no area, >= 1. The factor is the larger of
            `expansion` and this less 4 sqrt(share of the image); at most `expansion` changes nothing.
        min_size: least side of a crop in pixels.
        min_fraction: least side of a crop as a fraction of the image's short side, in [0, 1].
        hysteresis_iou: "fbrs" and "stable" move the crop when the product of the IoUs of its rows and of its
            columns with those of the new box falls below this, in [0, 1].
        close_above: a click in a crop whose long side is more than this many times the bundle's largest input
            size is looked at once more, closely (`close_box`), from `start_click` on: 1 for crops larger than
            that, 0 for all. None for never, which "global_to_local" needs.

    Raises:
        InvalidInputError: an unknown kind or a number out of range.
    """

    kind: CropKind
    start_click: int = 2
    expansion: float = 1.4
    small_object_expansion: float = 1.0
    min_size: int = 200
    min_fraction: float = 0.0
    hysteresis_iou: float = 0.5
    close_above: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(CropKind):
            raise InvalidInputError(f"crop kind must be one of {get_args(CropKind)}, but got {self.kind!r}")
        for name, low, high, whole in (
            ("start_click", 1, _MOST, True),
            ("expansion", 1.0, _MOST, False),
            ("small_object_expansion", 1.0, _MOST, False),
            ("min_size", 1, _MOST, True),
            ("min_fraction", 0.0, 1.0, False),
            ("hysteresis_iou", 0.0, 1.0, False),
        ):
            value = _number(f"crop {name}", getattr(self, name), low, high, whole)
            object.__setattr__(self, name, value)
        if self.close_above is not None:
            value = _number("crop close_above", self.close_above, 0.0, _MOST, whole=False)
            object.__setattr__(self, "close_above", value)
            if self.kind == "global_to_local":
                raise InvalidInputError(
                    "crop close_above must be None for 'global_to_local', which looks twice"
                )

    def wants_crop(self, count: int) -> bool:
        """Whether the click that makes `count` of them may see less than the whole image."""
        return self.kind != "none" and count >= self.start_click

    def looks_twice(self, count: int) -> bool:
        """Whether that click is seen in two passes: the whole image, then a crop around what was found."""
        return self.kind == "global_to_local" and self.wants_crop(count)

    def looks_closely(self, clicks: Sequence[Click], box: Box, largest_size: int) -> bool:
        """Whether the newest of the clicks, seen in a box of the image, is looked at once more, closely."""
        if self.close_above is None or len(clicks) < self.start_click or not box.holds(clicks[-1]):
            return False
        return max(box.width, box.height) > self.close_above * largest_size

    @staticmethod
    def named(name: str) -> CropPolicy:
        """The policy of that name with the numbers of its source.

        Args:
            name: "paper": from the third click, +40 %, a new crop each click; "fbrs": from the second
                click, +40 %, hysteresis 0.5; both with a least side of 200 px (f-BRS). "stable": from the
                second click, +30 %, hysteresis 0.3, a least side of 64 px and 35 % of the image's short one
                (chosen with clickmask_training.benchmark_crops on training images), with close looks in
                crops more than a quarter larger than the largest input size (chosen by what they cost).
                "global_to_local": from the first click, +40 %, no least side (the CSFP paper). "none": the
                whole image.

        Raises:
            InvalidInputError: another name.
        """
        if name == "paper":
            return CropPolicy("paper", start_click=3)
        if name == "fbrs":
            return CropPolicy("fbrs", start_click=2)
        if name == "stable":
            return CropPolicy("stable", 2, 1.3, 1.0, 64, 0.35, hysteresis_iou=0.3, close_above=1.25)
        if name == "global_to_local":
            return CropPolicy("global_to_local", start_click=1, min_size=1)
        if name == "none":
            return CropPolicy("none")
        raise InvalidInputError(f"crop_policy must be one of {get_args(CropKind)}, but got {name!r}")


def _number(name: str, value: Any, low: float, high: float, whole: bool) -> float:
    """A number of any type as a plain int or float, which JSON can hold."""
    kind = numbers.Integral if whole else numbers.Real
    plain: Any = value
    if isinstance(value, kind) and not isinstance(value, bool) and low <= plain <= high:
        return int(plain) if whole else float(plain)
    wanted = "a whole number" if whole else "a number"
    raise InvalidInputError(f"{name} must be {wanted} in [{low:g}, {high:g}], but got {value!r}")


def next_box(
    policy: CropPolicy,
    image_size: tuple[int, int],
    clicks: Sequence[Click],
    mask_bbox: Box | None,
    previous: Box | None,
) -> Box:
    """The part of the image that the network sees for the newest click.

    The box around the mask so far and all positive clicks is widened about its centre, rows and columns
    apart, by `expansion` (a small one by more: `small_object_expansion`), given at least the minimum side,
    and cut at the image's edges; a box that the cut makes smaller than the minimum is moved inside instead.
    Before `start_click`, and while the mask is empty, it is the whole image. "fbrs" keeps `previous` unless a
    positive click lies outside it or it fits the new box badly. "stable" takes the box from a grid, without
    the newest click, and keeps `previous` unless mask or earlier positive clicks come close to its edge or it
    fits badly; a positive click outside looks at the whole image. Negative clicks do not move the crop.

    Args:
        policy: the rules.
        image_size: (width, height) in pixels.
        clicks: all clicks, the newest last.
        mask_bbox: tight box of the mask so far: the one before this click, or what the first of two passes
            found; None where that is empty.
        previous: the box of the click before, None for the first.

    Returns:
        A box inside the image that holds every positive click.
    """
    width, height = image_size
    whole = Box(0, 0, width, height)
    if not policy.wants_crop(len(clicks)) or mask_bbox is None:
        return whole
    if policy.kind == "stable":
        return _stable_box(policy, image_size, clicks, mask_bbox, previous)
    positive = [click for click in clicks if click.positive]
    box = _object_box(policy, image_size, _tight_box(positive, mask_bbox))
    # a box from before start_click is the whole image because no crop was wanted: it binds nobody
    if policy.kind == "fbrs" and previous is not None and policy.wants_crop(len(clicks) - 1):
        fits = _overlap_of_sides(box, previous) >= policy.hysteresis_iou
        if fits and all(previous.holds(click) for click in positive):
            return previous
    return box


def _stable_box(
    policy: CropPolicy,
    image_size: tuple[int, int],
    clicks: Sequence[Click],
    mask_bbox: Box,
    previous: Box | None,
) -> Box:
    """`previous` while it shows the object with a margin and is not far too large; else its box, snapped.

    Both follow from what was there before the newest click, so that they can be encoded ahead of it. Where a
    positive click lies outside, it looks at the whole image, which the first click has encoded.
    """
    *earlier, newest = clicks
    tight = _tight_box([click for click in earlier if click.positive], mask_bbox)
    box = _snap(_object_box(policy, image_size, tight), image_size)
    if previous is not None and _with_margin(tight, previous, image_size):
        box = previous if _overlap_of_sides(box, previous) >= policy.hysteresis_iou else box
    return Box(0, 0, *image_size) if newest.positive and not box.holds(newest) else box


def close_box(box: Box, click: Click) -> Box:
    """What a close look at a click shows: half of a crop, in the one of nine places that suits the click.

    Args:
        box: the crop, which holds the click; its long side is L.
        click: the newest.

    Returns:
        A box in that, L / 2 on a side or as short as the crop; L / 4 lie between places, so few that the
        next click may well find this one encoded. It is the one whose middle is nearest.
    """
    side = -(-max(box.width, box.height) // _CLOSER)
    column, row = click.pixel
    x0, x1 = _near(column, box.x0, box.x1, side)
    y0, y1 = _near(row, box.y0, box.y1, side)
    return Box(x0, y0, x1, y1)


def _near(place: int, low: int, high: int, side: int) -> tuple[int, int]:
    """Of [low, high), `side` around a place as nearly as steps of half of that allow."""
    if high - low <= side:
        return low, high
    step = -(-side // 2)  # so that the third place, of three at most, is the last
    start = low + max(0, 2 * (place - low) - side + step) // (2 * step) * step
    start = min(start, high - side)
    return start, start + side


def _snap(box: Box, image_size: tuple[int, int]) -> Box:
    """Move each edge outwards to a multiple of the power of two that divides the long side into 16 to 32."""
    cell = 1 << max(0, (max(box.width, box.height) // _CELLS).bit_length() - 1)
    width, height = image_size
    return Box(
        box.x0 // cell * cell,
        box.y0 // cell * cell,
        min(width, -(-box.x1 // cell) * cell),
        min(height, -(-box.y1 // cell) * cell),
    )


def _with_margin(tight: Box, box: Box, image_size: tuple[int, int]) -> bool:
    """Whether a box shows an object with some of its surroundings on each side where the image goes on."""
    (width, height), margin = image_size, max(box.width, box.height) * _MARGIN
    return (
        (box.x0 == 0 or tight.x0 - box.x0 >= margin)
        and (box.y0 == 0 or tight.y0 - box.y0 >= margin)
        and (box.x1 == width or box.x1 - tight.x1 >= margin)
        and (box.y1 == height or box.y1 - tight.y1 >= margin)
    )


def _tight_box(positive: list[Click], bbox: Box) -> Box:
    """Around the mask and all positive clicks."""
    columns = [click.pixel[0] for click in positive]
    rows = [click.pixel[1] for click in positive]
    left, right = min([bbox.x0, *columns]), max([bbox.x1, *(column + 1 for column in columns)])
    top, bottom = min([bbox.y0, *rows]), max([bbox.y1, *(row + 1 for row in rows)])
    return Box(left, top, right, bottom)


def _object_box(policy: CropPolicy, image_size: tuple[int, int], tight: Box) -> Box:
    width, height = image_size
    side = math.ceil(max(policy.min_size, policy.min_fraction * min(width, height)))
    factor = _factor(policy, tight, width * height)
    x0, x1 = _expand(tight.x0, tight.x1, factor, side, width)
    y0, y1 = _expand(tight.y0, tight.y1, factor, side, height)
    return Box(x0, y0, x1, y1)


def _factor(policy: CropPolicy, tight: Box, image_area: int) -> float:
    """The public code's rule of global-to-local crops: small objects get more of their surroundings.

    As there, a box's area is that between the centres of its corner pixels: a line of pixels has none.
    """
    share = (tight.width - 1) * (tight.height - 1) / image_area
    return max(policy.expansion, policy.small_object_expansion - 4 * math.sqrt(share))


def _expand(low: int, high: int, factor: float, side: int, limit: int) -> tuple[int, int]:
    """Widen [low, high) by `factor`, to at least `side`, inside [0, limit)."""
    side = min(side, limit)
    centre, length = (low + high) / 2, max(factor * (high - low), side)
    low = max(0, math.floor(centre - length / 2))
    high = min(limit, math.ceil(centre + length / 2))
    if high - low < side:  # the image's edge cut it below the minimum: move it inside
        low, high = (low, low + side) if low == 0 else (high - side, high)
    return low, high


def _overlap_of_sides(a: Box, b: Box) -> float:
    """Product of the one-dimensional IoUs of columns and rows (f-BRS), not the area IoU."""
    columns = _interval_iou(a.x0, a.x1, b.x0, b.x1)
    return columns * _interval_iou(a.y0, a.y1, b.y0, b.y1)


def _interval_iou(a0: int, a1: int, b0: int, b1: int) -> float:
    shared = max(0, min(a1, b1) - max(a0, b0))
    return shared / (a1 - a0 + b1 - b0 - shared)


def resolve_policy(wanted: str | CropPolicy | None, own: CropPolicy) -> CropPolicy:
    """A session's crop policy: the one wanted, by name or value, or the bundle's own."""
    if wanted is None or isinstance(wanted, CropPolicy):
        return wanted or own
    if isinstance(wanted, str):
        return CropPolicy.named(wanted)
    raise InvalidInputError(f"crop_policy must be a name or a CropPolicy, but got {type(wanted).__name__}")
