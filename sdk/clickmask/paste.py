"""From network to image: logits to the mask, its box and its probability at the image's size."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from . import native_library, native_pixels
from .encode import FloatArray, lerp, logit, resize, sigmoid
from .mask import Mask, mask_box
from .view import Box, View

_BAND_PIXELS = 1 << 20  # the full-size logits never exist at once: masks are painted in bands of this many


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
        (H, W) bool, and its box in the image, None where it is empty. A pixel whose probability is the
        threshold but for rounding may fall on either side.
    """
    out = np.zeros((image_size[1], image_size[0]), np.bool_)  # fresh pages are zero: nothing is written yet
    return out, _paint(out[view.box.slices], logits, view, threshold)


def paste_box(logits: FloatArray, view: View, threshold: float) -> Box | None:
    """The box of `paste_with_box`, for those who need no mask."""
    return _paint(None, logits, view, threshold)


def paste_probability(logits: FloatArray, view: View, image_size: tuple[int, int]) -> FloatArray:
    """Probability of object, (H, W) float32 in [0, 1], as for `paste_with_box`; 0 outside the box."""
    out = np.zeros((image_size[1], image_size[0]), np.float32)
    public = view.coordinates == "public"
    part = out[view.box.slices]
    for rows, values in _bands(sigmoid(logits) if public else logits, view):
        part[rows] = values if public else sigmoid(values)
    return out


def _paint(part: Mask | None, logits: FloatArray, view: View, threshold: float) -> Box | None:
    """Paint the view's box, that part of an image, all False before; and the mask's box in the image."""
    public = view.coordinates == "public"
    values = sigmoid(logits) if public else logits
    limit = np.float32(threshold if public else logit(threshold))
    if native_library.available():
        shape = (view.box.height, view.box.width)
        steps = [_step(count, side, view) for count, side in zip(values.shape, shape, strict=True)]
        centre = 0.0 if public else 0.5
        found = native_pixels.paint(values, float(limit), shape, (steps[0], steps[1]), centre, part)
    else:
        part = np.empty((view.box.height, view.box.width), np.bool_) if part is None else part
        for rows, pixels in _bands(values, view):
            np.greater(pixels, limit, out=part[rows])
        found = mask_box(part)
    if found is None:
        return None
    x, y = view.box.x0, view.box.y0
    return Box(found[0] + x, found[1] + y, found[2] + x, found[3] + y)


def _step(count: int, side: int, view: View) -> float:
    """From one pixel of the box to the next, along an axis of `count` values."""
    if view.coordinates == "public":
        return (count - 1) / (side - 1) if side > 1 else 0.0
    return count / side


def _positions(count: int, side: int, view: View) -> NDArray[np.float64]:
    """Where the pixels of the box lie along an axis of `count` values."""
    step, centre = _step(count, side, view), 0.0 if view.coordinates == "public" else 0.5
    return (np.arange(side, dtype=np.float64) + centre) * step - centre


def _bands(values: FloatArray, view: View) -> Iterator[tuple[slice, FloatArray]]:
    """Bands of rows of the box with the values, (h', w') on the view's valid part, resized to them."""
    box = view.box
    step = max(1, _BAND_PIXELS // box.width)
    for first in range(0, box.height, step):
        last = min(first + step, box.height)
        yield slice(first, last), _paste_rows(values, view, first, last)


def _paste_rows(values: FloatArray, view: View, first: int, last: int) -> FloatArray:
    """(last - first, w) values of some rows of the box."""
    rows = _positions(values.shape[0], view.box.height, view)
    tall = lerp(values, rows[first:last], axis=0)
    if view.coordinates == "public":
        return lerp(tall, _positions(values.shape[1], view.box.width, view), axis=1)
    return resize(tall, (view.box.width, last - first), cv2.INTER_LINEAR)
