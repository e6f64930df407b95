"""Number of clicks and IoU curves, as the field counts them.

A curve is the IoU after click 1, 2, ..., up to the limit of clicks; one curve per object.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = (0.80, 0.85, 0.90, 0.95)
GOOD = 0.90
"""The IoU that most tables of the field count clicks to; pictures and seconds go by it."""


def iou(prediction: NDArray[np.bool_], truth: NDArray[np.bool_], ignored: NDArray[np.bool_]) -> float:
    """Intersection over union of two (H, W) bool masks over the pixels that are not ignored; in [0, 1].

    Two empty masks agree: 1.
    """
    overlap = np.count_nonzero(prediction & truth & ~ignored)
    union = np.count_nonzero((prediction | truth) & ~ignored)
    return float(overlap / union) if union else 1.0


def measured_thresholds(until: float | None) -> list[float]:
    """The thresholds whose clicks are known where an object's clicks ended at IoU ``until``, if at any."""
    return [t for t in THRESHOLDS if until is None or t <= until]


def reached_at(curve: Sequence[float], threshold: float, limit: int) -> int | None:
    """The first of ``limit`` clicks with IoU >= threshold; None where there is none."""
    return next((k for k, value in enumerate(curve[:limit], start=1) if value >= threshold), None)


def clicks_to(curve: Sequence[float], threshold: float, limit: int) -> int:
    """The first click with IoU >= threshold, or ``limit`` where there is none."""
    return reached_at(curve, threshold, limit) or limit


def noc(curves: Sequence[Sequence[float]], threshold: float, limit: int) -> float:
    """NoC@threshold: mean number of clicks, failures counted as ``limit``."""
    return float(np.mean([clicks_to(curve, threshold, limit) for curve in curves]))


def nof(curves: Sequence[Sequence[float]], threshold: float, limit: int) -> int:
    """NoF@threshold: objects that need ``limit`` clicks or fail.

    The public code counts a success at exactly the last click as a failure; so does this.
    """
    return sum(clicks_to(curve, threshold, limit) == limit for curve in curves)


def failures(curves: Sequence[Sequence[float]], threshold: float, limit: int) -> int:
    """Objects that never reach the threshold within ``limit`` clicks: the plain count."""
    return sum(reached_at(curve, threshold, limit) is None for curve in curves)


def mean_iou_at(curves: Sequence[Sequence[float]], click: int) -> float:
    """mIoU after a number of clicks (or the mean of any other curve, such as the boundary F's).

    A curve that ended early, with nothing left to click, keeps its end.
    """
    return float(np.mean([value_at(curve, click) for curve in curves]))


def value_at(curve: Sequence[float], click: int) -> float:
    """A curve's value after a number of clicks, or its end where it has fewer."""
    return curve[min(click, len(curve)) - 1]
