"""The rule of threads: sessions are independent, and one session does one call at a time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import pytest
from sessions import RecordingBackend, make_image, make_segmenter

from clickmask.errors import InvalidInputError, SessionStateError
from clickmask.session import Session

CROP = {"kind": "fbrs", "start_click": 2, "min_size": 40}
POINTS = [(150, 100, True), (180, 110, True), (60, 40, False), (140, 90, True)]


class SlowBackend(RecordingBackend):
    """Counts how many decodes are under way at once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.now = self.most = 0
        self.count = threading.Lock()

    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        with self.count:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            time.sleep(0.02)
            return super()._run(graph, feeds)
        finally:
            with self.count:
                self.now -= 1


def slow_segmenter():
    segmenter = make_segmenter(input={"sizes": [64]})
    segmenter.backend = SlowBackend(segmenter.bundle.manifest)
    return segmenter


def together(calls: list[Callable[[], Any]]) -> list[Any]:
    """Run calls at the same moment, each on its own thread."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(timeout=10)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls, timeout=30))


def test_one_segmenter_serves_many_sessions_at_once() -> None:
    segmenter = make_segmenter(echo=True, crop=CROP)
    images = [make_image(300 - 10 * i, 200 + 5 * i, seed=i) for i in range(6)]

    def annotate(image: np.ndarray, sharing: Any) -> tuple:
        session = sharing.session(image)
        for point in POINTS:
            session.click(*point)
        session.undo()
        session.remove(0)
        return session.mask.tobytes(), session.crop, session.to_json()

    alone = [annotate(image, make_segmenter(echo=True, crop=CROP)) for image in images]
    assert together([lambda image=image: annotate(image, segmenter) for image in images]) == alone


def test_sessions_do_not_wait_for_each_other() -> None:
    segmenter = slow_segmenter()
    sessions = [segmenter.session(make_image(64, 64)) for _ in range(4)]
    together([lambda session=session: session.click(10, 10) for session in sessions])
    assert segmenter.backend.most > 1


def test_one_session_does_one_call_at_a_time() -> None:
    segmenter = slow_segmenter()
    session = segmenter.session(make_image(64, 64))
    together([lambda x=x: session.click(x, 10) for x in range(8)])
    assert segmenter.backend.most == 1
    assert sorted(click.x for click in session.clicks) == list(range(8))
    clicks = []
    while session.can_undo:
        clicks.append(len(session.clicks))
        session.undo()
    assert clicks == [8, 7, 6, 5, 4, 3, 2, 1]


def test_readers_during_a_click_see_the_last_finished_state_without_waiting() -> None:
    segmenter = slow_segmenter()
    session = segmenter.session(make_image(64, 64))
    started, go = threading.Event(), threading.Event()
    inner = segmenter.backend.decode

    def held(*arguments: Any) -> Any:
        started.set()
        assert go.wait(timeout=10)
        return inner(*arguments)

    segmenter.backend.decode = held
    worker = threading.Thread(target=session.click, args=(10, 10))
    worker.start()
    assert started.wait(timeout=10)
    assert session.clicks == ()
    assert session.crop is None
    assert not session.can_undo
    go.set()
    worker.join(timeout=10)
    assert len(session.clicks) == 1
    assert session.can_undo


def test_all_other_calls_wait_for_a_click_under_way() -> None:
    segmenter = slow_segmenter()
    session = segmenter.session(make_image(64, 64))
    started, go, inner = threading.Event(), threading.Event(), segmenter.backend.decode

    def held(*arguments: Any) -> Any:
        started.set()
        assert go.wait(timeout=10)
        return inner(*arguments)

    segmenter.backend.decode = held
    with ThreadPoolExecutor(5) as pool:
        click = pool.submit(session.click, 10, 10)
        assert started.wait(timeout=10)
        readers = [lambda: session.mask, lambda: session.probability, session.to_json, session.device_mask]
        asked = [pool.submit(reader) for reader in readers]
        assert not wait(asked, timeout=0.05).done
        go.set()
        mask, probability, text = (one.result(timeout=10) for one in asked[:3])
        assert mask is click.result(timeout=10)
        assert (probability > 0).any()
        assert len(json.loads(text)["clicks"]) == 1
        with pytest.raises(InvalidInputError, match="in host memory"):  # not: "no click yet"
            asked[3].result(timeout=10)


def test_forks_of_one_session_run_at_once() -> None:
    segmenter = make_segmenter(echo=True, crop=CROP)
    image = make_image(300, 200)
    session = segmenter.session(image)
    for point in POINTS:
        session.click(*point)
    forks = [session.fork() for _ in range(4)]
    masks = together([lambda fork=fork, i=i: fork.remove(i) for i, fork in enumerate(forks)])
    for i, mask in enumerate(masks):
        expected = segmenter.predict(image, POINTS[:i] + POINTS[i + 1 :])
        np.testing.assert_array_equal(mask, expected)


def test_forks_do_not_wait_for_each_other() -> None:
    segmenter = slow_segmenter()
    session = segmenter.session(make_image(64, 64))
    session.click(10, 10)
    sessions = [session, *(session.fork() for _ in range(3))]
    together([lambda one=one: one.click(20, 20) for one in sessions])
    assert segmenter.backend.most > 1


def test_a_storm_of_mixed_calls_ends_in_a_state_that_replays() -> None:
    segmenter = make_segmenter(echo=True, crop=CROP)
    image = make_image(120, 90)
    session = segmenter.session(image)

    def storm(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(12):
            choice = rng.integers(5)
            try:
                if choice <= 1:
                    session.click(int(rng.integers(120)), int(rng.integers(90)), bool(rng.integers(2)))
                elif choice == 2:
                    session.undo()
                elif choice == 3:
                    session.redo()
                else:
                    session.remove(0)
            except SessionStateError:
                continue  # "nothing to undo" is a fair answer in a storm

    together([lambda seed=seed: storm(seed) for seed in range(6)])
    copy = Session.from_json(segmenter, image, session.to_json())
    np.testing.assert_array_equal(copy.mask, session.mask)
    assert copy.probability.tobytes() == session.probability.tobytes()
