"""What the machine alone adds to a time: arithmetic that is always the same, done as often as clicks are.

It keeps as many cores busy as the runtime does, touches no memory beyond the innermost cache and allocates
nothing. Where its times spread, other work on the machine, its host or its clock did it.
"""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

_TRIES = 5
_ROUNDS = 2000  # about a millisecond


class Control:
    """Threads with some arithmetic each, repeated hashing; a context, which ends them."""

    def __init__(self, threads: int, ms: float) -> None:
        """Finds out how much arithmetic takes so many milliseconds, at best."""
        self._pool = ThreadPoolExecutor(threads)
        self._threads = threads
        self._rounds = max(1, round(_ROUNDS * ms / min(self._time(_ROUNDS) for _ in range(_TRIES))))

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def run(self) -> float:
        """Milliseconds until all threads are done with it."""
        return self._time(self._rounds)

    def _time(self, rounds: int) -> float:
        start = time.perf_counter()
        done = [self._pool.submit(_work, rounds) for _ in range(self._threads)]
        for one in done:
            one.result()
        return 1e3 * (time.perf_counter() - start)


def _work(rounds: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", b"clickmask", b"", rounds)  # releases the interpreter's lock
