"""The same work in many threads."""

from __future__ import annotations

import threading
from collections.abc import Callable


def at_once(work: Callable[[int], object], count: int, seconds: float = 60) -> None:
    """Calls ``work`` with 0 to count - 1, each in a thread of its own, and raises what one of them raised.

    A thread that does not come back in time fails the test, and does not keep the process.
    """
    raised: list[BaseException] = []

    def one(number: int) -> None:
        try:
            work(number)
        except BaseException as exc:
            raised.append(exc)

    threads = [threading.Thread(target=one, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    if raised:
        raise raised[0]
    assert not any(thread.is_alive() for thread in threads)
