"""Joins calls from several threads into batches, which the callers' own threads run."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

_log = logging.getLogger("clickmask")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Call(Generic[Item, Result]):
    """deadline: when it has waited enough; done: it need not wait; results: one, if a batch gave it."""

    item: Item
    deadline: float
    done: bool = False
    results: list[Result] = field(default_factory=list)


class BatchingQueue(Generic[Item, Result]):
    """Calls with equal keys that wait at the same time become one.

    A call starts at once while no other is running. Otherwise it waits, and its batch starts as soon as one
    of three things is so: nothing is running any more; the batch is full; its first call has waited
    `patience` seconds. So a lone caller never waits, and nobody waits longer than `patience` to be started.

    Batches have 1, 2, 4, 8 ... or `most` items, so that a runtime meets few shapes; who is over waits on.

    Attributes:
        batches: how many batches of each number of items were run so far.
        failures: how many batches of several items failed; their items were then run alone.
    """

    def __init__(
        self,
        run_one: Callable[[Item], Result],
        run_many: Callable[[Sequence[Item]], Sequence[Result]],
        most: int,
        patience: float,
    ) -> None:
        """An empty queue.

        Args:
            run_one: runs one item; what it raises, the caller gets.
            run_many: runs several, giving one result for each. Where it raises, each is run alone.
            most: most items of a batch, at least 1.
            patience: seconds, at least 0.
        """
        self._run_one, self._run_many = run_one, run_many
        self._most, self._patience = most, patience
        self._changed = threading.Condition()
        self._waiting: dict[Hashable, list[_Call[Item, Result]]] = {}
        self._running = 0
        self.batches: Counter[int] = Counter()
        self.failures = 0

    @property
    def waiting(self) -> int:
        """How many calls wait to be started."""
        with self._changed:
            return sum(map(len, self._waiting.values()))

    def run(self, key: Hashable, item: Item) -> Result:
        """The result of an item, run alone or with others of the same key. From any thread.

        Raises:
            Exception: what `run_one` raised for this item.
        """
        call: _Call[Item, Result] = _Call(item, time.monotonic() + self._patience)
        batch = self._wait(key, call)
        if len(batch) == 1:
            try:
                return self._run_one(item)
            finally:
                self._finish(batch)
        if batch:
            self._run_together(batch)
        return call.results[0] if call.results else self._run_one(item)

    def _wait(self, key: Hashable, call: _Call[Item, Result]) -> list[_Call[Item, Result]]:
        """The batch that this caller must run; none if another caller has done it."""
        with self._changed:
            queue = self._waiting.setdefault(key, [])
            queue.append(call)
            self._changed.notify_all()  # the batch may be full now
            try:
                while not call.done:
                    first = bool(queue) and queue[0] is call
                    if first and self._may_start(queue):
                        return self._take(queue)
                    self._changed.wait(max(0.0, call.deadline - time.monotonic()) if first else None)
            finally:
                if call in queue:  # interrupted: others must not wait for it
                    queue.remove(call)
                    self._changed.notify_all()
            return []

    def _may_start(self, queue: Sequence[_Call[Item, Result]]) -> bool:
        late = time.monotonic() >= queue[0].deadline
        return self._running == 0 or len(queue) >= self._most or late

    def _take(self, queue: list[_Call[Item, Result]]) -> list[_Call[Item, Result]]:
        count = max(size for size in batch_sizes(self._most) if size <= len(queue))
        batch = queue[:count]
        del queue[:count]
        self._running += 1
        self.batches[count] += 1
        self._changed.notify_all()  # another is the first now
        return batch

    def _run_together(self, batch: Sequence[_Call[Item, Result]]) -> None:
        try:
            results = self._run_many([call.item for call in batch])
            for call, result in zip(batch, results, strict=True):
                call.results.append(result)
        except Exception as error:  # whose fault it is shows when each is run alone, in its caller's thread
            _log.warning("a batch of %d failed and is run one by one: %s", len(batch), error)
            for call in batch:
                call.results.clear()
            self.failures += 1
        finally:
            self._finish(batch)

    def _finish(self, batch: Sequence[_Call[Item, Result]]) -> None:
        with self._changed:
            self._running -= 1
            for call in batch:
                call.done = True
            self._changed.notify_all()


def batch_sizes(most: int) -> tuple[int, ...]:
    """1, 2, 4, 8 ... below `most`, and that itself."""
    sizes, size = [], 1
    while size < most:
        sizes.append(size)
        size *= 2
    return (*sizes, most)
