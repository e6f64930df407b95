"""Many threads on one GPU, on doubles: lanes are shared out, given up and made again."""

from __future__ import annotations

import gc
import logging
import threading
import time
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from at_once import at_once
from bundles import DIFFUSION, prompt
from cuda_double import Error
from gpu_machine import Machine, truth

from clickmask.backends.lanes import LANES, Lanes
from clickmask.errors import BackendError

# Many threads


def test_many_threads_at_once(any_machine: Machine) -> None:
    backend = any_machine.open(encodes_once=True, pixel_diffusion=DIFFUSION)
    backend.warmup()

    def annotate(seed: int) -> None:
        for turn in range(4):
            size, slots = (64, 96, 128)[(seed + turn) % 3], (4, 8)[turn % 2]
            image, clicks, mask = prompt(1, size, slots, seed=10 * seed + turn)
            logits = backend.decode(backend.encode(image), clicks, mask)
            expected = truth({"encodes_once": True, "pixel_diffusion": 1}, image, clicks, mask)
            np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-6)

    at_once(annotate, 6)

    assert any_machine.cuda.live("stream") <= 2 * LANES


def test_one_lane_is_enough_where_there_is_no_memory_for_two(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    backend = machine.open()
    image, clicks, mask = prompt(1, 64)
    backend.decode(backend.encode(image), clicks, mask)
    machine.cuda.fail["cudaStreamCreateWithFlags"] = Error.cudaErrorMemoryAllocation

    with caplog.at_level(logging.WARNING, "clickmask"):
        backend.warmup()

    assert "no more than 1 calls run side by side" in caplog.text
    np.testing.assert_allclose(
        backend.decode(backend.encode(image), clicks, mask), truth({}, image, clicks, mask), atol=2e-6
    )


def test_closing_while_a_call_runs_frees_its_memory_when_it_ends(machine: Machine) -> None:
    backend = machine.open()
    image, clicks, mask = prompt(1, 64)
    held = [backend.encode(image)]
    reached, go_on, ends = threading.Event(), threading.Event(), []
    real = machine.cuda.module.cudaStreamSynchronize  # type: ignore[attr-defined]

    def click() -> None:
        try:
            backend.decode(held.pop(), clicks, mask)
        except BackendError as exc:
            ends.append(str(exc))

    def slow(stream: Any) -> Any:
        if threading.current_thread() is worker:
            reached.set()
            go_on.wait(10)
        return real(stream)

    machine.cuda.module.cudaStreamSynchronize = slow  # type: ignore[attr-defined]
    worker = threading.Thread(target=click)
    worker.start()
    assert reached.wait(10)
    backend.close()
    assert machine.cuda.live("stream") == 2
    go_on.set()
    worker.join(10)
    gc.collect()

    assert "after close()" in ends[0]
    assert machine.cuda.live("device") == machine.cuda.live("stream") == 0


def test_who_waits_for_a_lane_that_cannot_be_made_hears_of_it() -> None:
    trying, go_on, ends = threading.Event(), threading.Event(), []

    def make() -> Any:
        trying.set()
        go_on.wait(10)
        raise BackendError("no memory")

    lanes: Lanes[Any] = Lanes(make, most=1)

    def take() -> None:
        try:
            with lanes.lent():
                pass
        except BackendError as exc:
            ends.append(str(exc))

    threads = [threading.Thread(target=take, daemon=True) for _ in range(3)]
    threads[0].start()
    assert trying.wait(10)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.05)  # until they wait; the test cannot fail for want of it
    go_on.set()
    for thread in threads:
        thread.join(20)

    assert ends == ["no memory"] * 3


class QuietLane:
    """A lane in which nothing runs."""

    warming = False

    def finish(self) -> None:
        pass

    close = finish


def test_who_waits_for_a_lane_gets_another_when_the_call_in_it_fails() -> None:
    lanes: Lanes[QuietLane] = Lanes(QuietLane, most=1)
    got = threading.Event()

    def take() -> None:
        with lanes.lent():
            got.set()

    waiting = threading.Thread(target=take, daemon=True)
    with suppress(RuntimeError), lanes.lent():
        waiting.start()
        time.sleep(0.05)  # until it waits; the test cannot fail for want of it
        raise RuntimeError("an error in the call")

    assert got.wait(10)


def test_two_threads_that_warm_up_wait_for_no_lane_of_each_other() -> None:
    def make() -> QuietLane:
        time.sleep(0.05)  # so that each thread could make one, and wait for the other's
        return QuietLane()

    lanes, ran = Lanes(make, most=2), []

    at_once(lambda _: lanes.warm_up(lambda: ran.append(lanes.mine)), 2, seconds=10)

    assert len(ran) == 4
    assert len(set(ran)) == 2


class BrokenLane:
    """After an error that nothing on the device survives: every call raises what is no BackendError."""

    def finish(self) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    close = finish


def test_lanes_that_cannot_even_be_closed_make_room_for_others() -> None:
    lanes: Lanes[BrokenLane] = Lanes(BrokenLane, most=1)
    ends: list[str] = []

    def take() -> None:
        for _ in range(3):
            try:
                with lanes.lent():
                    pass
            except RuntimeError as exc:
                ends.append(str(exc))

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(20)

    assert ends == ["an illegal memory access was encountered"] * 3


def test_lanes_that_fail_to_be_made_in_any_way_are_not_counted() -> None:
    def make() -> Any:
        raise RuntimeError("no stream")

    lanes: Lanes[Any] = Lanes(make, most=1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no stream"), lanes.lent():
            pass


def test_lanes_of_a_warmup_that_fails_are_given_up(machine: Machine) -> None:
    backend = machine.open()
    machine.trt.fail.add("execute_async_v3")
    with pytest.raises(BackendError, match="execute_async_v3"):
        backend.warmup()
    assert machine.cuda.live("stream") == 0

    machine.trt.fail.clear()
    image, clicks, mask = prompt(1, 64)
    logits = backend.decode(backend.encode(image), clicks, mask)
    np.testing.assert_allclose(logits, truth({}, image, clicks, mask), rtol=0, atol=2e-6)
