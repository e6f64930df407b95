"""Undo, redo, remove, reset and fork: what a session remembers."""

from __future__ import annotations

import numpy as np
import pytest
from gated import gated
from sessions import CROP, GLOBAL_TO_LOCAL, everything, make_image, new_session

from clickmask.clicks import Click
from clickmask.errors import InvalidInputError, SessionStateError
from clickmask.history import HISTORY
from clickmask.session import Session


@pytest.mark.parametrize("crop", [CROP, GLOBAL_TO_LOCAL])
def test_undo_and_redo_run_no_network_and_give_the_same_masks(crop) -> None:
    session, backend = new_session(400, 300, crop=crop)
    seen = [session.mask]
    for x, positive in ((200, True), (230, True), (150, False), (215, True)):
        seen.append(session.click(x, 150, positive))
    calls = backend.encode_calls, backend.decode_calls
    for expected in reversed(seen[:-1]):
        np.testing.assert_array_equal(session.undo(), expected)
    assert not session.can_undo
    assert session.can_redo
    assert session.clicks == ()
    for expected in seen[1:]:
        np.testing.assert_array_equal(session.redo(), expected)
    assert session.can_undo
    assert not session.can_redo
    assert len(session.clicks) == 4
    assert (backend.encode_calls, backend.decode_calls) == calls


@pytest.mark.parametrize("steps", [["undo"], ["undo", "redo"]])
def test_after_undo_and_redo_the_crop_that_the_next_click_wants_is_encoded_ahead(steps: list[str]) -> None:
    segmenter, backend = gated()
    segmenter.crops.budget = 0  # the newest crop alone is kept
    with segmenter:
        session = segmenter.session(make_image(300, 200))
        session.click(150, 100)
        session.click(20, 20)
        segmenter.prefetcher.settle()
        for step in steps:
            getattr(session, step)()
            segmenter.prefetcher.settle()
        by_clicks = len(backend.threads) - backend.ahead
        session.click(3, 3, positive=False)
        assert len(backend.threads) - backend.ahead == by_clicks


def test_undo_and_redo_with_nothing_left_say_so() -> None:
    session, _ = new_session()
    with pytest.raises(SessionStateError, match="undo, but there is none"):
        session.undo()
    with pytest.raises(SessionStateError, match="redo, but there is none"):
        session.redo()


def test_a_new_operation_forgets_what_was_undone() -> None:
    session, _ = new_session()
    session.click(20, 20)
    session.undo()
    session.click(30, 30)
    assert not session.can_redo
    assert session.clicks == (Click(30, 30),)


def test_undo_takes_back_any_operation() -> None:
    session, _ = new_session()
    session.click(20, 20)
    session.click(60, 60)
    states = [session.clicks]
    for operation in (
        lambda: session.remove(0),
        session.reset,
        lambda: session.set_mask(np.eye(100, 120) > 0),
    ):
        operation()
        states.append(session.clicks)
    assert [len(clicks) for clicks in states] == [2, 1, 0, 0]
    for clicks in reversed(states[:-1]):
        session.undo()
        assert session.clicks == clicks


def undoable(session: Session) -> int:
    """Takes back all that can be: how many operations that was."""
    undone = 0
    while session.can_undo:
        session.undo()
        undone += 1
    return undone


