"""How much of the GPU's memory a runtime takes at most, looked at all the time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from types import TracebackType

from gpu_scenes import Scene

from clickmask.backends.base import Backend

_EVERY = 0.002  # seconds
_STEPS = ("opened", "warmed up", "clicked on")


class HighWater:
    """The most bytes that were taken at once since it was made; a context, in which a thread looks.

    Attributes:
        bytes: so many.
    """

    def __init__(self, free: Callable[[], int]) -> None:
        """free: bytes that are left; any thread may ask."""
        self._free, self._before, self.bytes = free, free(), 0
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def look(self) -> int:
        """That, with this very moment."""
        self.bytes = max(self.bytes, self._before - self._free())
        return self.bytes

    def _watch(self) -> None:
        while not self._done.wait(_EVERY):
            self.look()

    def __enter__(self) -> HighWater:
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._watcher.join()


def measure_memory(
    open_backend: Callable[[], Backend], scenes: Sequence[Scene], free: Callable[[], int]
) -> dict[str, int]:
    """Most bytes taken until a backend was open, then warmed up, then clicked on at every size."""
    found = {}
    with HighWater(free) as mark, closing(open_backend()) as backend:
        found[_STEPS[0]] = mark.look()
        backend.warmup()
        found[_STEPS[1]] = mark.look()
        for scene in scenes:
            scene.run(backend)
        found[_STEPS[2]] = mark.look()
    return found


def memory_table(found: Mapping[str, Mapping[str, int]]) -> str:
    """Markdown: MB of 10^6 bytes by backend and step."""
    lines = [f"| backend | {' | '.join(_STEPS)} |", "|---" * (len(_STEPS) + 1) + "|"]
    for name, steps in found.items():
        lines.append(f"| {name} | {' | '.join(f'{steps[step] / 1e6:.0f}' for step in _STEPS)} |")
    return "\n".join(lines) + "\n"
