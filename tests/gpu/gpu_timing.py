"""Times of several backends in one run, taken in turns, and the table of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
