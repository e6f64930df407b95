"""Simulated clicks: random ones to begin with, then iterative ones on the network's own errors.

Click arrays are (M, 3) float32 rows (x, y, label), label -1 for unused rows, as the networks take them.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from clickmask.evaluation.robot import depth

RANDOM_POSITIVE = 10
RANDOM_NEGATIVE = 10
ITERATIVE = 3
SLOTS = RANDOM_POSITIVE + RANDOM_NEGATIVE + ITERATIVE


def random_clicks(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Random clicks for a mask of 0, 1, 255: counts fall off geometrically (algorithms of RITM, CDNet).

    One sample in four has a single positive click near the object's centre, as a session begins.
    """
    clicks = np.full((SLOTS, 3), -1, dtype=np.float32)
    inside = mask == 1
    if not inside.any():
        return clicks
    if rng.random() < 0.25:
        distance = depth(inside)
        points = _pick(distance > distance.max() / 1.7, 1, rng)
        negative = np.empty((0, 2), dtype=np.int64)
    else:
        points = _pick(_eroded(inside, 3), 1 + _falling(RANDOM_POSITIVE, 0.7, rng), rng)
        negative = _negatives(mask, _falling(RANDOM_NEGATIVE + 1, 0.8, rng), rng)
    for row, (points_of_label, label) in zip((0, RANDOM_POSITIVE), ((points, 1), (negative, 0)), strict=True):
        count = len(points_of_label)
        clicks[row : row + count, :2] = points_of_label
        clicks[row : row + count, 2] = label
    return clicks


def corrective_click(
    prediction: NDArray[np.bool_], mask: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.float32] | None:
    """One click in the deeper of the two error regions, anywhere deeper than half its depth.

    Returns:
        (3,) float32 (x, y, label), or None where the prediction is right.
    """
    missed = depth(~prediction & (mask == 1))
    surplus = depth(prediction & (mask == 0))
    positive = missed.max() > surplus.max()
    errors = missed if positive else surplus
    if errors.max() == 0:
        return None
    x, y = _pick(errors > errors.max() / 2, 1, rng)[0]
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


def _eroded(region: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """The region less its rim, or the region itself where little would remain."""
    core = depth(region) > by
    return core if core.sum() > 10 else region


def _negatives(mask: NDArray[np.uint8], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Half of the negative clicks in a ring around the object, half anywhere in the background."""
    outside = mask == 0
    width = max(3, int(np.ceil(0.1 * np.sqrt((mask == 1).sum()))))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
    ring = (cv2.dilate((mask == 1).astype(np.uint8), kernel) > 0) & outside
    near = int(rng.binomial(count, 0.5))
    return np.concatenate([_pick(ring, near, rng), _pick(outside, count - near, rng)])
