"""What a click costs beside the network: from the photo to its input, and from logits to a mask."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from clickmask.clicks import Click
from clickmask_export.profiling.clicks import kind_of
from clickmask_export.profiling.figures import summary
from clickmask_export.profiling.recorder import CHECKS, PASTE, PREPARE, timed_click
from clickmask_export.profiling.scenes import Image
from clickmask_export.profiling.subject import Subject

INTAKE, POLYGONS = "session begins", "polygons"


def measure_around(
    subject: Subject, photo: Image, clicks: Sequence[Click], rounds: int
) -> dict[str, dict[str, Any]]:
    """Times of the host's steps on a photo, in sessions without prefetch.

    They have the bundle's own settings, and in turns with them the same without close looks, whose clicks are
    what a photo shows that is too small for those.

    Returns:
        Kind of click (``clicks.kind_of``) to step to ``summary`` in milliseconds:
        ``prepare`` (crop, resize, clicks, previous mask; before a close look momentum), ``checks``,
        ``paste`` (blending, logits to mask), their sum as ``a click``, and ``polygons`` of the mask; and
        "once" to the time that ``session begins`` takes.
    """
    times: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    own = subject.segmenter.bundle.manifest.crop
    for number, policy in enumerate((own, replace(own, close_above=None)) * (rounds + 1)):
        session, begun = _timed(lambda how=policy: subject.segmenter.session(photo, how, prefetch=False))
        kept = times if number > 1 else defaultdict(lambda: defaultdict(list))
        kept["once"][INTAKE].append(begun)
        for place, at in enumerate(clicks):
            click = timed_click(subject.recording, lambda at=at, s=session: s.click(at.x, at.y, at.positive))
            kind = kind_of(place, click)
            steps = {step: click.stages.get(step, 0.0) for step in (PREPARE, CHECKS, PASTE)}
            _, outlines = _timed(session.polygons)
            for step, spent in (steps | {"a click": sum(steps.values()), POLYGONS: outlines}).items():
                kept[kind][step].append(spent)
    return {kind: {step: summary(spent) for step, spent in steps.items()} for kind, steps in times.items()}


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = call()
    return result, 1e3 * (time.perf_counter() - start)
