"""Times of several backends in one run, taken in turns, and the table of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gpu_scenes import Scene, iou

from clickmask.backends.base import Backend

BASELINE = "eager torch fp32"


@dataclass
class Times:
    """Milliseconds of one backend at one size, and the IoU of its mask with the baseline's."""

    first: list[float] = field(default_factory=list)
    next: list[float] = field(default_factory=list)
    iou: float = 0.0


def measure(
    backends: Mapping[str, Backend], scenes: Sequence[Scene], threshold: float, rounds: int
) -> dict[int, dict[str, Times]]:
    """Size to backend to its times.

    A first click is ``encode`` and ``decode``, a next one ``decode`` alone; both end with logits on the host,
    so that everything has run. Backends take turns, so that a clock that drifts is theirs together.

    Args:
        backends: by name, warmed up; the one named ``BASELINE`` among them.
        scenes: one for each size.
        threshold: of masks.
        rounds: how often each is timed.
    """
    found: dict[int, dict[str, Times]] = {}
    for scene in scenes:
        truth = scene.run(backends[BASELINE])
        times = {name: Times() for name in backends}
        for name, backend in backends.items():
            times[name].iou = iou(scene.run(backend), truth, threshold)
        for _ in range(rounds):
            for name, backend in backends.items():
                start = time.perf_counter()
                features = backend.encode(scene.image)
                backend.decode(features, scene.clicks, scene.previous_mask)
                middle = time.perf_counter()
                backend.decode(features, scene.clicks, scene.previous_mask)
                times[name].first.append(1000 * (middle - start))
                times[name].next.append(1000 * (time.perf_counter() - middle))
        found[scene.size] = times
    return found


def measure_steps(steps: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of some steps that take turns, by name, after one run of each that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if number:
                found[name].append(1000 * (time.perf_counter() - start))
    return found


def step_table(found: Mapping[str, Sequence[float]]) -> str:
    """Markdown: median, least and p99 in ms by step."""
    lines = ["| step | median ms | min | p99 |", "|---|---|---|---|"]
    for name, times in found.items():
        figures = statistics.median(times), min(times), float(np.percentile(times, 99))
        lines.append(f"| {name} | {' | '.join(f'{figure:.3f}' for figure in figures)} |")
    return "\n".join(lines) + "\n"


def table(found: Mapping[int, Mapping[str, Times]]) -> str:
    """Markdown: medians and minima in ms, and how many times as fast as the baseline, by medians."""
    lines = [
        "| size | backend | first click, median (min) ms | x | next click, median (min) ms | x | mask IoU |",
        "|---|---|---|---|---|---|---|",
    ]
    for size, times in found.items():
        base = times[BASELINE]
        for name, own in times.items():
            cells = []
            for mine, theirs in ((own.first, base.first), (own.next, base.next)):
                median = statistics.median(mine)
                cells += [f"{median:.2f} ({min(mine):.2f})", f"{statistics.median(theirs) / median:.2f}"]
            lines.append(f"| {size} | {name} | {' | '.join(cells)} | {own.iou:.4f} |")
    return "\n".join(lines) + "\n"
