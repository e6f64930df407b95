"""From an image and an object to a training crop: geometry, then colour."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from clickmask.evaluation.truths import IGNORED
from clickmask.view import Box
from clickmask_models.presets import Crop as CropRule
from clickmask_training.settings import ColourSettings, ViewSettings
from clickmask_training.views import Placement, box_placement, choose_placement

_NOWHERE = 254  # no value of a mask: marks what lies outside the photo


class Crop(NamedTuple):
    """``image`` (h, w, 3) uint8, ``mask`` (h, w) uint8 of 0, 1, 2, 255, ``inside`` (h, w) bool.

    Outside, the mask is 255 and the image has no meaning: in [0, 1] it is to be the padding's colour.
    ``whole`` tells whether the photo is all there and nothing else, as a session's first click sees it.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    inside: NDArray[np.bool_]
    whole: bool = False


def training_crop(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    shape: tuple[int, int],
    view: ViewSettings,
    colour: ColourSettings,
    rule: CropRule,
    rng: np.random.Generator,
) -> Crop:
    """A random view of an object in random colours.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) uint8 of 0, 1, 2, 255.
        shape: (height, width) of the crop.
        view: which views.
        colour: which colours.
        rule: the run time's crop policy.
        rng: source of every choice.
    """
    if rng.random() < view.flip:  # before the view is chosen: padding lies right and below at run time
        image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
    if view.vertical_flip and rng.random() < view.vertical_flip:
        image, mask = cv2.flip(image, 0), cv2.flip(mask, 0)
    placement = choose_placement(mask, shape, view, rule, rng)
    crop = render(image, mask, shape, placement, antialias=view.antialias)
    whole = placement == box_placement(Box(0, 0, mask.shape[1], mask.shape[0]), shape[0])
    return crop._replace(image=recolour(crop.image, colour, rng), whole=whole)


def render(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    shape: tuple[int, int],
    placement: Placement,
    *,
    antialias: bool = True,
) -> Crop:
    """The crop of (height, width) ``shape`` at a placement (half-pixel centres).

    An axis that shrinks is averaged over areas first, as ``clickmask.encode.resize_to_view`` does: of a box
    that is shown alone and upright, the pixels are the run time's.
    """
    size, matrix = (shape[1], shape[0]), placement.matrix
    width, height = placement.shown
    part, offset, step = _seen(image, placement, antialias)
    onward = np.column_stack([matrix[:, :2] * step, matrix[:, :2] @ offset + matrix[:, 2]])
    warped = cv2.warpAffine(part, onward, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    warped_mask = cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_NEAREST, borderValue=_NOWHERE)
    inside = warped_mask != _NOWHERE
    inside[height:], inside[:, width:] = False, False
    warped_mask[~inside] = IGNORED
    return Crop(warped, warped_mask, inside)


def _seen(
    image: NDArray[np.uint8], placement: Placement, antialias: bool
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """The part of the photo that a crop shows, shrunk to the crop's scale where that is smaller.

    Returns:
        The part; and how its pixels lie in the photo: pixel i at ``offset + step * i`` (x, y).
    """
    columns, rows = _extent(placement, image.shape[:2])
    part = image[rows, columns]
    sides = np.array([part.shape[1], part.shape[0]])
    small = np.maximum(np.round(sides * np.minimum(placement.scale, 1)), 1).astype(int)
    if antialias and (small < sides).any():
        part = cv2.resize(part, tuple(small.tolist()), interpolation=cv2.INTER_AREA)
    else:
        small = sides
    step = sides / small
    return part, np.array([columns.start, rows.start]) - 0.5 + step / 2, step


def _extent(placement: Placement, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """(columns, rows) of an (H, W) photo under the part of a crop that shows it; at least one pixel."""
    width, height = placement.shown
    matrix = placement.matrix
    corners = np.array([[-0.5, width - 0.5, -0.5, width - 0.5], [-0.5, -0.5, height - 0.5, height - 0.5]])
    seen = np.linalg.solve(matrix[:, :2], corners - matrix[:, 2:]) + 0.5  # pixel edges
    spans = []
    for low, high, side in zip(seen.min(axis=1), seen.max(axis=1), (shape[1], shape[0]), strict=True):
        first = int(np.clip(np.floor(low + 1e-6), 0, side - 1))  # a whole number, but for rounding
        spans.append(slice(first, int(np.clip(np.ceil(high - 1e-6), first + 1, side))))
    return spans[0], spans[1]


def recolour(
    image: NDArray[np.uint8], settings: ColourSettings, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Brightness, contrast, channel shift; now and then grey, blur or noise."""
    if settings.chance < 1 and rng.random() >= settings.chance:
        return image
    gain = rng.uniform(1 + settings.contrast[0], 1 + settings.contrast[1])
    brightness = 255 * settings.brightness
    shift = rng.uniform(-brightness, brightness) + rng.uniform(-settings.shift, settings.shift, size=3)
    out = (image.astype(np.float32) - 127) * gain + 127 + shift.astype(np.float32)
    if rng.random() < settings.grey:
        out = np.repeat(out.mean(axis=2, keepdims=True), 3, axis=2)
    if rng.random() < settings.blur:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.5, 1.2))
    if rng.random() < settings.noise:
        out = out + rng.normal(0, rng.uniform(2, 8), out.shape).astype(np.float32)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)
