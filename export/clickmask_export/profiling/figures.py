"""What many times of one thing say: percentiles, jitter, and whether two of them differ beyond noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_DRAWS = 2000
_COVERAGE = 99.0


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Figures of some times, in their unit.

    Returns:
        ``count``, ``min``, ``p50``, ``p90``, ``p95``, ``p99``, ``max`` (percentiles interpolate linearly
        between the ordered times), ``mad`` (median absolute deviation from the median), ``jitter`` (p99 over
        p50) and ``samples``, in the order given.

    Raises:
        ValueError: there are no samples.
    """
    if not len(samples):
        raise ValueError("expected at least one time to summarise, got none")
    times = np.asarray(samples, np.float64)
    p50, p90, p95, p99 = (float(p) for p in np.percentile(times, (50, 90, 95, 99)))
    return {
        "count": len(times),
        "min": float(times.min()),
        "p50": p50,
        "p90": p90,
        "p95": p95,
        "p99": p99,
        "max": float(times.max()),
        "mad": float(np.median(np.abs(times - p50))),
        "jitter": p99 / p50 if p50 else 1.0,
        "samples": [round(float(time), 5) for time in times],
    }


@dataclass(frozen=True)
class Ratio:
    """How many times as long something takes, with an interval that 99 of 100 such medians fall into."""

    value: float
    low: float
    high: float


def ratio_of_medians(new: Sequence[float], old: Sequence[float], *, paired: bool) -> Ratio:
    """The median of ``new`` over that of ``old``, with a bootstrap interval; the same input gives the same.

    Args:
        new: times.
        old: times, in the same unit.
        paired: whether times at the same place of both were taken one after the other. They are then drawn
            together, so that what slowed both down for a while does not widen the interval.
    """
    new, old = np.asarray(new, np.float64), np.asarray(old, np.float64)
    generator = np.random.default_rng(0)
    places = generator.integers(len(new), size=(_DRAWS, len(new)))
    others = places if paired else generator.integers(len(old), size=(_DRAWS, len(old)))
    ratios = np.median(new[places], axis=1) / np.median(old[others], axis=1)
    outside = (100 - _COVERAGE) / 2
    low, high = np.percentile(ratios, (outside, 100 - outside))
    return Ratio(float(np.median(new) / np.median(old)), float(low), float(high))
