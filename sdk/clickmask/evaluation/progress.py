"""A progress bar with the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

_WIDTH = 30
_LOG_EVERY = 60.0  # seconds between lines where nobody watches, as in a log file


class Progress:
    """Shows done of total on a terminal, redrawn in place; elsewhere a line a minute."""

    def __init__(
        self,
        label: str,
        done: int,
        total: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        log_every: float = _LOG_EVERY,
    ) -> None:
        """Begins at ``done``: what an earlier run did says nothing about the speed of this one."""
        self._label, self._first, self._total = label, done, total
        self._stream = stream or sys.stderr
        self._clock, self._log_every = clock, log_every
        self._began = self._logged = clock()
        self._live = self._stream.isatty()

    def update(self, done: int) -> None:
        """Shows that ``done`` of the total are done."""
        now = self._clock()
        if not self._live and now - self._logged < self._log_every:
            return
        self._logged = now
        text = f"{self._label}  {self._bar(done)}{done}/{self._total}  {self._time(done, now)}"
        self._stream.write(f"\r\x1b[K{text}" if self._live else f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Clears the bar."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _bar(self, done: int) -> str:
        if not self._live:
            return ""
        filled = _WIDTH * done // self._total
        return f"[{'#' * filled}{'.' * (_WIDTH - filled)}] "

    def _time(self, done: int, now: float) -> str:
        new = done - self._first
        if done == self._total:
            return f"{_clock(now - self._began)} taken"
        return f"{_clock((now - self._began) / new * (self._total - done))} left" if new > 0 else ""


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
