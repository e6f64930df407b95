"""From an image and an object to a training crop: geometry, then colour."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from clickmask.crop import Box, View
from clickmask.evaluation.datasets import IGNORED

PAD = 0.5  # of the image in [0, 1]: the networks' mean colour, what a bundle pads with
_TURNED = 0.3  # share of the crops that are slightly rotated
_BLANKED = 0.7  # share of the zoomed crops that end where their box does, as the run time's always do


class Placement(NamedTuple):
    """Where a crop looks.

    Attributes:
        left, top: image coordinates (pixel edges) of the crop's top left corner.
        scale: crop pixels per image pixel, horizontally and vertically.
        shown: (width, height) of the crop that may show the photo; padding lies right of it and below.
        angle: radians by which the photo is turned about that corner.
    """

    left: float
    top: float
    scale: tuple[float, float]
    shown: tuple[int, int]
    angle: float = 0.0


class Crop(NamedTuple):
    """``image`` (S, S, 3) uint8, ``mask`` (S, S) uint8 of 0, 1, 255, ``inside`` (S, S) bool.

    Outside, the mask is 255 and the image has no meaning: in [0, 1] it is to be ``PAD``.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    inside: NDArray[np.bool_]


def training_crop(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], size: int, rng: np.random.Generator
) -> Crop:
    """A random view of the object, as the run time's crops show it, half of them zoomed in.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) uint8 of 0, 1, 255.
        size: side S of the square crop.
        rng: source of every choice.
    """
    if rng.random() < 0.5:  # before the view is chosen: padding lies right and below at run time
        image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
    placement = _zoomed_view(mask, size, rng) if rng.random() < 0.5 else _free_view(mask, size, rng)
    if rng.random() < _TURNED:
        placement = placement._replace(angle=np.deg2rad(rng.uniform(-12, 12)))
    crop = render(image, mask, size, placement)
    return crop._replace(image=_recolour(crop.image, rng))


def render(image: NDArray[np.uint8], mask: NDArray[np.uint8], size: int, placement: Placement) -> Crop:
    """The crop of side ``size`` at a placement (half-pixel centres)."""
    left, top, scale, (width, height), angle = placement
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    linear = np.diag(scale) @ turn
    shift = -linear @ [left - 0.5, top - 0.5] - 0.5
    matrix = np.column_stack([linear, shift])
    if scale[0] * scale[1] < 0.6:  # fewer pixels than the photo's: average them first
        image = cv2.blur(image, (3, 3))
    warped = cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    photo = np.ones(mask.shape, np.uint8)
    inside = cv2.warpAffine(photo, matrix, (size, size), flags=cv2.INTER_NEAREST).astype(bool)
    inside[height:], inside[:, width:] = False, False
    warped_mask = cv2.warpAffine(mask, matrix, (size, size), flags=cv2.INTER_NEAREST)
    return Crop(warped, np.where(inside, warped_mask, np.uint8(IGNORED)), inside)


def box_placement(box: Box, size: int) -> Placement:
    """A box of the photo and nothing else, long side to ``size``, as the run time shows it."""
    width, height = View(box, size, fit="letterbox", coordinates="half_pixel").valid_size
    return Placement(box.x0, box.y0, (width / box.width, height / box.height), (width, height))


def _zoomed_view(mask: NDArray[np.uint8], size: int, rng: np.random.Generator) -> Placement:
    """The object's box grown by 1.1 to 2.0, long side to ``size``, as a crop policy would show it."""
    x, y, w, h = cv2.boundingRect((mask == 1).astype(np.uint8))
    grow_x, grow_y = rng.uniform(1.1, 2.0, size=2)
    width, height = max(w * grow_x, 24.0), max(h * grow_y, 24.0)
    centre_x = x + w / 2 + rng.uniform(-0.5, 0.5) * (width - w)
    centre_y = y + h / 2 + rng.uniform(-0.5, 0.5) * (height - h)
    box = Box(
        max(0, math.floor(centre_x - width / 2)),
        max(0, math.floor(centre_y - height / 2)),
        min(mask.shape[1], math.ceil(centre_x + width / 2)),
        min(mask.shape[0], math.ceil(centre_y + height / 2)),
    )
    placement = box_placement(box, size)
    return placement if rng.random() < _BLANKED else placement._replace(shown=(size, size))


def _free_view(mask: NDArray[np.uint8], size: int, rng: np.random.Generator) -> Placement:
    """A window at 0.5 to 1.6 of the native scale that shows some part of the object."""
    scale = float(np.exp(rng.uniform(np.log(0.5), np.log(1.6))))
    rows, columns = np.nonzero(mask == 1)
    pick = rng.integers(len(rows))
    side = size / scale
    origin = []
    for position, extent in ((columns[pick], mask.shape[1]), (rows[pick], mask.shape[0])):
        room = max(extent - side, 0.0)
        origin.append(float(np.clip(position - rng.uniform(0.1, 0.9) * side, 0.0, room)))
    return Placement(origin[0], origin[1], (scale, scale), (size, size))


def _recolour(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Brightness, contrast, channel shift; now and then grey, blur or noise."""
    gain = rng.uniform(0.75, 1.3)
    shift = rng.uniform(-30, 30) + rng.uniform(-10, 10, size=3)
    out = (image.astype(np.float32) - 127) * gain + 127 + shift.astype(np.float32)
    if rng.random() < 0.08:
        out = np.repeat(out.mean(axis=2, keepdims=True), 3, axis=2)
    if rng.random() < 0.1:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.5, 1.2))
    if rng.random() < 0.1:
        out = out + rng.normal(0, rng.uniform(2, 8), out.shape).astype(np.float32)
    return np.clip(out, 0, 255).astype(np.uint8)
