"""From network to image: logits to the mask, its box and its probability at the image's size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from . import native_library, native_pixels
from .encode import FloatArray, lerp, logit, resize, sigmoid
from .mask import Mask, mask_box
from .mask_memory import MaskMemory
from .view import Box, View

_BAND_PIXELS = 1 << 20  # the full-size logits never exist at once: masks are painted in bands of this many


class Painted(NamedTuple):
    """A mask, and what is known of it without looking at it again.

    Attributes:
        mask: (H, W) bool.
        box: its tight box, None where it is empty.
        runs: of its rows, where the library found them; `outlines` takes them.
    """

    mask: Mask
    box: Box | None
    runs: native_pixels.Runs | None = None


def paste_with_box(
    logits: FloatArray,
    view: View,
    image_size: tuple[int, int],
    threshold: float,
    memory: MaskMemory | None = None,
) -> Painted:
    """The mask of the whole image, background outside the view's box.

    Args:
        logits: (h', w') float32, the valid part of the network's output. They are resized bilinearly to the
            box; with "public" coordinates their probabilities are, which is what the published code does.
        view: the view they are on.
        image_size: (width, height) in pixels.
        threshold: in (0, 1); a pixel is object where its probability is above this.
        memory: of earlier masks of this size, of which one is used again that nobody holds any more.

    Returns:
        The mask and its box in the image. A pixel whose probability is the threshold but for rounding may
        fall on either side.
    """
    out = (memory or MaskMemory((image_size[1], image_size[0]))).mask()
    if native_library.available():
        return Painted(out, *_runs(logits, view, threshold, out))
    out[:] = False
    return Painted(out, _interpolate(out[view.box.slices], logits, view, threshold))


def paste_box(logits: FloatArray, view: View, threshold: float) -> Box | None:
    """The box of `paste_with_box`, for those who need no mask."""
    if native_library.available():
        return _runs(logits, view, threshold)[0]
    return _interpolate(np.empty((view.box.height, view.box.width), np.bool_), logits, view, threshold)


def paste_probability(logits: FloatArray, view: View, image_size: tuple[int, int]) -> FloatArray:
    """Probability of object, (H, W) float32 in [0, 1], as for `paste_with_box`; 0 outside the box."""
    out = np.zeros((image_size[1], image_size[0]), np.float32)
    public = view.coordinates == "public"
    part = out[view.box.slices]
    for rows, values in _bands(sigmoid(logits) if public else logits, view):
        part[rows] = values if public else sigmoid(values)
    return out


def _runs(
    logits: FloatArray, view: View, threshold: float, onto: Mask | None = None
) -> tuple[Box | None, native_pixels.Runs]:
    """The mask's box in the image, and the runs of its rows; `native_pixels.value_runs` has the rest."""
    values, limit = _values(logits, view, threshold)
    shape = (view.box.height, view.box.width)
    steps = (_step(values.shape[0], shape[0], view), _step(values.shape[1], shape[1], view))
    centre = 0.0 if view.coordinates == "public" else 0.5
    corner = (view.box.x0, view.box.y0)
    found, runs = native_pixels.value_runs(values, limit, shape, steps, centre, corner, onto, clear=True)
    return _box_in_image(found, view), runs


def _interpolate(part: Mask, logits: FloatArray, view: View, threshold: float) -> Box | None:
    """Paint the view's box, a part of an image, pixel by pixel; the mask's box in the image."""
    values, limit = _values(logits, view, threshold)
    for rows, pixels in _bands(values, view):
        np.greater(pixels, np.float32(limit), out=part[rows])
    return _box_in_image(mask_box(part), view)


def _values(logits: FloatArray, view: View, threshold: float) -> tuple[FloatArray, float]:
    """What is interpolated, and the limit above which it is object."""
    if view.coordinates == "public":
        return sigmoid(logits), float(np.float32(threshold))
    return logits, float(np.float32(logit(threshold)))


def _box_in_image(found: tuple[int, int, int, int] | None, view: View) -> Box | None:
    x, y = view.box.x0, view.box.y0
    return None if found is None else Box(found[0] + x, found[1] + y, found[2] + x, found[3] + y)


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
