"""What a person waits: clicks some time apart, on objects, where crops are encoded while the person looks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from clickmask.evaluation.robot import next_click
from clickmask.session import Session
from clickmask_export.profiling.figures import summary
from clickmask_export.profiling.recorder import TimedClick, timed_click
from clickmask_export.profiling.scenes import Scene
from clickmask_export.profiling.subject import Subject


def measure_paced(
    subject: Subject, scenes: Sequence[Scene], pace: float, clicks: int, *, prefetch: bool = True
) -> dict[str, Any]:
    """Annotate objects one after the other, each click where the mask is most wrong.

    Args:
        subject: what to measure.
        scenes: objects.
        pace: seconds from a mask to the next click, and from the beginning of a session to its first.
        clicks: most clicks for an object.
        prefetch: whether crops are encoded ahead.

    Returns:
        ``summary`` over all clicks in milliseconds, with ``share_without_wait``: that of the clicks whose
        crop was encoded when they came; and ``share_moved``: of those that found another crop than the click
        before, or were the first.
    """
    timed: list[TimedClick] = []
    moved = 0
    for scene in scenes:
        session = subject.segmenter.session(scene.photo, prefetch=prefetch)
        for click in _robot(session, scene, clicks, pace):
            before = session.crop
            timed.append(
                timed_click(subject.recording, lambda at=click, s=session: s.click(at.x, at.y, at.positive))
            )
            moved += session.crop != before
    return summary([click.ms for click in timed]) | {
        "pace_s": pace,
        "prefetch": prefetch,
        "share_without_wait": sum(not click.waited for click in timed) / len(timed),
        "share_moved": moved / len(timed),
    }


def _robot(session: Session, scene: Scene, clicks: int, pace: float) -> Iterator[Any]:
    """Clicks, each given when its time has come; where to is decided while the person looks."""
    clicked, ignored = (np.zeros(scene.truth.shape, np.bool_) for _ in range(2))
    for _ in range(clicks):
        due = time.perf_counter() + pace
        click = next_click(session.mask, scene.truth, ignored, clicked)
        if click is None:
            return
        clicked[int(click.y), int(click.x)] = True
        time.sleep(max(0.0, due - time.perf_counter()))
        yield click
