"""From image to network: pixels, clicks, previous mask. What comes back is for `paste`.

Everything here is a pure function of arrays and a `View`, used alike at training, export and run time.
docs/coordinates.md explains the two coordinate options with numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from . import native_library, native_pixels
from .clicks import Click
from .errors import InvalidInputError
from .view import View

FloatArray = NDArray[np.float32]


def image_tensor(image: NDArray[np.uint8], view: View, pad: Sequence[float]) -> FloatArray:
    """The network's image: the view's box, resized and padded.

    Args:
        image: (H, W, 3) uint8 RGB.
        view: what to show and how.
        pad: RGB of the padding, each in [0, 1].

    Returns:
        (1, 3, S, S) float32 RGB in [0, 1], C-contiguous.
    """
    (width, height), pixels = view.valid_size, image[view.box.slices]
    out = np.empty((1, 3, view.size, view.size), np.float32)
    valid = out[0, :, :height, :width]
    for plane, value in zip(out[0], pad, strict=True):
        plane[height:] = plane[:height, width:] = value
    if view.coordinates == "public":
        valid[:] = resize_to_view(pixels, view).transpose(2, 0, 1)
    elif native_library.available() and width <= pixels.shape[1] and height <= pixels.shape[0]:
        native_pixels.area_mean(pixels, valid)
    else:  # in planes from where the pixels are fewest: bytes, shrunk but not yet enlarged
        for plane, channel in zip(valid, cv2.split(_shrink(pixels, view)), strict=True):
            _enlarge(channel, view, plane)
    return out


def slot_counts(max_clicks: int) -> tuple[int, ...]:
    """All that `click_slots` may give, ascending: 4, 8, 16, 32 ... below `max_clicks`, and that itself."""
    counts, slots = [], 4
    while slots < max_clicks:
        counts.append(slots)
        slots *= 2
    return (*counts, max_clicks)


def click_slots(count: int, max_clicks: int) -> int:
    """Rows of the click tensor: the smallest of `slot_counts` that holds `count`.

    A few fixed sizes, so that a runtime meets few shapes.

    Raises:
        InvalidInputError: more clicks than the network takes.
    """
    if count > max_clicks:
        raise InvalidInputError(f"this bundle takes at most {max_clicks} clicks, but got {count}")
    return next(slots for slots in slot_counts(max_clicks) if slots >= count)


def clicks_tensor(clicks: Sequence[Click], view: View, slots: int) -> FloatArray:
    """The network's clicks.

    Args:
        clicks: in image pixels, in order. One outside the view's box keeps its (outside) network position:
            the disk drawn around it may still reach in.
        view: the transform that the image went through.
        slots: rows M of the result; see `click_slots`.

    Returns:
        (1, M, 3) float32 rows (x', y', label) in network pixels; label 1 positive, 0 negative; unused rows
        are (-1, -1, -1).

    Raises:
        InvalidInputError: more clicks than slots.
    """
    if len(clicks) > slots:
        raise InvalidInputError(f"expected at most {slots} clicks for {slots} slots, but got {len(clicks)}")
    out = np.empty((1, slots, 3), np.float32)
    out.fill(-1)
    if clicks:
        out[0, : len(clicks)] = [(*view.to_network(one.x, one.y), one.positive) for one in clicks]
    return out


def blank_previous(view: View) -> tuple[FloatArray, FloatArray]:
    """Room for the network's previous mask.

    Args:
        view: the view that the network will see.

    Returns:
        (1, 1, S, S) float32, C-contiguous, zero where there is padding; and what of it is the view's valid
        part, (h', w'), to be filled with probabilities in [0, 1].
    """
    width, height = view.valid_size
    out = np.empty((1, 1, view.size, view.size), np.float32)
    plane = out[0, 0]
    plane[height:] = plane[:height, width:] = 0
    return out, plane[:height, :width]


def resize_to_view(pixels: NDArray[np.uint8], view: View) -> FloatArray:
    """Resize the pixels of a view's box to its valid part.

    "half_pixel": mean over areas along an axis that shrinks, bilinear along one that grows.
    "public": bilinear with aligned corners, whichever way.

    Args:
        pixels: (h, w) or (h, w, C) uint8, the box's part of an image.
        view: the view.

    Returns:
        (h', w') or (h', w', C) float32 in [0, 1].
    """
    width, height = view.valid_size
    if view.coordinates == "public":
        rows, columns = corner_positions(pixels.shape[0], height), corner_positions(pixels.shape[1], width)
        return lerp(lerp(pixels, rows, axis=0), columns, axis=1) / np.float32(255)
    values = np.empty((height, width, *pixels.shape[2:]), np.float32)
    _enlarge(_shrink(pixels, view), view, values)
    return values


def _shrink(pixels: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """The pixels of a view's box, averaged along the axes that are longer there than in the network."""
    height, width = pixels.shape[:2]
    small = (min(width, view.valid_size[0]), min(height, view.valid_size[1]))
    return pixels if small == (width, height) else resize(pixels, small, cv2.INTER_AREA)


def _enlarge(pixels: NDArray[Any], view: View, out: FloatArray) -> None:
    """Write what `_shrink` left to a view's valid part, in [0, 1]; bilinear along axes still too short."""
    if pixels.shape == out.shape:
        np.multiply(pixels, np.float32(1 / 255), out=out)
        return
    values = np.multiply(pixels, np.float32(1 / 255), dtype=np.float32)
    cv2.resize(values, view.valid_size, dst=out, interpolation=cv2.INTER_LINEAR)


