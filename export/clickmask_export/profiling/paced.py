"""What a person waits: clicks some time apart, on objects, where crops are encoded while the person looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from clickmask.evaluation.robot import next_click
from clickmask.session import Session
from clickmask.view import Box
from clickmask_export.profiling.figures import summary
from clickmask_export.profiling.recorder import TimedClick, timed_click
from clickmask_export.profiling.scenes import Scene
from clickmask_export.profiling.subject import Subject

SEEN, NEW, READY = "seen", "new", "ready"
"""Clicks in a crop that their session has looked at before, in others, and in an encoded one."""


def measure_paced(
    subject: Subject,
    scenes: Sequence[Scene],
    pace: float,
    clicks: int,
    *,
    size: int | None = None,
    prefetch: bool = True,
    control: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Annotate objects one after the other, each click where the mask is most wrong.

    Args:
        subject: what to measure.
        scenes: objects.
        pace: seconds from a mask to the next click, and from the beginning of a session to its first.
        clicks: most clicks for an object.
        size: input size of all clicks; None lets each view choose.
        prefetch: whether crops are encoded ahead.
        control: does the same work each time and returns its milliseconds; called half-way between clicks.

    Returns:
        ``summary`` over all clicks in milliseconds, with ``share_without_wait``: that of the clicks whose
        crop was encoded when they came; ``share_moved``: of those that looked at a crop not seen before in
        their session, the first click included; ``kinds``: the `SEEN`, `NEW` and `READY` ones' ``summary``,
        where there are any; and ``control``: its ``summary``, or None.
    """
    timed: list[tuple[TimedClick, bool]] = []
    controls: list[float] = []
    between = None if control is None else lambda: controls.append(control())
    for scene in scenes:
        session = subject.segmenter.session(scene.photo, size=size, prefetch=prefetch)
        seen: set[Box | None] = set()
        for at in _robot(session, scene, clicks, pace, between):
            click = timed_click(subject.recording, lambda at=at, s=session: s.click(at.x, at.y, at.positive))
            timed.append((click, session.crop not in seen))
            seen.add(session.crop)
    kinds = {
        SEEN: [click.ms for click, new in timed if not new],
        NEW: [click.ms for click, new in timed if new],
        READY: [click.ms for click, _ in timed if not click.waited],
    }
    return summary([click.ms for click, _ in timed]) | {
        "pace_s": pace,
        "size": size,
        "prefetch": prefetch,
        "objects": len(scenes),
        "share_without_wait": len(kinds[READY]) / len(timed),
        "share_moved": len(kinds[NEW]) / len(timed),
        "kinds": {kind: summary(times) for kind, times in kinds.items() if times},
        "control": summary(controls) if controls else None,
    }


def _robot(
    session: Session, scene: Scene, clicks: int, pace: float, between: Callable[[], None] | None
) -> Iterator[Any]:
    """Clicks, each given when its time has come; where to is decided while the person looks."""
    clicked, ignored = (np.zeros(scene.truth.shape, np.bool_) for _ in range(2))
    for _ in range(clicks):
        due = time.perf_counter() + pace
        click = next_click(session.mask, scene.truth, ignored, clicked)
        if click is None:
            return
        clicked[int(click.y), int(click.x)] = True
        if between is not None:
            _sleep_until(due - pace / 2)
            between()
        _sleep_until(due)
        yield click


def _sleep_until(due: float) -> None:
    time.sleep(max(0.0, due - time.perf_counter()))
