"""From network to image: logits to the mask, its box and its probability at the image's size."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from .crop import Box, View
from .encode import FloatArray, corner_positions, lerp, logit, resize, sigmoid
from .mask import Mask, mask_box
from .runs import Runs, runs_above

_BAND_PIXELS = 1 << 20  # the full-size logits never exist at once: masks are painted in bands of this many


def paste_mask(logits: FloatArray, view: View, image_size: tuple[int, int], threshold: float) -> Mask:
    """The mask of the whole image, (H, W) bool; see `paste_with_box`."""
    return paste_with_box(logits, view, image_size, threshold)[0]


def paste_with_box(
    logits: FloatArray, view: View, image_size: tuple[int, int], threshold: float
) -> tuple[Mask, Box | None]:
    """The mask of the whole image, background outside the view's box, and the mask's own tight box.

    Args:
        logits: (h', w') float32, the valid part of the network's output. They are resized bilinearly to the
            box; with "public" coordinates their probabilities are, which is what the published code does.
        view: the view they are on.
        image_size: (width, height) in pixels.
        threshold: in (0, 1); a pixel is object where its probability is above this.

    Returns:
        (H, W) bool, and its box in the image, None where it is empty. In a large box only the outline is
        interpolated (`runs_above`): a pixel whose probability is the threshold but for rounding may fall on
        either side.
    """
    values, limit = _comparable(logits, view, threshold)
    out = np.zeros((image_size[1], image_size[0]), np.bool_)  # fresh pages are zero: nothing is written yet
    runs = _box_runs(values, view, limit)
    if runs is None:
        part = out[view.box.slices]
        _paint_pixels(part, values, view, limit)
        return out, _in_image(mask_box(part), view)
    runs.paint(out, (view.box.x0, view.box.y0))
    return out, _in_image(runs.box(), view)


def paste_box(logits: FloatArray, view: View, threshold: float) -> Box | None:
    """The box of `paste_with_box`, for those who need no mask."""
    values, limit = _comparable(logits, view, threshold)
    if (runs := _box_runs(values, view, limit)) is not None:
        return _in_image(runs.box(), view)
    part = np.empty((view.box.height, view.box.width), np.bool_)
    _paint_pixels(part, values, view, limit)
    return _in_image(mask_box(part), view)


def paste_probability(logits: FloatArray, view: View, image_size: tuple[int, int]) -> FloatArray:
    """Probability of object, (H, W) float32 in [0, 1], for `paste_mask`'s arguments; 0 outside the box."""
    out = np.zeros((image_size[1], image_size[0]), np.float32)
    public = view.coordinates == "public"
    part = out[view.box.slices]
    for rows, values in _bands(sigmoid(logits) if public else logits, view):
        part[rows] = values if public else sigmoid(values)
    return out


def _comparable(logits: FloatArray, view: View, threshold: float) -> tuple[FloatArray, np.float32]:
    """What is interpolated, and the limit above which it is object."""
    if view.coordinates == "public":
        return sigmoid(logits), np.float32(threshold)
    return logits, np.float32(logit(threshold))


def _box_runs(values: FloatArray, view: View, limit: np.float32) -> Runs | None:
    """The mask of the box as runs, where they are quicker than its pixels."""
    if view.box.width * view.box.height <= _BAND_PIXELS:
        return None
    return runs_above(values, limit, *_paste_positions(values, view))


def _paint_pixels(part: Mask, values: FloatArray, view: View, limit: np.float32) -> None:
    """Write the mask of the view's box into that part of an image, every pixel."""
    for rows, pixels in _bands(values, view):
        np.greater(pixels, limit, out=part[rows])


def _in_image(box: tuple[int, int, int, int] | None, view: View) -> Box | None:
    """A box inside the view's box, in image pixels."""
    if box is None:
        return None
    x, y = view.box.x0, view.box.y0
    return Box(box[0] + x, box[1] + y, box[2] + x, box[3] + y)


def _paste_positions(values: FloatArray, view: View) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the rows and the columns of the box lie among the values (h', w')."""
    sides = zip(values.shape, (view.box.height, view.box.width), strict=True)
    if view.coordinates == "public":
        rows, columns = (corner_positions(count, side) for count, side in sides)
    else:
        rows, columns = ((np.arange(side) + 0.5) * (count / side) - 0.5 for count, side in sides)
    return rows, columns


def _bands(values: FloatArray, view: View) -> Iterator[tuple[slice, FloatArray]]:
    """Bands of rows of the box with the values, (h', w') on the view's valid part, resized to them."""
    box = view.box
    step = max(1, _BAND_PIXELS // box.width)
    for first in range(0, box.height, step):
        last = min(first + step, box.height)
        yield slice(first, last), _paste_rows(values, view, first, last)


def _paste_rows(values: FloatArray, view: View, first: int, last: int) -> FloatArray:
    """(last - first, w) values of some rows of the box."""
    rows, columns = _paste_positions(values, view)
    tall = lerp(values, rows[first:last], axis=0)
    if view.coordinates == "public":
        return lerp(tall, columns, axis=1)
    return resize(tall, (view.box.width, last - first), cv2.INTER_LINEAR)
