"""Prefetch changes when crops are encoded and nothing else."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from at_once import at_once
from gated import CROP, gated
from sessions import GLOBAL_TO_LOCAL, everything, make_image

from clickmask import Segmenter
from clickmask.errors import BackendError, ClickmaskError
from clickmask.session import Session
from clickmask.view import Box

WHOLE = Box(0, 0, 300, 200)


def script(session: Session, seed: int, pause: Callable[[], None], steps: int = 25) -> Iterator[tuple]:
    """Random operations; after each all that a caller can see."""
    rng = np.random.default_rng(seed)
    width, height = session._image_size
    for _ in range(steps):
        choice = int(rng.integers(9))
        point = int(rng.integers(width)), int(rng.integers(height)), bool(rng.integers(4))
        try:
            if choice <= 4:
                session.click(*point)
            elif choice == 5:
                session.undo()
            elif choice == 6:
                session.redo()
            elif choice == 7:
                session.remove(0)
            else:
                session = session.fork()
        except ClickmaskError as error:
            yield (str(error),)
        pause()
        yield everything(session)


@pytest.mark.parametrize("kind", ["fbrs", "paper", "stable", "global_to_local", "none"])
@pytest.mark.parametrize("wait", [True, False])
def test_masks_are_the_same_with_and_without(kind: str, wait: bool) -> None:
    image, crop = make_image(300, 200), {**CROP, "kind": kind, "start_click": 2}
    segmenter, _ = gated(crop=crop)
    with segmenter:
        pause = segmenter.prefetcher.settle if wait else (lambda: None)
        ahead = list(script(segmenter.session(image), 3, pause))
        plain = list(script(segmenter.session(image, prefetch=False), 3, lambda: None))
    assert ahead == plain


def test_masks_of_the_default_engine_are_the_same_with_and_without() -> None:
    image = np.kron(make_image(16, 12), np.ones((30, 30, 1), np.uint8))
    with Segmenter.load(device="cpu") as segmenter:
        ahead = list(script(segmenter.session(image), 5, lambda: time.sleep(0.005), steps=12))
        plain = list(script(segmenter.session(image, prefetch=False), 5, lambda: None, steps=12))
        features = segmenter.session(image, size=384, prefetch=False)
        gc.collect()
        before = segmenter.crops.nbytes
        features.click(10, 10)
        held = segmenter.crops.nbytes - before
        native = segmenter.backend.pixel_diffusion == "native"
        outputs = segmenter.bundle.manifest.graphs["encoder"].outputs
    assert ahead == plain
    strides = [int(str(spec.shape[2]).removeprefix("S/")) for spec in outputs]
    floats = 3 + sum(
        int(spec.shape[1]) / stride**2 for spec, stride in zip(outputs, strides, strict=True)
    )  # of image and features; then the kernel's 32 codes of two bytes and a sum for each pixel
    assert held == 384 * 384 * (4 * floats + (2 * 32 + 4) * native)


def test_the_first_view_and_every_foreseeable_crop_are_encoded_in_the_background() -> None:
    segmenter, backend = gated()
    with segmenter:
        session = segmenter.session(make_image(300, 200))
        segmenter.prefetcher.settle()
        assert backend.ahead == 1
        for click in ((150, 100), (160, 100), (158, 110), (150, 95)):  # near each other: inside the crop
            session.click(*click)
            segmenter.prefetcher.settle()
        assert session.crop != WHOLE
        assert backend.ahead == len(backend.threads)
        session.click(20, 20)  # far outside: nobody could know
        assert backend.ahead == len(backend.threads) - 1


@pytest.mark.parametrize("kind", ["fbrs", "paper", "stable"])
def test_only_a_positive_click_outside_the_mask_s_box_is_unforeseeable(kind: str) -> None:
    segmenter, backend = gated(crop={**CROP, "kind": kind})
    rng = np.random.default_rng(0)
    with segmenter:
        session = segmenter.session(make_image(300, 200))
        segmenter.prefetcher.settle()
        session.click(150, 100)
        for number in range(12):
            segmenter.prefetcher.settle()
            x, y, width, height = session.bbox()
            if number % 3:
                session.click(int(rng.integers(x, x + width)), int(rng.integers(y, y + height)))
            else:
                session.click(int(rng.integers(300)), int(rng.integers(200)), positive=False)
        assert len(backend.threads) == backend.ahead > 1


def test_a_stable_crop_is_foreseen_wherever_one_clicks_where_two_crops_fit() -> None:
    moving = {
        **CROP,
        "kind": "stable",
        "min_size": 16,
        "hysteresis_iou": 1.0,
    }  # with every change of the mask
    segmenter, backend = gated(crop=moving, input={"sizes": [64]})
    segmenter.crops.budget = 2 * 3 * 64**2 * 4
    with segmenter:
        session = segmenter.session(make_image(300, 200))
        boxes = []
        for click in ((40, 40), (45, 42), (80, 40, False), (40, 80, False), (280, 180)):
            segmenter.prefetcher.settle()
            session.click(*click)
            boxes.append(session.crop)
        assert len(set(boxes)) == 4
        assert boxes[-1] == boxes[0] == WHOLE  # whose features the crops since have not driven out
        assert len(backend.threads) == backend.ahead


def test_no_crop_is_encoded_twice() -> None:
    counts = []
    for prefetch in (True, False):
        segmenter, backend = gated()
        with segmenter:
            session = segmenter.session(make_image(300, 200), prefetch=prefetch)
            for click in ((150, 100), (160, 100), (158, 110), (150, 95)):
                session.click(*click)
                segmenter.prefetcher.settle()
            counts.append(backend.encode_calls)
    assert counts[0] == counts[1] == 2


@pytest.mark.parametrize(("load", "session"), [(False, None), (True, False)])
def test_it_can_be_switched_off(load: bool, session: bool | None) -> None:
    segmenter, backend = gated()
    segmenter.prefetch = load
    with segmenter:
        begun = segmenter.session(make_image(300, 200), prefetch=session)
        begun.click(150, 100)
        begun.fork().click(160, 100)
        assert segmenter.prefetcher._thread is None
        assert backend.ahead == 0


def test_where_no_thread_can_be_started_clicks_encode_for_themselves(monkeypatch: Any) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    segmenter, backend = gated()
    monkeypatch.setattr("clickmask.prefetch.threading.Thread.start", refused)
    with segmenter:
        session = segmenter.session(make_image(300, 200))
        assert session.click(150, 100).any()
        assert session.can_undo
        segmenter.prefetcher.settle()
        assert (len(backend.threads), backend.ahead) == (1, 0)


def test_a_restored_session_can_be_told_not_to_encode_ahead() -> None:
    image = make_image(300, 200)
    segmenter, backend = gated()
    with segmenter:
        session = segmenter.session(image, prefetch=False)
        session.click(150, 100)
        restored = Session.from_json(segmenter, image, session.to_json(), prefetch=False)
        np.testing.assert_array_equal(restored.mask, session.mask)
        assert segmenter.prefetcher._thread is None
        again = Session.from_json(segmenter, image, session.to_json())
        segmenter.prefetcher.settle()
        assert backend.ahead > 0
        np.testing.assert_array_equal(again.mask, session.mask)


def test_no_thread_before_the_first_session() -> None:
    segmenter, _ = gated()
    with segmenter:
        segmenter.warmup()
        segmenter.predict(make_image(300, 200), [(150, 100, True)])
        assert segmenter.prefetcher._thread is None


def test_a_click_waits_for_the_crop_that_is_being_encoded() -> None:
    segmenter, backend = gated()
    with segmenter:
        backend.gate.clear()
        session = segmenter.session(make_image(300, 200))
        assert backend.started.wait(timeout=10)
        clicking = threading.Thread(target=session.click, args=(150, 100))
        clicking.start()
        clicking.join(timeout=0.05)
        assert clicking.is_alive()
        backend.gate.set()
        clicking.join(timeout=10)
        assert not clicking.is_alive()
        assert backend.ahead == len(backend.threads)


def test_a_click_does_not_wait_for_another_crop() -> None:
    segmenter, backend = gated()
    with segmenter:
        session = segmenter.session(make_image(300, 200))
        session.click(150, 100)
        segmenter.prefetcher.settle()
        backend.gate.clear()
        backend.started.clear()
        session.reset()
        other = segmenter.session(make_image(80, 80))
        assert backend.started.wait(timeout=10)  # the other image, and it does not end
        assert session.click(150, 100).any()
        backend.gate.set()
        assert other.click(10, 10).any()


def test_what_has_not_begun_is_dropped_when_it_is_outdated() -> None:
    segmenter, backend = gated()
    with segmenter:
        backend.gate.clear()
        busy = segmenter.session(make_image(80, 80))
        assert backend.started.wait(timeout=10)
        session = segmenter.session(make_image(300, 200))  # queued behind it
        session.click(150, 100)  # outdates that, and queues the next crop
        session.click(20, 20)  # outdates this too
        session.reset()
        backend.gate.set()
        segmenter.prefetcher.settle()
        assert backend.ahead == 1
        assert busy.click(10, 10).any()


def test_who_has_waited_longest_is_served_first() -> None:
    segmenter, backend = gated()
    shades = [0, 51, 102, 153]
    with segmenter:
        backend.gate.clear()
        sessions = [segmenter.session(np.full((80, 80, 3), shade, np.uint8)) for shade in shades]
        backend.gate.set()
        segmenter.prefetcher.settle()
    assert [round(255 * float(image[0, 0, 0, 0])) for image in backend.images] == shades
    del sessions


def test_errors_in_the_background_are_met_by_the_click_alone() -> None:
    segmenter, backend = gated()
    with segmenter:
        backend.fail_encode = True
        session = segmenter.session(make_image(300, 200))
        segmenter.prefetcher.settle()
        with pytest.raises(BackendError, match="encode broke"):
            session.click(150, 100)
        assert session.clicks == ()
        backend.fail_encode = False
        assert session.click(150, 100).any()
        segmenter.prefetcher.settle()
        assert backend.ahead == 2  # the thread lives on


def test_global_to_local_has_the_whole_image_encoded() -> None:
    segmenter, backend = gated(crop=GLOBAL_TO_LOCAL)
    with segmenter:
        session = segmenter.session(make_image(300, 200))
        segmenter.prefetcher.settle()
        session.click(150, 100)
        assert [("prefetch" in name) for name in backend.threads] == [True, False]


def test_nothing_is_foreseen_after_the_last_click() -> None:
    segmenter, backend = gated(crop={**CROP, "kind": "paper"}, input={"max_clicks": 2})
    with segmenter:
        session = segmenter.session(make_image(300, 200))
        session.click(150, 100)
        session.click(250, 150)
        segmenter.prefetcher.settle()
        assert backend.encode_calls == 2


def test_sessions_and_segmenters_are_collected_and_the_thread_ends() -> None:
    segmenter, backend = gated()
    sessions = [segmenter.session(make_image(300, 200, seed=i)) for i in range(5)]
    for session in sessions:
        session.click(150, 100)
    segmenter.prefetcher.settle()
    predictors = [weakref.ref(session._predictor) for session in sessions]
    del sessions, session
    gc.collect()
    assert [ref() for ref in predictors] == [None] * 5
    assert segmenter.crops.nbytes == 0
    thread = segmenter.prefetcher._thread
    assert thread is not None
    del segmenter, backend
    gc.collect()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_a_queued_session_can_be_dropped() -> None:
    segmenter, backend = gated()
    with segmenter:
        backend.gate.clear()
        busy = segmenter.session(make_image(80, 80))
        assert backend.started.wait(timeout=10)
        queued = segmenter.session(make_image(300, 200))
        gone = weakref.ref(queued._predictor)
        del queued
        gc.collect()
        assert gone() is None
        backend.gate.set()
        segmenter.prefetcher.settle()
        assert backend.ahead == 1
        del busy


def test_close_ends_the_thread_and_later_clicks_say_so() -> None:
    segmenter, _ = gated()
    session = segmenter.session(make_image(300, 200))
    session.click(150, 100)
    thread = segmenter.prefetcher._thread
    segmenter.close()
    segmenter.close()
    assert thread is not None
    assert not thread.is_alive()
    with pytest.raises(BackendError, match=r"after close\(\)"):
        session.click(20, 20)
    session.undo()  # which needs no network, and wants nothing encoded any more
    at_once(lambda _: segmenter.prefetcher.settle(), 1, seconds=10)


def test_the_thread_itself_may_close() -> None:
    segmenter, backend = gated()
    inner, closed = backend.encode, []

    def closing(*arguments: Any, **options: Any) -> Any:
        segmenter.prefetcher.close()  # waits for the thread, but not for itself
        closed.append(True)
        return inner(*arguments, **options)

    backend.encode = closing
    with segmenter:
        session = segmenter.session(make_image(300, 200))
        assert segmenter.prefetcher._thread is not None
        segmenter.prefetcher._thread.join(timeout=10)
        assert closed == [True]
        del session


def test_the_interpreter_ends_while_crops_are_being_encoded() -> None:
    program = (
        "import numpy as np; from clickmask import Segmenter; s = Segmenter.load(device='cpu');"
        "k = [s.session(np.zeros((400, 400, 3), np.uint8)) for _ in range(4)]; print('done')"
    )
    ended = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_many_sessions_on_many_threads() -> None:
    segmenter, _ = gated()
    failures: list[BaseException] = []

    def annotate(seed: int) -> None:
        try:
            image = make_image(300, 200, seed=seed)
            ahead = list(script(segmenter.session(image), seed, lambda: None, steps=10))
            assert ahead == list(
                script(segmenter.session(image, prefetch=False), seed, lambda: None, steps=10)
            )
        except BaseException as error:
            failures.append(error)

    with segmenter:
        threads = [threading.Thread(target=annotate, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
    assert failures == []
