"""Where a sample's crop looks: the geometry of the recipes' crops, as one kind of value."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from clickmask.view import Box, View
from clickmask_models.presets import Crop as CropRule
from clickmask_training.settings import ViewSettings

_BLANKED = 0.7  # share of the zoomed crops that end where their box does, as the run time's always do
_BOX_MEAN, _BOX_DEVIATION = 0.8, 0.4  # of a random box's side, in image sides (ClickSEG)


class Placement(NamedTuple):
    """Where a crop looks.

    Attributes:
        left, top: image coordinates (pixel edges) of the crop's top left corner.
        scale: crop pixels per image pixel, horizontally and vertically.
        shown: (width, height) of the crop that may show the photo; padding lies right of it and below.
        angle: radians by which the photo is turned about the middle of what is shown.
    """

    left: float
    top: float
    scale: tuple[float, float]
    shown: tuple[int, int]
    angle: float = 0.0

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(2, 3): image pixels (x, y, 1) to crop pixels, centres at integers in both."""
        turn = np.array([[np.cos(self.angle), np.sin(self.angle)], [-np.sin(self.angle), np.cos(self.angle)]])
        linear = np.diag(self.scale) @ turn
        half = np.array(self.shown) / 2
        middle = np.array([self.left, self.top]) + half / self.scale  # in pixel edges, of the photo
        return np.column_stack([linear, half - 0.5 - linear @ (middle - 0.5)])


def choose_placement(
    mask: NDArray[np.uint8],
    shape: tuple[int, int],
    settings: ViewSettings,
    rule: CropRule,
    rng: np.random.Generator,
) -> Placement:
    """A random view of an object.

    Args:
        mask: (H, W) uint8, 1 where the object is.
        shape: (height, width) of the crop.
        settings: the kind of view.
        rule: the run time's crop policy, whose least sides zoomed boxes keep.
        rng: source of every choice.
    """
    if settings.kind == "scaled_crop":
        placement = _scaled_crop(mask, shape, settings, rng)
    elif settings.kind == "random_box":
        placement = _random_box(mask, shape, settings, rng)
    elif rng.random() < settings.whole:
        return box_placement(Box(0, 0, mask.shape[1], mask.shape[0]), shape[0])
    elif rng.random() < 0.5:
        placement = _zoomed_view(mask, shape[0], settings.grown, rule, rng)
    else:
        placement = _free_view(mask, shape[0], settings, rng)
    if rng.random() < settings.rotated:
        angle = np.deg2rad(rng.uniform(-settings.rotation, settings.rotation))
        placement = placement._replace(angle=angle)
    return placement


def box_placement(box: Box, size: int) -> Placement:
    """A box of the photo and nothing else, long side to ``size``, as the run time shows it."""
    width, height = View(box, size, fit="letterbox", coordinates="half_pixel").valid_size
    return Placement(box.x0, box.y0, (width / box.width, height / box.height), (width, height))


def _zoomed_view(
    mask: NDArray[np.uint8], size: int, grown: tuple[float, float], rule: CropRule, rng: np.random.Generator
) -> Placement:
    """The object's box, grown, and at least as large as the run time's crops."""
    x, y, w, h = cv2.boundingRect((mask == 1).astype(np.uint8))
    grow_x, grow_y = rng.uniform(*grown, size=2)
    least = math.ceil(max(rule.min_size, rule.min_fraction * min(mask.shape)))
    width, height = max(w * grow_x, least), max(h * grow_y, least)
    centre_x = x + w / 2 + rng.uniform(-0.5, 0.5) * (width - w)
    centre_y = y + h / 2 + rng.uniform(-0.5, 0.5) * (height - h)
    x0, x1 = _span(centre_x, width, least, mask.shape[1])
    y0, y1 = _span(centre_y, height, least, mask.shape[0])
    placement = box_placement(Box(x0, y0, x1, y1), size)
    return placement if rng.random() < _BLANKED else placement._replace(shown=(size, size))


def _span(centre: float, length: float, least: int, limit: int) -> tuple[int, int]:
    """[centre - length / 2, centre + length / 2) in whole pixels of [0, limit).

    What the image's edge makes smaller than ``least`` is moved inside, as ``clickmask.crop`` does.
    """
    least = min(least, limit)
    low = max(0, math.floor(centre - length / 2))
    high = min(limit, math.ceil(centre + length / 2))
    if high - low < least:
        low, high = (low, low + least) if low == 0 else (high - least, high)
    return low, high


def _free_view(
    mask: NDArray[np.uint8], size: int, settings: ViewSettings, rng: np.random.Generator
) -> Placement:
    """A window at a random scale that shows some part of the object."""
    low, high = settings.scale
    scale = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    rows, columns = np.nonzero(mask == 1)
    pick = rng.integers(len(rows))
    side = size / scale
    origin = []
    for position, extent in ((columns[pick], mask.shape[1]), (rows[pick], mask.shape[0])):
        room = max(extent - side, 0.0)
        origin.append(float(np.clip(position - rng.uniform(0.1, 0.9) * side, 0.0, room)))
    return Placement(origin[0], origin[1], (scale, scale), (size, size))


def _scaled_crop(
    mask: NDArray[np.uint8], shape: tuple[int, int], settings: ViewSettings, rng: np.random.Generator
) -> Placement:
    """The image at a random scale, cropped anywhere; an image that is too small lies in the middle."""
    scale = float(rng.uniform(*settings.scale))
    origin = []
    for side, extent in ((shape[1] / scale, mask.shape[1]), (shape[0] / scale, mask.shape[0])):
        room = extent - side
        origin.append(float(rng.uniform(0, room)) if room > 0 else room / 2)
    return Placement(origin[0], origin[1], (scale, scale), (shape[1], shape[0]))


def _random_box(
    mask: NDArray[np.uint8], shape: tuple[int, int], settings: ViewSettings, rng: np.random.Generator
) -> Placement:
    """A box with sides and place of their own, stretched to the crop; it may reach beyond the image."""
    origin, scale = [], []
    for side, extent in ((shape[1], mask.shape[1]), (shape[0], mask.shape[0])):
        length = extent * _cut_normal(*settings.box, rng)
        low, high = sorted((0.0, extent - length))
        origin.append(float(rng.uniform(low, high)))
        scale.append(side / length)
    return Placement(origin[0], origin[1], (scale[0], scale[1]), (shape[1], shape[0]))


def _cut_normal(low: float, high: float, rng: np.random.Generator) -> float:
    """A normal deviate within limits; after many misses the nearest limit."""
    value = _BOX_MEAN
    for _ in range(100):
        value = float(rng.normal(_BOX_MEAN, _BOX_DEVIATION))
        if low <= value <= high:
            break
    return float(np.clip(value, low, high))