def mask_probability(mask: NDArray[np.bool_], view: View) -> FloatArray:
    """A mask of the whole image, (H, W) bool, as (h', w') float32 in [0, 1] on a view's valid part."""
    return resize_to_view((mask[view.box.slices].view(np.uint8) != 0) * np.uint8(255), view)


def sigmoid(logits: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """Probability in [0, 1] of float32 logits of any size and shape; never overflows.

    Args:
        logits: see above.
        out: (h, w) float32, as the logits then are, to fill, contiguous along rows; None for a new array.
    """
    out = np.empty(logits.shape, np.float32) if out is None else out
    if native_library.available():
        flat = logits.ndim != 2
        native_pixels.sigmoid(*((logits.reshape(1, -1), out.reshape(1, -1)) if flat else (logits, out)))
    else:
        half = np.float32(0.5)
        np.tanh(half * logits, out=out)
        np.add(half * out, half, out=out)
    return out


def logit(probability: float) -> float:
    """The logit of a probability in (0, 1)."""
    return math.log(probability) - math.log1p(-probability)


def resample(values: FloatArray, old: View, new: View, out: FloatArray | None = None) -> FloatArray:
    """Bring probabilities or logits from one view to another, straight from grid to grid, bilinearly.

    The same as pasting them into the image and cropping again, but for the interpolation error of that
    detour, and at the cost of the network's pixels rather than the image's.

    Args:
        values: (h', w') float32 on the old view's valid part.
        old: the view it is on.
        new: the view wanted.
        out: float32 of the new view's valid part to fill, contiguous along rows; None for a new array.

    Returns:
        float32 on the new view's valid part; 0 outside the old box.
    """
    out = np.zeros(new.valid_size[::-1], np.float32) if out is None else out
    across, down = old_samples(old, new)
    if (down.cells, across.cells) != values.shape:
        values = resize(values, (across.cells, down.cells), cv2.INTER_AREA)
    out[: down.first] = out[down.last :] = 0
    rows, columns = slice(down.first, down.last), slice(across.first, across.last)
    out[rows, : across.first] = out[rows, across.last :] = 0
    inside = out[rows, columns]
    if native_library.available():
        native_pixels.lerp(values, down.places, across.places, inside)
    else:
        inside[:] = lerp(lerp(values, down.places, axis=0), across.places, axis=1)
    return out


class Samples(NamedTuple):
    """Where pixels of a new view lie on the grid of an old one, along an axis; by default none does.

    Old pixels that are finer than the new ones are first averaged to fewer `cells`, which then are the grid.

    Attributes:
        first: new pixels `first` to `last - 1` lie in the old box.
        last: see there.
        start: new pixel i lies at `start + step * i` on the grid.
        step: see there.
        pixels: old ones.
        cells: points of the grid, at most `pixels`.
    """

    first: int = 0
    last: int = 0
    start: float = 0.0
    step: float = 0.0
    pixels: int = 1
    cells: int = 1

    @property
    def places(self) -> NDArray[np.float64]:
        """Of the new pixels in the old box."""
        return self.start + self.step * np.arange(self.first, self.last, dtype=np.float64)


def old_samples(old: View, new: View) -> tuple[Samples, Samples]:
    """Where columns and rows of a new view lie on an old one's grid."""
    if old == new:  # also where aligned corners show one pixel in all of a row
        width, height = new.valid_size
        return Samples(0, width, 0, 1, width, width), Samples(0, height, 0, 1, height, height)
    (x0, x1), (y0, y1) = (old.box.x0, old.box.x1), (old.box.y0, old.box.y1)
    return _old_samples(old, new, 0, x0, x1), _old_samples(old, new, 1, y0, y1)


def _old_samples(old: View, new: View, axis: int, low: int, high: int) -> Samples:
    """Of columns (axis 0) or rows (1); the old box reaches from pixel `low` to `high - 1`."""
    (old_step, old_start), (step, start) = old.sampling()[axis], new.sampling()[axis]
    count = cells = old.valid_size[axis]
    ratio, shift = (step / old_step, (start - old_start) / old_step) if old_step else (0.0, 0.0)
    if ratio > 1:
        cells = max(1, round(count / ratio))
        ratio, shift = ratio * cells / count, (shift + 0.5) * cells / count - 0.5
    seen = start + step * np.arange(new.valid_size[axis], dtype=np.float64)
    first, last = np.searchsorted(seen, (low - 0.5, high - 0.5)).tolist()
    return Samples(first, last, shift, ratio, count, cells)


def corner_positions(count: int, new_count: int) -> NDArray[np.float64]:
    """Where `new_count` samples of an axis of `count` lie when first and last are kept (align_corners)."""
    step = (count - 1) / (new_count - 1) if new_count > 1 else 0.0
    return np.arange(new_count, dtype=np.float64) * step


def lerp(values: NDArray[Any], positions: NDArray[np.float64], axis: int) -> FloatArray:
    """Linear interpolation along an axis at fractional indices; the ends extend outwards."""
    low = np.clip(np.floor(positions).astype(np.int64), 0, values.shape[axis] - 1)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    shape = [1] * values.ndim
    shape[axis] = -1
    weight = np.clip(positions - low, 0.0, 1.0).astype(np.float32).reshape(shape)
    below = values.take(low, axis).astype(np.float32, copy=False)
    above = values.take(high, axis).astype(np.float32, copy=False)
    result: FloatArray = below + weight * (above - below)
    return result


def resize(values: NDArray[Any], size: tuple[int, int], interpolation: int) -> NDArray[Any]:
    """`cv2.resize` to (width, height) as a NumPy array."""
    return np.asarray(cv2.resize(values, size, interpolation=interpolation))
