"""Simulated clicks: random ones to begin with, then corrective ones on the network's own errors.

Click arrays are (M, 3) float32 rows (x, y, label), label -1 for unused rows, as the networks take them.
Masks are uint8: 0 background, 1 object, 2 other objects, 255 ignored.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from clickmask.evaluation.robot import depth
from clickmask_training.pixels import OTHER
from clickmask_training.settings import ClickSettings

_EROSION = 3  # pixels
_MIDDLE = 1.7  # the middle is deeper than the greatest depth divided by this


def no_clicks(settings: ClickSettings) -> NDArray[np.float32]:
    """Rows for all the clicks that a sample can get, unused."""
    return np.full((settings.slots, 3), -1, dtype=np.float32)


def random_clicks(
    mask: NDArray[np.uint8], settings: ClickSettings, rng: np.random.Generator, *, alone: bool = False
) -> NDArray[np.float32]:
    """Random clicks for a mask: counts fall off geometrically (the sampler of RITM and CDNet).

    One positive click at least; ``settings.single`` of the samples have that alone, near the middle, as a
    session begins, and so have those to be ``alone``.
    """
    clicks = no_clicks(settings)
    inside = mask == 1
    if not inside.any():
        return clicks
    if rng.random() < settings.single or alone:
        points = _near_centre(inside, rng)
        negative = np.empty((0, 2), dtype=np.int64)
    else:
        points = _positives(inside, settings, rng)
        count = _falling(settings.negative + 1, settings.negative_decay, rng)
        negative = _negatives(mask, count, settings, rng)
    for row, (points_of_label, label) in zip(
        (0, settings.positive), ((points, 1), (negative, 0)), strict=True
    ):
        count = len(points_of_label)
        clicks[row : row + count, :2] = points_of_label
        clicks[row : row + count, 2] = label
    return clicks


def corrective_click(
    prediction: NDArray[np.bool_], mask: NDArray[np.uint8], rng: np.random.Generator, deepest: float = 0.0
) -> NDArray[np.float32] | None:
    """One click in the deeper of the two error regions, anywhere deeper than half its depth.

    With the chance ``deepest`` it is the deepest pixel instead, as the robot annotator clicks.

    Returns:
        (3,) float32 (x, y, label), or None where the prediction is right.
    """
    missed = depth(~prediction & (mask == 1), cv2.DIST_MASK_5)  # as RITM trains
    surplus = depth(prediction & ((mask == 0) | (mask == OTHER)), cv2.DIST_MASK_5)
    positive = missed.max() > surplus.max()
    errors = missed if positive else surplus
    if errors.max() == 0:
        return None
    at_the_deepest = deepest > 0 and rng.random() < deepest
    x, y = _pick(errors == errors.max() if at_the_deepest else errors > errors.max() / 2, 1, rng)[0]
    return np.array([x, y, float(positive)], dtype=np.float32)


def _falling(count: int, decay: float, rng: np.random.Generator) -> int:
    """A number in [0, count) with chances 1, decay, decay^2, ..."""
    chances = decay ** np.arange(count)
    return int(rng.choice(count, p=chances / chances.sum()))


def _pick(region: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``count`` pixels of a region, uniformly with replacement, as (count, 2) (x, y)."""
    flat = np.flatnonzero(region)
    if len(flat) == 0 or count == 0:
        return np.empty((0, 2), dtype=np.int64)
    chosen = rng.choice(flat, size=count)
    return np.stack([chosen % region.shape[1], chosen // region.shape[1]], axis=1)


def _near_centre(inside: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    distance = depth(inside)
    return _pick(distance > distance.max() / _MIDDLE, 1, rng)


def _positives(
    inside: NDArray[np.bool_], settings: ClickSettings, rng: np.random.Generator
) -> NDArray[np.int64]:
    eroded = settings.eroded == 1 or rng.random() < settings.eroded
    region = _eroded(inside) if eroded else inside
    points = _pick(region, 1 + _falling(settings.positive, settings.positive_decay, rng), rng)
    if settings.first_near_centre:
        points[:1] = _near_centre(inside, rng)
    return points


def _eroded(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The region less its rim, or the region itself where little would remain."""
    core = depth(region) > _EROSION
    return core if core.sum() > 10 else region


def _negatives(
    mask: NDArray[np.uint8], count: int, settings: ClickSettings, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Negative clicks in a ring around the object, on other objects, and anywhere in the background."""
    outside = (mask == 0) | (mask == OTHER)
    width = max(3, int(np.ceil(0.1 * np.sqrt((mask == 1).sum()))))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
    ring = (cv2.dilate((mask == 1).astype(np.uint8), kernel) > 0) & outside
    rest = max(0.0, 1 - settings.near - settings.on_others)
    near, others, anywhere = rng.multinomial(count, [settings.near, settings.on_others, rest])
    return np.concatenate(
        [_pick(ring, near, rng), _pick(mask == OTHER, others, rng), _pick(outside, anywhere, rng)]
    )
