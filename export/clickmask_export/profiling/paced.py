"""What a person waits: clicks some time apart, on objects, where crops are encoded while the person looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clickmask.clicks import Click
from clickmask.evaluation.robot import next_click
from clickmask.session import Session
from clickmask.view import Box
from clickmask_export.profiling.figures import summary
from clickmask_export.profiling.recorder import TimedClick, timed_click
from clickmask_export.profiling.scenes import Scene
from clickmask_export.profiling.subject import Subject

SEEN, NEW, READY = "seen", "new", "ready"
"""Clicks in a crop that their session has looked at before, in others, and in an encoded one."""

_AHEAD_S, _AWAY = (0.05, 0.15), 10  # of a pointer on its way: when before the click, and how many pixels off


@dataclass
class _Run:
    """The clicks of one way to make them.

    Attributes:
        pointer: seeded, where the pointer moves before each click; None where it does not.
        clicks: each with whether its session had not looked at its crop before.
        controls: of each pause, the milliseconds of the control and of the same again at once.
    """

    pointer: np.random.Generator | None
    clicks: list[tuple[TimedClick, bool]] = field(default_factory=list)
    controls: list[tuple[float, float]] = field(default_factory=list)


def measure_paced(
    subject: Subject,
    scenes: Sequence[Scene],
    pace: float,
    clicks: int,
    *,
    size: int | None = None,
    prefetch: bool = True,
    control: Callable[[], float] | None = None,
    pointers: Sequence[bool] = (False,),
) -> list[dict[str, Any]]:
    """Annotate objects one after the other, each click where the mask is most wrong.

    Args:
        subject: what to measure.
        scenes: objects.
        pace: seconds from a mask to the next click, and from the beginning of a session to its first.
        clicks: most clicks for an object.
        size: input size of all clicks; None lets each view choose.
        prefetch: whether crops are encoded ahead.
        control: does the same work each time and returns its milliseconds; called twice half-way between
            clicks.
        pointers: runs to make, object by object in turns: True for one where a preview is shown 50 to 150 ms
            before each click, a few pixels away, as `clickmask.live` does while the pointer moves.

    Returns:
        Of each run ``summary`` over all clicks in milliseconds, with ``share_without_wait``: that of the
        clicks whose crop was encoded when they came; ``share_moved``: of those that looked at a crop not seen
        before in their session, the first click included; ``kinds``: the `SEEN`, `NEW` and `READY` ones'
        ``summary``, where there are any; ``control`` and ``control_again``: that of the control after the
        pause and of the same again at once, or None.
    """
    runs = [_Run(np.random.default_rng(0) if pointer else None) for pointer in pointers]
    for scene in scenes:
        for run in runs:
            session = subject.segmenter.session(scene.photo, size=size, prefetch=prefetch)
            _annotate(subject, session, scene, run, pace, clicks, control)
    facts = {"pace_s": pace, "size": size, "prefetch": prefetch, "objects": len(scenes)}
    return [_report(run) | facts for run in runs]


def _annotate(
    subject: Subject,
    session: Session,
    scene: Scene,
    run: _Run,
    pace: float,
    clicks: int,
    control: Callable[[], float] | None,
) -> None:
    seen: set[Box | None] = set()
    for at, due in _robot(session, scene, clicks, pace):
        if control is not None:
            _sleep_until(due - pace / 2)
            run.controls.append((control(), control()))
        if run.pointer is not None:
            _sleep_until(due - run.pointer.uniform(*_AHEAD_S))
            near = _near(at, session, run.pointer)
            session.fork(prefetch=False).click(near.x, near.y, near.positive)
        _sleep_until(due)
        timed = timed_click(subject.recording, lambda at=at: session.click(at.x, at.y, at.positive))
        run.clicks.append((timed, session.crop not in seen))
        seen.add(session.crop)


def _report(run: _Run) -> dict[str, Any]:
    kinds = {
        SEEN: [click.ms for click, new in run.clicks if not new],
        NEW: [click.ms for click, new in run.clicks if new],
        READY: [click.ms for click, _ in run.clicks if not click.waited],
    }
    first, again = ([both[place] for both in run.controls] for place in (0, 1))
    return summary([click.ms for click, _ in run.clicks]) | {
        "pointer": run.pointer is not None,
        "share_without_wait": len(kinds[READY]) / len(run.clicks),
        "share_moved": len(kinds[NEW]) / len(run.clicks),
        "kinds": {kind: summary(times) for kind, times in kinds.items() if times},
        "control": summary(first) if first else None,
        "control_again": summary(again) if again else None,
    }


def _robot(session: Session, scene: Scene, clicks: int, pace: float) -> Iterator[tuple[Click, float]]:
    """Clicks and when they are due; where to is decided while the person looks."""
    clicked, ignored = (np.zeros(scene.truth.shape, np.bool_) for _ in range(2))
    for _ in range(clicks):
        due = time.perf_counter() + pace
        click = next_click(session.mask, scene.truth, ignored, clicked)
        if click is None:
            return
        clicked[int(click.y), int(click.x)] = True
        yield click, due


def _near(click: Click, session: Session, generator: np.random.Generator) -> Click:
    """Where the pointer is on its way to a click."""
    height, width = session.mask.shape
    x, y = np.add((click.x, click.y), generator.uniform(-_AWAY, _AWAY, 2))
    return Click(float(np.clip(x, 0, width - 1)), float(np.clip(y, 0, height - 1)), click.positive)


def _sleep_until(due: float) -> None:
    time.sleep(max(0.0, due - time.perf_counter()))
