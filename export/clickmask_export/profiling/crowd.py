"""How many sessions a second one segmenter serves, with so many people at once that none of them pauses."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from clickmask.clicks import Click
from clickmask_export.profiling.figures import summary
from clickmask_export.profiling.scenes import Image
from clickmask_export.profiling.subject import Subject


def measure_crowd(
    subject: Subject, photo: Image, clicks: Sequence[Click], sessions: int, seconds: float
) -> dict[str, Any]:
    """Run a number of threads, each with one session after the other, for some seconds.

    Returns:
        ``summary`` of clicks in milliseconds, with ``sessions``, ``clicks_per_second`` and
        ``sessions_per_second``, a session being all the clicks given.
    """
    begin = threading.Barrier(sessions + 1)
    times: list[list[float]] = [[] for _ in range(sessions)]
    problems: list[BaseException] = []
    stop = threading.Event()

    def annotate(mine: list[float]) -> None:
        try:
            begin.wait()
            while not stop.is_set():
                session = subject.segmenter.session(photo)
                for click in clicks:
                    start = time.perf_counter()
                    session.click(click.x, click.y, click.positive)
                    mine.append(1e3 * (time.perf_counter() - start))
                    if stop.is_set():
                        break
        except BaseException as exc:
            problems.append(exc)

    threads = [threading.Thread(target=annotate, args=(mine,)) for mine in times]
    for thread in threads:
        thread.start()
    begin.wait()
    start = time.perf_counter()
    try:
        time.sleep(seconds)
    finally:  # also after Ctrl-C: a process does not end before its threads
        stop.set()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - start
    subject.recording.spans.clear()
    if problems:
        raise problems[0]
    done = [time for mine in times for time in mine]
    rate = len(done) / spent
    figures = summary(done) | {"sessions": sessions, "clicks_per_second": rate}
    del figures["samples"]
    return figures | {"sessions_per_second": rate / len(clicks)}
