"""How long clicks take, by what they find: nothing yet, an encoded crop, or a crop that moved; and undo.

Nothing is encoded ahead here: what a click costs where it does its own work.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from clickmask.clicks import Click
from clickmask_export.profiling.figures import summary
from clickmask_export.profiling.recorder import STAGES, TimedClick, timed_click
from clickmask_export.profiling.scenes import Image
from clickmask_export.profiling.subject import Subject, synchroniser

FIRST, SAME, MOVED, TWICE, UNDO = "first click", "same crop", "moved crop", "seen twice", "undo"
KINDS = (FIRST, SAME, MOVED, TWICE, UNDO)
_STAGE_ROUNDS = 5  # of a GPU's steps, which are timed apart as each is waited for

_Times = dict[str, list[TimedClick]]


def measure_clicks(
    subjects: Sequence[Subject], photo: Image, clicks: Sequence[Click], rounds: int, sizes: Sequence[int] = ()
) -> list[dict[str, Any]]:
    """Let subjects take turns at a session, round by round, after one round that is not counted.

    Args:
        subjects: what to measure.
        photo: (H, W, 3) uint8 RGB.
        clicks: of a session.
        rounds: how often.
        sizes: input sizes; none for all that a subject has.

    Returns:
        For each subject, size (as text) to kind of click to ``summary`` in milliseconds, with ``stages``: the
        median milliseconds of each stage.
    """
    times: list[dict[int, _Times]] = [defaultdict(_new_times) for _ in subjects]
    staged: list[dict[int, _Times]] = [defaultdict(_new_times) for _ in subjects]
    for number in range(rounds + 1):
        turns = list(zip(subjects, times, strict=True))
        for subject, found in turns if number % 2 else reversed(turns):
            for size in _sizes(subject, sizes):
                _session(subject, photo, clicks, size, found[size] if number else _new_times())
    for subject, found, apart in zip(subjects, times, staged, strict=True):
        subject.recording.synchronise = synchroniser(subject.segmenter.backend.device)
        if subject.recording.synchronise is None:
            apart.update(found)
            continue
        for _ in range(_STAGE_ROUNDS):
            for size in _sizes(subject, sizes):
                _session(subject, photo, clicks, size, apart[size])
        subject.recording.synchronise = None
    return [
        {str(size): _report(kinds, apart[size]) for size, kinds in found.items()}
        for found, apart in zip(times, staged, strict=True)
    ]


def _sizes(subject: Subject, wanted: Sequence[int]) -> list[int]:
    return [size for size in subject.sizes if not wanted or size in wanted]


def _new_times() -> _Times:
    return {kind: [] for kind in KINDS}


def _session(subject: Subject, photo: Image, clicks: Sequence[Click], size: int, times: _Times) -> None:
    session = subject.segmenter.session(photo, size=size, prefetch=False)
    for number, click in enumerate(clicks):
        timed = timed_click(subject.recording, lambda at=click: session.click(at.x, at.y, at.positive))
        times[kind_of(number, timed)].append(timed)
    while session.can_undo:
        start = time.perf_counter()
        session.undo()
        spent = 1e3 * (time.perf_counter() - start)
        times[UNDO].append(TimedClick(spent, 0, 0, waited=False, stages={}))


def kind_of(number: int, click: TimedClick) -> str:
    """Of the click of that number, from 0, in its session; seen twice: closely, or by global to local."""
    if number == 0:
        return FIRST
    if click.passes > 1:
        return TWICE
    return MOVED if click.encoded else SAME


def _report(times: _Times, staged: _Times) -> dict[str, Any]:
    return {
        kind: summary([click.ms for click in found]) | {"stages": median_stages(staged[kind])}
        for kind, found in times.items()
        if found
    }


def median_stages(clicks: Sequence[TimedClick]) -> dict[str, float]:
    """The median milliseconds of each stage that any of some clicks has."""
    known = {stage for click in clicks for stage in click.stages}
    return {
        stage: float(np.median([click.stages.get(stage, 0.0) for click in clicks]))
        for stage in STAGES
        if stage in known
    }