def test_history_is_bounded() -> None:
    session, _ = new_session(8, 8, input={"sizes": [64]})
    for _ in range(HISTORY // 2 + 5):
        session.click(4, 4)
        session.reset()
    assert undoable(session) == HISTORY


def held(session: Session) -> int:
    """Bytes of the distinct logits that a session keeps alive."""
    states = [session._history.now, *session._history._past]
    logits = {}
    while states:
        state = states.pop()
        if state.logits is not None:
            logits[id(state.logits)] = state.logits.nbytes
        states += [state.before] if state.before else []
    return sum(logits.values())


def test_history_is_bounded_in_bytes(monkeypatch) -> None:
    """Every remove(0) makes new logits for all clicks that are left."""
    one = 64 * 64 * 4
    monkeypatch.setattr("clickmask.history.HISTORY_BYTES", 20 * one)
    session, _ = new_session(64, 64, input={"sizes": [64]})
    for x in range(8):
        session.click(x, 4)
    assert held(session) == 8 * one
    session.remove(0)  # 7 more
    assert held(session) == 15 * one
    session.remove(0)  # 6 more make 21: too many, until the operations that need the first 8 are forgotten
    assert held(session) == 13 * one
    assert session.can_undo
    seven = session.undo()
    assert len(session.clicks) == 7
    assert not session.can_undo
    session.redo()
    np.testing.assert_array_equal(session.undo(), seven)


def test_what_clicks_share_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clickmask.history.HISTORY_BYTES", 8 * 64 * 64 * 4)
    session, _ = new_session(64, 64, input={"sizes": [64]})
    for x in range(8):
        session.click(x, 4)
    assert undoable(session) == 8


def test_clicks_in_force_are_kept_whatever_they_hold(monkeypatch) -> None:
    monkeypatch.setattr("clickmask.history.HISTORY_BYTES", 1)
    session, _ = new_session(64, 64, input={"sizes": [64]})
    session.replay([(x, 4, True) for x in range(3)])
    assert not session.can_undo
    assert [click.x for click in session.clicks] == [0, 1, 2]
    session.remove(0)
    assert [click.x for click in session.clicks] == [1, 2]


def test_a_replay_is_one_step_to_those_who_read_meanwhile(monkeypatch) -> None:
    session, _ = new_session()
    published = []
    history = type(session._history)

    def now(self, name, value):
        if name == "now":
            published.append(len(value.clicks))
        object.__setattr__(self, name, value)

    monkeypatch.setattr(history, "__setattr__", now, raising=False)
    session.replay([(x, 20, True) for x in (10, 20, 30)])
    assert published == [3]
    session.undo()  # and yet each click is one to take back
    assert len(session.clicks) == 2


def test_initial_masks_count_as_history(monkeypatch) -> None:
    session, _ = new_session(64, 64)
    noise = np.random.default_rng(0).random((64, 64)) > 0.5
    session.set_mask(noise)
    size = len(session.rle()["counts"])
    monkeypatch.setattr("clickmask.history.HISTORY_BYTES", 3 * size)
    for _ in range(5):
        session.set_mask(noise)
    assert undoable(session) == 2  # three masks


@pytest.mark.parametrize(("crop", "passes"), [(CROP, 1), (GLOBAL_TO_LOCAL, 2)])
@pytest.mark.parametrize("index", range(4))
def test_remove_equals_never_having_clicked(index, crop, passes) -> None:
    points = [(200, 150, True), (230, 150, True), (150, 150, False), (215, 170, True)]
    session, backend = new_session(400, 300, crop=crop, echo=True)
    for point in points:
        session.click(*point)
    before = backend.decode_calls
    session.remove(index)
    assert backend.decode_calls - before == passes * (len(points) - 1 - index)  # those after it, no more
    other, _ = new_session(400, 300, crop=crop, echo=True)
    for point in points[:index] + points[index + 1 :]:
        other.click(*point)
    np.testing.assert_array_equal(session.mask, other.mask)
    np.testing.assert_array_equal(session.probability, other.probability)
    assert session.clicks == other.clicks
    assert session.crop == other.crop


def test_remove_the_only_click_leaves_the_initial_mask() -> None:
    session, _ = new_session()
    start = np.zeros((100, 120), bool)
    start[10:30, 20:50] = True
    session.set_mask(start)
    session.click(60, 60)
    np.testing.assert_array_equal(session.remove(0), start)


@pytest.mark.parametrize("index", [-1, 1, 99])
def test_remove_of_no_click_says_so(index) -> None:
    session, _ = new_session()
    session.click(3, 3)
    with pytest.raises(SessionStateError, match="one of 1 clicks"):
        session.remove(index)


@pytest.mark.parametrize("index", [True, 0.0, "0", None])
def test_remove_wants_a_whole_number(index) -> None:
    session, _ = new_session()
    session.click(3, 3)
    with pytest.raises(InvalidInputError, match="index must be a whole number"):
        session.remove(index)


def test_reset_of_an_untouched_session_is_no_operation() -> None:
    session, _ = new_session()
    assert not session.reset().any()
    assert not session.can_undo


def test_reset_drops_a_set_mask_without_clicks() -> None:
    session, _ = new_session()
    start = np.zeros((100, 120), bool)
    start[10:30, 20:50] = True
    session.set_mask(start)
    assert not session.reset().any()
    assert not session.probability.any()
    np.testing.assert_array_equal(session.undo(), start)


def test_fork_is_independent_and_keeps_the_history() -> None:
    session, backend = new_session()
    session.click(20, 20)
    session.click(60, 60)
    session.undo()
    calls = backend.encode_calls, backend.decode_calls
    twin = session.fork()
    assert everything(twin) == everything(session)
    assert twin.can_undo
    assert twin.can_redo
    assert (backend.encode_calls, backend.decode_calls) == calls
    before = everything(session)
    for operation in (lambda: twin.click(90, 30, positive=False), twin.undo, twin.undo):
        operation()
        assert everything(session) == before
    assert backend.encode_calls == calls[0]  # the encoded crop is shared
    session.redo()
    assert session.clicks == (Click(20, 20), Click(60, 60))


def test_a_fork_that_encodes_nothing_ahead_leaves_that_to_the_session() -> None:
    segmenter, backend = gated()
    with segmenter:
        session = segmenter.session(make_image(300, 200))
        segmenter.prefetcher.settle()
        fork = session.fork(prefetch=False)  # what is gone wants nothing in any case
        fork.click(150, 100)
        segmenter.prefetcher.settle()
        assert backend.ahead == 1  # the whole image, for the first click
        session.click(150, 100)
        segmenter.prefetcher.settle()
        assert backend.ahead == 2
