"""What a build says while it works: one line per stage, with the seconds it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_BAR, _DETAIL = 24, 32  # characters


class Progress:
    """Prints stages; on a terminal the line of the running stage also shows its steps.

    Args:
        stream: where to print; standard error by default, so that standard output holds results only.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._begin = time.monotonic()
        self._label = ""

    @contextmanager
    def stage(self, label: str) -> Iterator[None]:
        """Announces a stage, and says how long it took once it is over."""
        self._label = label
        start = time.monotonic()
        self._print(f"{self._clock()} {label} ...", "" if self._is_terminal() else "\n")
        try:
            yield
        except BaseException:
            self._print("\n" if self._is_terminal() else "", "")
            raise
        self._print(f"{self._erase()}{self._clock()} {label}: {time.monotonic() - start:.1f} s")

    def note(self, text: str) -> None:
        """Says something between stages."""
        self._print(f"{self._clock()} {text}")

    def step(self, done: int, total: int) -> None:
        """Shows how far the running stage is; silent unless the stream is a terminal."""
        if self._is_terminal():
            self._print(f"{self._erase()}{self._clock()} {self._label} ... {done}/{total}", "")

    def bar(self, share: float, detail: str) -> None:
        """Shows a share in [0, 1] of the running stage, and what it is at; silent unless on a terminal."""
        if self._is_terminal():
            filled = round(share * _BAR)
            bar = "#" * filled + "." * (_BAR - filled)
            self._print(
                f"{self._erase()}{self._clock()} {self._label} [{bar}] {share:4.0%} {detail[:_DETAIL]}", ""
            )

    def _clock(self) -> str:
        return f"[{time.monotonic() - self._begin:6.1f} s]"

    def _erase(self) -> str:
        return "\r\x1b[K" if self._is_terminal() else ""

    def _is_terminal(self) -> bool:
        return self._stream.isatty()

    def _print(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=self._stream, flush=True)
