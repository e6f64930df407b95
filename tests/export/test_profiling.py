"""The profiler: where it puts the time of a click, and what it measures beside clicks."""

from __future__ import annotations

import json
import threading
import time
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from slow_subject import CLICKS, PHOTO, POLICY, SlowBackend, measured, slow_subject

from clickmask.backends.fake import FakeBackend, fake_manifest
from clickmask.bundle import Bundle
from clickmask.clicks import Click
from clickmask.segmenter import Segmenter
from clickmask_export.profiling import crowd
from clickmask_export.profiling.around import measure_around
from clickmask_export.profiling.clicks import FIRST, MOVED, SAME, TWICE, UNDO, measure_clicks
from clickmask_export.profiling.crowd import measure_crowd
from clickmask_export.profiling.plot import draw
from clickmask_export.profiling.recorder import timed_click
from clickmask_export.profiling.scenes import scenes, script
from clickmask_export.profiling.subject import subject_of


def wait_for_prefetch(subject, seconds=5.0):
    """Until nothing has been encoded for a while; the fake counts encodes when they begin."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        before = subject.segmenter.backend.encode_calls
        time.sleep(0.25)
        if subject.segmenter.backend.encode_calls == before:
            return
    raise AssertionError("the prefetcher does not come to rest")


# Where the time of a click goes


def test_stages_are_what_the_graphs_take_and_add_up():
    diffusion = {"iterations": 1, "dilations": [1], "amplitude": 1.0, "eps": 1e-4, "norm": "tanh_half"}
    subject = slow_subject(encoder=0.03, decoder=0.02, pixel_diffusion=0.01, diffusion=diffusion)
    session = subject.segmenter.session(PHOTO)
    click = timed_click(subject.recording, lambda: session.click(40, 40))
    assert click.encoded == 1
    assert sum(click.stages.values()) == pytest.approx(click.ms, rel=1e-6)
    for stage, least in (("encoder", 30), ("decoder", 20), ("Pixel Diffusion", 10)):
        assert least <= click.stages[stage]
    assert click.stages["encoder"] + click.stages["decoder"] + click.stages["Pixel Diffusion"] > click.ms / 2
    assert min(click.stages.values()) >= 0


def test_a_network_of_one_graph_and_one_of_two_passes_are_recorded_too():
    one = slow_subject(encodes_once=False, network=0.01)
    click = timed_click(one.recording, lambda: one.segmenter.session(PHOTO).click(40, 40))
    assert click.stages["network"] >= 10
    manifest = fake_manifest(local_network=True)
    backend = SlowBackend(manifest, local_network=0.01)
    two = subject_of(Bundle(Path("none"), manifest), backend, "two", prefetch=False)
    session = two.segmenter.session(PHOTO)
    session.click(40, 40)
    click = timed_click(two.recording, lambda: session.click(48, 40))
    assert {"network", "local_network"} <= set(click.stages)
    assert sum(click.stages.values()) == pytest.approx(click.ms, rel=1e-6)


def test_recording_changes_no_mask():
    manifest = fake_manifest(encodes_once=True, crop=POLICY)
    expected = Segmenter(Bundle(Path("none"), manifest), FakeBackend(manifest)).predict(PHOTO, CLICKS)
    assert np.array_equal(slow_subject().segmenter.predict(PHOTO, CLICKS), expected)


def test_a_failure_inside_a_stage_still_reaches_the_application():
    subject = slow_subject()
    subject.segmenter.backend.close()
    with pytest.raises(Exception, match="close"):
        subject.segmenter.session(PHOTO).click(40, 40)
    assert subject.recording.spans == []


def test_a_click_waited_only_where_its_crop_was_not_encoded_when_it_came():
    subject = slow_subject(prefetch=True, encoder=0.2)
    session = subject.segmenter.session(PHOTO)
    hasty = timed_click(subject.recording, lambda: session.click(40, 40))
    assert hasty.waited  # for the background thread, or for its own work
    wait_for_prefetch(subject)
    patient = timed_click(subject.recording, lambda: session.click(48, 40))
    assert (patient.waited, patient.encoded) == (False, 0)
    alone = subject.segmenter.session(PHOTO, prefetch=False)
    own = timed_click(subject.recording, lambda: alone.click(40, 40))
    assert (own.waited, own.encoded) == (True, 1)


# The parts


def test_clicks_are_told_apart_by_what_they_find():
    subject = slow_subject(encoder=0.02, decoder=0.005)
    clicks = (Click(40, 40), Click(48, 40), Click(44, 44), Click(40, 44))
    (found,) = measure_clicks([subject], PHOTO, clicks, rounds=3, sizes=[64, 96])
    assert list(found) == ["64", "96"]
    for kinds in found.values():
        assert set(kinds) == {FIRST, SAME, MOVED, UNDO}
        assert kinds[FIRST]["count"] == 3
        assert kinds[SAME]["count"] + kinds[MOVED]["count"] == 9
        assert kinds[UNDO]["count"] == 12
        assert kinds[SAME]["min"] >= 5
        assert min(kinds[FIRST]["min"], kinds[MOVED]["min"]) >= 25
        assert "encoder" not in kinds[SAME]["stages"]
        assert kinds[MOVED]["stages"]["encoder"] >= 20
        assert kinds[UNDO]["max"] < kinds[SAME]["min"] + 5


def test_clicks_that_are_looked_at_closely_are_a_kind_of_their_own():
    """Whether the half that they look at was encoded or not: two passes are no click in the same crop."""
    close = {"kind": "none", "start_click": 2, "close_above": 0.0}
    (kinds,) = (row["clicks"]["64"] for row in measured([slow_subject(crop=close, decoder=0.005)], 2))
    assert set(kinds) == {FIRST, TWICE, UNDO}
    assert kinds[TWICE]["min"] >= 10
    around = measure_around(slow_subject(crop=close), PHOTO, CLICKS, 2)
    assert {kind: figures["a click"]["count"] for kind, figures in around.items() if kind != "once"} == {
        FIRST: 4,  # of two rounds, each with close looks and without
        TWICE: 4,
        SAME: 4,
    }


def test_many_sessions_at_once_get_more_done_where_the_backend_sleeps():
    subject = slow_subject(crop={"kind": "none"}, decoder=0.02)
    one, eight = (measure_crowd(subject, PHOTO, CLICKS, count, seconds=0.5) for count in (1, 8))
    assert one["clicks_per_second"] < 50
    assert eight["clicks_per_second"] > 1.5 * one["clicks_per_second"]
    assert eight["sessions_per_second"] == pytest.approx(eight["clicks_per_second"] / len(CLICKS))
    assert threading.active_count() < 8


def test_a_thread_that_fails_fails_the_measurement():
    subject = slow_subject()
    subject.segmenter.backend.close()
    with pytest.raises(Exception, match="close"):
        measure_crowd(subject, PHOTO, CLICKS, 2, seconds=0.1)


def test_ctrl_c_leaves_no_thread_clicking(monkeypatch):
    subject = slow_subject(crop={"kind": "none"}, decoder=0.01)

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(
        crowd, "time", types.SimpleNamespace(sleep=interrupted, perf_counter=time.perf_counter)
    )
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        measure_crowd(subject, PHOTO, CLICKS, 2, seconds=0.1)
    started = set(threading.enumerate()) - before
    for thread in started:
        thread.join(5)
    left = [thread.name for thread in started if thread.is_alive() and "annotate" in thread.name]
    subject.segmenter.close()
    assert left == []


def test_scripts_and_scenes_are_of_their_photographs():
    pytest.importorskip("skimage")
    found = scenes()
    assert len({scene.name for scene in found}) == len(found) == 12
    for scene in found:
        assert scene.truth.shape == scene.photo.shape[:2]
        assert 0.01 < scene.truth.mean() < 0.6
    height, width = PHOTO.shape[:2]
    assert all(0 <= click.x < width and 0 <= click.y < height for click in script(PHOTO))


# Output


def test_the_plot_opens_and_shows_something(tmp_path):
    pytest.importorskip("PIL")
    report = {"bundles": measured([slow_subject(encoder=0.002, decoder=0.002)], rounds=1)}
    json.dumps(report)
    draw(tmp_path / "plot.png", report)
    picture = cv2.imread(str(tmp_path / "plot.png"))
    assert picture.shape[1] == 1480
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    with pytest.raises(ValueError, match="clicks"):
        draw(tmp_path / "plot.png", {"bundles": [{"name": "none"}]})
