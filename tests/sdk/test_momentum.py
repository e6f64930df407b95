"""Momentum: the logits before a click keep their share in those after it, against sums written out."""

from __future__ import annotations

import numpy as np
import pytest
from sessions import GLOBAL_TO_LOCAL, WHOLE_AND_CLOSE, make_image, make_segmenter

from clickmask.clicks import Click
from clickmask.crop import close_box
from clickmask.session import Session
from clickmask.view import Box

SIDE, RADIUS, MOMENTUM = 128, 12.0, 0.25
CLICKS = [(40, 50, True), (90, 60, True), (70, 64, False)]
ROWS, COLUMNS = np.indices((SIDE, SIDE)).astype(np.float64)


def start(momentum: float = MOMENTUM, **overrides) -> Session:
    """A session whose image has the network's size, so that network pixels are image pixels."""
    segmenter = make_segmenter(radius=RADIUS, momentum=momentum, input={"sizes": [SIDE]}, **overrides)
    return segmenter.session(make_image(SIDE, SIDE))


def said(clicks: list[tuple[float, float, bool]]) -> np.ndarray:
    """The fake backend's logits: the nearest click decides."""
    away = np.array([np.hypot(COLUMNS - x, ROWS - y) for x, y, _ in clicks])
    nearest = len(clicks) - 1 - away[::-1].argmin(axis=0)  # of equally near ones the last
    positive = np.array([click[2] for click in clicks])[nearest]
    return np.where(positive, RADIUS - away.min(axis=0), -RADIUS)


def steadied(clicks: list[tuple[float, float, bool]]) -> np.ndarray:
    """By the definition: logits_n = said_n + share_n (logits_n-1 - said_n)."""
    logits = said(clicks[:1])
    for count in range(2, len(clicks) + 1):
        x, y, _ = clicks[count - 1]
        away = np.maximum(np.abs(COLUMNS - x), np.abs(ROWS - y))
        share = MOMENTUM * np.minimum(away / (0.05 * SIDE), 1)
        logits = said(clicks[:count]) + share * (logits - said(clicks[:count]))
    return logits


def probability(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_logits_before_a_click_have_their_share_in_those_after_it(count: int) -> None:
    session = start()
    session.replay(CLICKS[:count])
    np.testing.assert_allclose(session.probability, probability(steadied(CLICKS[:count])), atol=1e-4)
    if count > 1:
        plain = start(momentum=0.0)
        plain.replay(CLICKS[:count])
        assert np.abs(session.probability - plain.probability).max() > 0.1


def test_the_next_click_is_told_the_steadied_mask() -> None:
    session = start()
    session.replay(CLICKS)
    told = session._segmenter.backend.decoded[-1]["previous_mask"][0, 0]
    np.testing.assert_allclose(told, probability(steadied(CLICKS[:2])), atol=1e-4)


def test_a_mask_to_begin_from_has_no_share() -> None:
    session, plain = start(), start(momentum=0.0)
    for each in (session, plain):
        each.set_mask(np.ones((SIDE, SIDE), bool))
        each.click(*CLICKS[0])
    np.testing.assert_array_equal(session.probability, plain.probability)


def test_a_close_look_is_told_the_steadied_mask() -> None:
    session = start(crop={**WHOLE_AND_CLOSE, "close_above": 0.5})
    session.click(*CLICKS[0])
    before = session.probability.astype(np.float64)
    session.click(*CLICKS[1])
    x, y, _ = CLICKS[1]
    share = MOMENTUM * np.minimum(np.maximum(np.abs(COLUMNS - x), np.abs(ROWS - y)) / (0.05 * SIDE), 1)
    steady = said(CLICKS[:2]) + share * (np.log(before / (1 - before)) - said(CLICKS[:2]))
    told = session._segmenter.backend.decoded[3]["previous_mask"][0, 0]
    part = close_box(Box(0, 0, SIDE, SIDE), Click(x, y)).slices  # half of the side, seen twice as fine
    halves = told.reshape(64, 2, 64, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(halves, probability(steady)[part], atol=0.12)  # not linear between its pixels
    assert np.abs(halves - probability(said(CLICKS[:2]))[part]).max() > 0.2


def test_two_passes_are_steadied_once_at_their_end() -> None:
    session, plain = start(crop=GLOBAL_TO_LOCAL), start(momentum=0.0, crop=GLOBAL_TO_LOCAL)
    for each in (session, plain):
        each.replay(CLICKS[:2])
    ours, theirs = session._segmenter.backend.decoded, plain._segmenter.backend.decoded
    assert len(ours) == 4
    for feeds, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(feeds["previous_mask"], expected["previous_mask"])
    assert np.abs(session.probability - plain.probability).max() > 0.05
