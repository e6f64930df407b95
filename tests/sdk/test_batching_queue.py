"""Who waits for whom: a lone caller for nobody, others for a batch under way, up to their patience."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from clickmask.batching_queue import BatchingQueue, batch_sizes

A_WHILE = 10
FOREVER = 3600.0


class Squares:
    """Squares numbers, and remembers the batches; one in `held` waits for `opened`, one in `bad` raises."""

    def __init__(self, most: int, patience: float) -> None:
        self.ran: list[list[int]] = []
        self.held: set[int] = set()
        self.bad: set[int] = set()
        self.inside, self.opened = threading.Event(), threading.Event()
        self.queue: BatchingQueue[int, int] = BatchingQueue(
            lambda item: self.together([item])[0], self.together, most, patience
        )

    def together(self, items: Sequence[int]) -> list[int]:
        self.ran.append(list(items))
        if self.held & set(items):
            self.inside.set()
            assert self.opened.wait(A_WHILE)
        for item in items:
            if item in self.bad:
                raise ValueError(f"bad {item}")
        return [item * item for item in items]

    def until(self, condition: Callable[[], bool]) -> None:
        limit = time.monotonic() + A_WHILE / 2  # before `together` gives up, which would end a wait too
        while not condition():
            assert time.monotonic() < limit
            time.sleep(0.001)


@pytest.fixture
def start() -> Any:
    """Calls a function on a thread of its own; gives a Future."""
    with ThreadPoolExecutor(40) as pool:
        yield pool.submit


def held(start: Callable[..., Future], squares: Squares, item: int = 1) -> Future:
    """A call that is under way until `squares.opened`."""
    squares.held.add(item)
    call = start(squares.queue.run, "key", item)
    assert squares.inside.wait(A_WHILE)
    return call


def test_a_lone_caller_never_waits() -> None:
    squares = Squares(most=8, patience=FOREVER)
    assert [squares.queue.run("key", i) for i in (3, 4)] == [9, 16]
    assert squares.ran == [[3], [4]]


def test_calls_that_wait_for_one_under_way_then_run_as_one(start: Any) -> None:
    squares = Squares(most=8, patience=FOREVER)
    first = held(start, squares)
    others = [start(squares.queue.run, "key", i) for i in (2, 3, 4, 5)]
    squares.until(lambda: squares.queue.waiting == 4)
    assert squares.ran == [[1]]
    squares.opened.set()
    assert [call.result(A_WHILE) for call in (first, *others)] == [1, 4, 9, 16, 25]
    assert sorted(squares.ran[1]) == [2, 3, 4, 5]
    assert squares.queue.batches == {1: 1, 4: 1}


def test_a_full_batch_does_not_wait(start: Any) -> None:
    squares = Squares(most=3, patience=FOREVER)
    first = held(start, squares)
    others = [start(squares.queue.run, "key", i) for i in (2, 3, 4)]
    assert [call.result(A_WHILE) for call in others] == [4, 9, 16]
    assert not first.done()
    squares.opened.set()


@pytest.mark.parametrize("patience", [0.0, 0.05])
def test_nobody_waits_longer_than_their_patience(start: Any, patience: float) -> None:
    squares = Squares(most=8, patience=patience)
    first = held(start, squares)
    asked = time.monotonic()
    assert start(squares.queue.run, "key", 2).result(A_WHILE) == 4
    assert time.monotonic() - asked >= patience
    assert not first.done()
    squares.opened.set()


def test_who_is_first_once_a_batch_has_left_waits_no_longer_than_that_either(start: Any) -> None:
    squares = Squares(most=4, patience=0.2)
    squares.held = {2, 3, 4}
    first = held(start, squares)
    others = [start(squares.queue.run, "key", i) for i in (2, 3, 4)]  # two make a batch, and one is over
    squares.until(lambda: sum(map(len, squares.ran)) == 4)  # though none has ended
    assert not first.done()
    squares.opened.set()
    assert [call.result(A_WHILE) for call in others] == [4, 9, 16]


def test_different_keys_never_join(start: Any) -> None:
    squares = Squares(most=2, patience=FOREVER)
    held(start, squares)
    calls = [start(squares.queue.run, key, i) for i, key in ((2, "a"), (3, "b"), (4, "a"), (5, "b"))]
    assert [call.result(A_WHILE) for call in calls] == [4, 9, 16, 25]
    assert sorted(map(sorted, squares.ran)) == [[1], [2, 4], [3, 5]]
    squares.opened.set()


def test_a_batch_that_fails_is_run_one_by_one_and_only_the_bad_one_raises(start: Any) -> None:
    squares = Squares(most=4, patience=FOREVER)
    squares.bad = {3}
    held(start, squares)
    calls = {i: start(squares.queue.run, "key", i) for i in (2, 3, 4, 5)}
    assert [calls[i].result(A_WHILE) for i in (2, 4, 5)] == [4, 16, 25]
    with pytest.raises(ValueError, match="bad 3"):
        calls[3].result(A_WHILE)
    assert sorted(map(len, squares.ran)) == [1, 1, 1, 1, 1, 4]  # each once, no more
    assert squares.queue.failures == 1
    squares.opened.set()


def test_a_batch_that_gives_too_few_results_gives_them_to_nobody(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    squares = Squares(most=2, patience=FOREVER)
    monkeypatch.setattr(squares.queue, "_run_many", lambda items: [0] * (len(items) - 1))
    held(start, squares)
    calls = [start(squares.queue.run, "key", i) for i in (2, 3)]
    assert [call.result(A_WHILE) for call in calls] == [4, 9]
    assert squares.queue.failures == 1
    squares.opened.set()


def test_a_lone_caller_meets_its_error_and_the_next_one_is_not_stuck() -> None:
    squares = Squares(most=4, patience=FOREVER)
    squares.bad = {2}
    with pytest.raises(ValueError, match="bad 2"):
        squares.queue.run("key", 2)
    assert squares.queue.run("key", 3) == 9


def test_a_caller_that_is_interrupted_holds_nobody_up(start: Any, monkeypatch: Any) -> None:
    squares = Squares(most=2, patience=FOREVER)
    held(start, squares)
    wait = squares.queue._changed.wait
    victims = {threading.get_ident()}

    def interrupted(timeout: float | None = None) -> bool:
        if threading.get_ident() in victims:
            raise KeyboardInterrupt
        return wait(timeout)

    monkeypatch.setattr(squares.queue._changed, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        squares.queue.run("key", 2)
    assert squares.queue.waiting == 0
    others = [start(squares.queue.run, "key", i) for i in (3, 4)]
    assert [call.result(A_WHILE) for call in others] == [9, 16]
    assert sorted(squares.ran[1]) == [3, 4]
    squares.opened.set()


def test_a_storm_gives_everyone_their_own_result_in_few_batch_sizes(start: Any) -> None:
    squares = Squares(most=6, patience=0.002)

    def many(seed: int) -> list[int]:
        return [squares.queue.run(i % 3, 1000 * seed + i) for i in range(40)]

    results = [call.result(30) for call in [start(many, seed) for seed in range(16)]]
    assert results == [[(1000 * seed + i) ** 2 for i in range(40)] for seed in range(16)]
    assert sum(map(len, squares.ran)) == 16 * 40
    assert {len(batch) for batch in squares.ran} <= set(batch_sizes(6)) == {1, 2, 4, 6}
    assert all(len({item % 1000 % 3 for item in batch}) == 1 for batch in squares.ran)
    assert squares.queue.waiting == 0


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, (1,)), (2, (1, 2)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12))]
)
def test_batch_sizes(most: int, sizes: tuple) -> None:
    assert batch_sizes(most) == sizes
