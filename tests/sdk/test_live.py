"""LiveSession: operations are never lost, masks that nobody waits for are not painted, previews never run."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from at_once import at_once
from sessions import everything, make_image, make_segmenter

from clickmask.errors import InvalidInputError, SessionStateError
from clickmask.live import LiveSession
from clickmask.session import Session

CROP = {"kind": "fbrs", "start_click": 2, "min_size": 40}
A_WHILE = 10


class Gate:
    """Holds the live thread inside an operation until it is opened; `behind`: after what is asked already."""

    def __init__(self, live: LiveSession, behind: bool = False) -> None:
        self.inside, self.opened = threading.Event(), threading.Event()
        self.future = live.do(self._hold)
        assert behind or self.inside.wait(A_WHILE)

    def _hold(self, _: Session) -> None:
        self.inside.set()
        assert self.opened.wait(A_WHILE)

    def open(self) -> None:
        self.opened.set()
        self.future.result(A_WHILE)


@pytest.fixture
def live() -> Iterator[LiveSession]:
    with LiveSession(make_segmenter(echo=True, crop=CROP).session(make_image(160, 120))) as live:
        yield live


def decodes(live: LiveSession) -> int:
    return live.session._segmenter.backend.decode_calls


def reference(points: list[tuple]) -> tuple:
    session = make_segmenter(echo=True, crop=CROP).session(make_image(160, 120))
    for point in points:
        session.click(*point)
    return everything(session)


def test_a_cancelled_operation_is_made_all_the_same(live: LiveSession, caplog: Any) -> None:
    live.click(40, 40).result(A_WHILE)
    gate = Gate(live)
    undone = live.do(Session.undo)
    failing = live.do(Session.undo)  # there is nothing left to take back
    assert undone.cancel()
    assert failing.cancel()
    gate.open()
    live.close()
    assert live.session.clicks == ()
    assert "undo, but there is none" in caplog.text


def test_operations_run_in_order_and_give_what_the_session_gives(live: LiveSession) -> None:
    gate = Gate(live)
    first = live.click(80, 60)
    counted = live.do(lambda session: len(session.clicks))
    second = live.click(20, 20, positive=False)
    undone = live.do(Session.undo)
    third = live.click(100, 70)
    gate.open()
    assert counted.result(A_WHILE) == 1
    plain = make_segmenter(echo=True, crop=CROP).session(make_image(160, 120))
    masks = [plain.click(80, 60), plain.click(20, 20, positive=False), plain.undo(), plain.click(100, 70)]
    for future, mask in zip((first, second, undone, third), masks, strict=True):
        np.testing.assert_array_equal(future.result(A_WHILE), mask)
    assert everything(live.session) == everything(plain)


def test_a_preview_is_the_mask_of_that_click_and_changes_nothing(live: LiveSession) -> None:
    live.click(80, 60).result(A_WHILE)
    before = everything(live.session)
    preview = live.preview(100, 70).result(A_WHILE)
    assert everything(live.session) == before
    np.testing.assert_array_equal(preview, live.click(100, 70).result(A_WHILE))


def test_a_click_has_the_next_crop_encoded_ahead_and_a_preview_has_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    segmenter, wanted = make_segmenter(crop=CROP), []
    monkeypatch.setattr(segmenter.prefetcher, "want", lambda _, state: wanted.append(len(state.clicks)))
    with LiveSession(segmenter.session(make_image(160, 120), prefetch=True)) as live:
        for ask in (live.preview, live.click, live.preview):
            ask(80, 60).result(A_WHILE)
    assert wanted == [0, 1]  # as the session began, and after the click


@pytest.mark.parametrize(
    "supersede",
    [
        lambda live: live.preview(10, 10),
        lambda live: live.click(10, 10),
        lambda live: live.do(lambda session: session.clicks),
    ],
    ids=["preview", "click", "do"],
)
def test_a_preview_that_has_not_begun_is_cancelled_by_the_next_call(
    live: LiveSession, supersede: Callable[[LiveSession], Any]
) -> None:
    gate = Gate(live)
    stale = [live.preview(x, 60) for x in (80, 81, 82)]
    newer = supersede(live)
    assert all(preview.cancelled() for preview in stale)
    with pytest.raises(CancelledError):
        stale[-1].result(A_WHILE)
    gate.open()
    newer.result(A_WHILE)
    assert decodes(live) <= 1  # none of the stale ones met the network


def test_a_preview_that_has_begun_gives_its_mask_and_the_click_after_it_too(live: LiveSession) -> None:
    inside, opened = held(live)
    preview = live.preview(80, 60)
    assert inside.wait(A_WHILE)
    click = live.click(20, 30)
    opened.set()
    assert not np.array_equal(preview.result(A_WHILE), click.result(A_WHILE))
    assert [c.x for c in live.session.clicks] == [20]


POINTS = [(80, 60, True), (20, 20, False), (100, 70, True)]


def test_the_mask_of_a_click_that_has_not_begun_is_cancelled_by_the_next_click(live: LiveSession) -> None:
    painted, ahead, predictor = [], [], live.session._predictor
    gate = Gate(live)
    predictor.mask = lambda state: painted.append(state) or type(predictor).mask(predictor, state)
    predictor.look_ahead = lambda state: ahead.append(state)
    clicks, heard = [], []
    for point in POINTS:
        live.preview(*point)
        clicks.append(live.click(*point))
        clicks[-1].add_done_callback(lambda future: heard.append(future.cancelled()))
    assert [click.cancelled() for click in clicks] == [True, True, False]
    assert heard == [True, True]
    gate.open()
    assert not wait(clicks, A_WHILE).not_done
    with pytest.raises(CancelledError):
        clicks[0].result(A_WHILE)
    assert len(painted) == len(ahead) == 1
    np.testing.assert_array_equal(clicks[-1].result(), live.session.mask)
    assert everything(live.session) == reference(POINTS)  # no click is lost


def test_clicks_join_behind_another_operation_whatever_began_meanwhile(live: LiveSession) -> None:
    gate = Gate(live)
    first = live.click(*POINTS[0])
    later = Gate(live, behind=True)
    overtaken = live.click(*POINTS[1])
    gate.open()
    first.result(A_WHILE)
    assert later.inside.wait(A_WHILE)
    newest = live.click(*POINTS[2])
    assert overtaken.cancelled()
    later.open()
    newest.result(A_WHILE)
    assert everything(live.session) == reference(POINTS)


def test_clicks_made_together_are_undone_one_by_one(live: LiveSession) -> None:
    gate = Gate(live)
    for point in POINTS:
        live.click(*point)
    gate.open()
    plain = make_segmenter(echo=True, crop=CROP).session(make_image(160, 120))
    for point in POINTS:
        plain.click(*point)
    for _ in POINTS:
        np.testing.assert_array_equal(live.do(Session.undo).result(A_WHILE), plain.undo())
        assert everything(live.session) == everything(plain)
    for _ in POINTS:
        np.testing.assert_array_equal(live.do(Session.redo).result(A_WHILE), plain.redo())


def held(live: LiveSession) -> tuple[threading.Event, threading.Event]:
    """Holds every decode: an event that it is inside, and one that lets it on."""
    backend = live.session._segmenter.backend
    inside, opened, inner = threading.Event(), threading.Event(), backend.decode

    def decode(*arguments: Any) -> Any:
        inside.set()
        assert opened.wait(A_WHILE)
        return inner(*arguments)

    backend.decode = decode
    return inside, opened


def test_a_click_that_has_begun_gives_its_mask(live: LiveSession) -> None:
    inside, opened = held(live)
    begun = live.click(*POINTS[0])
    assert inside.wait(A_WHILE)
    later = [live.click(*point) for point in POINTS[1:]]
    opened.set()
    plain = make_segmenter(echo=True, crop=CROP).session(make_image(160, 120))
    np.testing.assert_array_equal(begun.result(A_WHILE), plain.click(*POINTS[0]))
    assert later[0].cancelled()
    later[1].result(A_WHILE)
    assert everything(live.session) == reference(POINTS)


def test_what_a_caller_cancels_is_the_mask_and_not_the_click(live: LiveSession) -> None:
    gate = Gate(live)
    live.click(*POINTS[0]).cancel()
    live.click(*POINTS[1]).cancel()
    gate.open()
    assert live.do(lambda session: len(session.clicks)).result(A_WHILE) == 2
    assert everything(live.session) == reference(POINTS[:2])


def test_more_clicks_than_there_is_room_for_lose_none_that_has_room() -> None:
    segmenter = make_segmenter(input={"max_clicks": 2})
    with LiveSession(segmenter.session(make_image(160, 120))) as live:
        gate = Gate(live)
        clicks = [live.click(*point) for point in POINTS]
        gate.open()
        with pytest.raises(SessionStateError, match="at most 2"):
            clicks[-1].result(A_WHILE)
        assert [click.x for click in live.session.clicks] == [80, 20]


def test_a_click_that_fails_takes_no_other_with_it(
    live: LiveSession, caplog: pytest.LogCaptureFixture
) -> None:
    backend = live.session._segmenter.backend
    inner, wrong = backend._run, []

    def run(graph: str, feeds: dict[str, Any]) -> Any:
        newest = feeds["clicks"][0][feeds["clicks"][0, :, 2] >= 0][-1] if "clicks" in feeds else [0, 0, 1]
        if newest[2] == 0:
            wrong.append(newest)
            raise RuntimeError("the negative one breaks")
        return inner(graph, feeds)

    backend._run = run
    gate = Gate(live)
    clicks = [live.click(*point) for point in POINTS]
    gate.open()
    mask = clicks[-1].result(A_WHILE)
    assert len(wrong) == 2  # together and alone
    assert everything(live.session) == reference([POINTS[0], POINTS[2]])
    np.testing.assert_array_equal(mask, live.session.mask)
    assert "click at (20, 20) was not made" in caplog.text


def test_a_storm_from_many_threads_loses_no_click(live: LiveSession) -> None:
    clicks: list[Any] = []

    def storm(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(8):
            x, y = int(rng.integers(160)), int(rng.integers(120))
            for _ in range(3):
                live.preview(x, y)
            clicks.append(live.click(x, y))

    at_once(storm, 3)
    assert not wait(clicks, A_WHILE).not_done
    assert len(live.session.clicks) == 24 == len(clicks)


def test_errors_reach_the_one_who_asked_and_the_session_lives_on(live: LiveSession) -> None:
    bad, good = live.click(1000, 60), live.click(80, 60)
    with pytest.raises(InvalidInputError, match="1000"):
        bad.result(A_WHILE)
    with pytest.raises(SessionStateError, match="redo"):
        live.do(Session.redo).result(A_WHILE)
    assert good.result(A_WHILE).any()
    assert len(live.session.clicks) == 1


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_program_reaches_the_one_who_asked_too(
    live: LiveSession, end: type[BaseException]
) -> None:
    def ending(_: Session) -> None:
        raise end

    with pytest.raises(end):
        live.do(ending).result(A_WHILE)
    assert live.click(80, 60).result(A_WHILE).any()


def test_a_click_for_which_no_thread_could_start_holds_up_no_other(
    live: LiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError, match="new thread"):
            live.click(80, 60)
    live.click(20, 20).result(A_WHILE)
    assert [click.x for click in live.session.clicks] == [20]


def test_close_finishes_what_was_decided_and_drops_what_was_not(live: LiveSession) -> None:
    gate = Gate(live)
    click, preview = live.click(80, 60), live.preview(20, 20)
    closer = threading.Thread(target=live.close)
    closer.start()
    with pytest.raises(CancelledError):
        preview.result(A_WHILE)
    gate.open()
    closer.join(A_WHILE)
    assert not closer.is_alive()
    assert click.done()
    assert len(live.session.clicks) == 1
    assert live.closed
    with pytest.raises(SessionStateError, match="after close"):
        live.click(1, 1)
    live.close()


@pytest.mark.parametrize(
    ("ask", "made"),
    [(LiveSession.preview, [30]), (LiveSession.click, [80, 81, 30])],
    ids=["preview", "click"],
)
def test_a_callback_of_what_was_overtaken_may_call_again(
    live: LiveSession, ask: Callable[..., Any], made: list[int]
) -> None:
    gate = Gate(live)
    again: list[Any] = []
    unlocked: list[bool] = []

    def call_again(_: Any) -> None:
        # on another thread, for which a lock that this one holds is no deadlock
        at_once(lambda _: again.append(live.click(30, 30)), 1, A_WHILE / 4)
        unlocked.append(True)

    ask(live, 80, 60).add_done_callback(call_again)
    ask(live, 81, 60)
    assert unlocked
    gate.open()
    again[0].result(A_WHILE)
    assert [click.x for click in live.session.clicks] == made


def snippets() -> list[str]:
    text = (Path(__file__).parents[2] / "docs/threads.md").read_text()
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_an_overtaken_click_ends_no_task_of_the_documents_second_snippet(live: LiveSession) -> None:
    masks: list[np.ndarray] = []
    names = {"asyncio": asyncio, "live": live, "show": masks.append}
    exec(snippets()[1], names)  # noqa: S102 - our own document
    gate = Gate(live)

    async def clicks() -> list[Any]:
        tasks = [asyncio.create_task(names["click"](x, 60)) for x in (20, 60, 100)]
        await asyncio.sleep(0)  # all are asked for, and none has begun
        threading.Thread(target=gate.open).start()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert asyncio.run(clicks()) == [None, None, None]
    assert len(masks) == 1
    assert len(live.session.clicks) == 3


def test_the_documents_snippet_does_what_it_says() -> None:
    code = snippets()[0]
    masks: list[np.ndarray] = []
    names = {
        "segmenter": make_segmenter(),
        "image": make_image(60, 50),
        "mouse_positions": [(10, 10), (20, 20), (30, 30)],
        "show": masks.append,
    }
    exec(code, names)  # noqa: S102 - our own document
    assert 2 <= len(masks) <= 5  # the click and the undo, and the previews that had begun
    assert masks[-2][30, 30]
    assert not masks[-1].any()
