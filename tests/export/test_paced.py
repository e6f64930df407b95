"""Clicks at a person's pace: which of them wait, and the control that is run between them."""

from __future__ import annotations

import time

import numpy as np
import pytest
from slow_subject import PHOTO, slow_subject

from clickmask.session import Session
from clickmask_export.profiling import cpu_page, paced
from clickmask_export.profiling.clicks import FIRST, MOVED, SAME
from clickmask_export.profiling.control import Control
from clickmask_export.profiling.figures import summary
from clickmask_export.profiling.paced import NEW, READY, SEEN, measure_paced
from clickmask_export.profiling.scenes import Scene


def square_scene():
    truth = np.zeros((128, 128), np.bool_)
    truth[30:100, 20:90] = True
    return Scene("square", PHOTO, truth)


def test_a_person_who_looks_long_enough_never_waits():
    never_moves = {"kind": "none"}
    subject = slow_subject(prefetch=True, crop=never_moves, encoder=0.02)
    (ahead,) = measure_paced(subject, [square_scene()], 0.4, clicks=3)
    assert (ahead["count"], ahead["share_without_wait"]) == (3, 1.0)
    assert ahead["share_moved"] == pytest.approx(1 / 3)  # the first click's
    (alone,) = measure_paced(subject, [square_scene()], 0.0, clicks=3, prefetch=False)
    assert alone["share_without_wait"] == pytest.approx(2 / 3)


def test_a_persons_clicks_are_told_apart_by_their_crop():
    subject = slow_subject(prefetch=False, crop={"kind": "none"}, encoder=0.05, decoder=0.005)
    (found,) = measure_paced(subject, [square_scene()] * 2, 0.0, clicks=4, size=96)
    assert (found["objects"], found["count"], found["size"]) == (2, 8, 96)
    assert {kind: times["count"] for kind, times in found["kinds"].items()} == {SEEN: 6, NEW: 2, READY: 6}
    assert found["kinds"][NEW]["min"] >= 50  # the encoder, which clicks in a seen crop do without
    assert found["kinds"][SEEN]["samples"] == found["kinds"][READY]["samples"]
    assert sorted(found["kinds"][SEEN]["samples"] + found["kinds"][NEW]["samples"]) == sorted(
        found["samples"]
    )
    assert found["control"] is None
    assert found["control_again"] is None


def test_the_control_is_run_twice_half_way_between_clicks():
    subject = slow_subject(crop={"kind": "none"}, prefetch=False)
    at = []

    def control():
        at.append(time.perf_counter())
        return 3.0 if len(at) % 2 else 2.0

    began = time.perf_counter()
    (found,) = measure_paced(subject, [square_scene()], 0.4, clicks=2, control=control)
    assert found["control"]["samples"] == [3.0, 3.0]
    assert found["control_again"]["samples"] == [2.0, 2.0]
    assert at[0] - began >= 0.2
    assert at[2] - began >= 0.6


def test_a_pointer_has_a_preview_shown_shortly_before_each_click_and_changes_no_mask(monkeypatch):
    subject = slow_subject(crop={"kind": "none"}, prefetch=False, decoder=0.005)
    calls, due = [], []
    click = Session.click

    def noted(self, x, y, positive=True):
        calls.append((self, due[-1], x, y, positive))
        return click(self, x, y, positive)

    monkeypatch.setattr(Session, "click", noted)
    monkeypatch.setattr(paced, "_sleep_until", due.append)
    scenes = [square_scene()] * 2
    plain, pointer = measure_paced(subject, scenes, 0.3, clicks=2, pointers=(False, True))
    assert (plain["pointer"], pointer["pointer"]) == (False, True)
    assert (plain["count"], pointer["count"]) == (4, 4)
    turns = (0, 6)  # each object: two clicks without, then two with their previews
    for first in turns:
        without, previewed = calls[first : first + 2], calls[first + 2 : first + 6]
        shown, made = previewed[::2], previewed[1::2]
        assert [c[2:] for c in made] == [c[2:] for c in without]
        for (fork, before, x, y, positive), (session, at, *to) in zip(shown, made, strict=True):
            assert fork is not session
            assert 0.05 <= at - before <= 0.15
            assert abs(x - to[0]) <= 10
            assert abs(y - to[1]) <= 10
            assert positive == to[2]


def test_the_control_takes_about_as_long_as_it_is_told():
    """Twenty times the milliseconds asked for are far more work, whatever else the machine does."""
    with Control(2, 2.0) as little, Control(2, 40.0) as much:
        times = [(little.run(), much.run()) for _ in range(5)]
    assert min(t for t, _ in times) < min(t for _, t in times)
    assert min(t for _, t in times) > 10


def test_the_goals_are_for_the_run_at_their_size():
    """By view, clicks at 608 px are many times as long as at 384: only their waits are held to a goal."""

    def run(size, ms, without_wait, pointer=False):
        return summary([ms] * 9) | {
            "pace_s": 1.0,
            "prefetch": True,
            "pointer": pointer,
            "size": size,
            "share_without_wait": without_wait,
        }

    start = {name: summary([1.0]) for name in ("first_mask_ms", "import_ms")}
    clicks = {SAME: summary([5.0]), FIRST: summary([15.0]), MOVED: summary([21.0])}
    around = {kind: {"a click": summary([1.5]), "polygons": summary([0.4])} for kind in clicks}
    around[FIRST]["a click"] = summary([1.7])
    report = {
        "clicks": {cpu_page.NATIVE: {"384": clicks}},
        "paced": [run(384, 9.0, 0.96), run(384, 99.0, 0.1, pointer=True), run(None, 30.0, 0.94)],
        "cold_start": start | {"peak_mb": {"a session": 200}},
        "build_s": None,
        "diffusion": [],
        "around": around,
    }
    judged = {what: reached for what, _, _, reached in cpu_page.goals(report)}
    assert judged["click in the same crop, 384 px, p50"]
    # Of clicks that encode the slower kind counts: one that moves the crop; around the network the first.
    assert not judged["click that encodes its crop, nothing ahead, 384 px, p50"]
    assert judged["around the network, 12 megapixels, same crop, with polygons"]
    assert not judged["the same of a click that encodes its crop"]
    assert {what: reached for what, reached in judged.items() if "person" in what} == {
        "a person's clicks 1 s apart, 384 px, p95": True,
        "a person's clicks 1 s apart, 384 px, p99 over p50": True,
        "a person's clicks 1 s apart, 384 px, without a wait for the encoder": True,
        "a person's clicks 1 s apart, by view, without a wait for the encoder": False,
    }
