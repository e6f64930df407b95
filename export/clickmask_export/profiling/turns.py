"""Times of things that are compared: they take turns, so that what else the machine does meets all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any


def take_turns(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each call in each round, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            result = call()
            spent = 1e3 * (time.perf_counter() - start)
            del result  # freeing is not what is timed
            if number:
                times[name].append(spent)
    return times
