"""The profiler: its statistics, where it puts time, and whether it notices what got slower."""

from __future__ import annotations

import json
import math
import statistics
import sys
import threading
import time
import types
from contextlib import contextmanager, nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
from builder_double import fake_tensorrt

from clickmask.backends.fake import FakeBackend, fake_manifest
from clickmask.bundle import Bundle
from clickmask.clicks import Click
from clickmask.engine_facts import EngineProfile
from clickmask.errors import BackendError
from clickmask.manifest import GraphSpec
from clickmask.manifest_graphs import TENSORS
from clickmask.segmenter import Segmenter
from clickmask_export.profiling import crowd, layers, tensorrt_layers
from clickmask_export.profiling.clicks import FIRST, MOVED, SAME, UNDO, measure_clicks
from clickmask_export.profiling.compare import any_slower, compare
from clickmask_export.profiling.crowd import measure_crowd
from clickmask_export.profiling.figures import ratio_of_medians, summary
from clickmask_export.profiling.layers import by_module, inputs_of, module_of
from clickmask_export.profiling.paced import measure_paced
from clickmask_export.profiling.plot import draw
from clickmask_export.profiling.recorder import timed_click
from clickmask_export.profiling.scenes import Scene, scenes, script
from clickmask_export.profiling.subject import Subject, subject_of, synchroniser
from clickmask_export.profiling.tensorrt_layers import origins

CLICKS = (Click(40, 40), Click(48, 40), Click(20, 90, positive=False))
PHOTO = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
POLICY = {"kind": "fbrs", "start_click": 2}


class SlowBackend(FakeBackend):
    """A fake whose graphs take a given time, in seconds by name."""

    def __init__(self, manifest, **seconds):
        super().__init__(manifest)
        self.seconds = seconds

    def _run(self, graph, feeds):
        time.sleep(self.seconds.get(graph, 0.0))
        return super()._run(graph, feeds)


def slow_subject(name="slow", prefetch=False, encodes_once=True, crop=POLICY, diffusion=None, **seconds):
    manifest = fake_manifest(encodes_once=encodes_once, crop=crop, pixel_diffusion=diffusion)
    return subject_of(
        Bundle(Path("none"), manifest), SlowBackend(manifest, **seconds), name, prefetch=prefetch
    )


def wait_for_prefetch(subject, seconds=5.0):
    """Until nothing has been encoded for a while; the fake counts encodes when they begin."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        before = subject.segmenter.backend.encode_calls
        time.sleep(0.25)
        if subject.segmenter.backend.encode_calls == before:
            return
    raise AssertionError("the prefetcher does not come to rest")


# Statistics


def percentile_by_hand(times, share):
    """Linear between the ordered times: the definition, in plain Python."""
    ordered = sorted(times)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


@pytest.mark.parametrize("count", [1, 2, 7, 100, 101])
def test_percentiles_jitter_and_spread_are_what_their_definitions_say(count):
    times = np.random.default_rng(count).lognormal(size=count).tolist()
    figures = summary(times)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("max", 1.0), ("min", 0.0)):
        assert figures[name] == pytest.approx(percentile_by_hand(times, share))
        assert figures[name] == pytest.approx(np.percentile(times, 100 * share))
    middle = statistics.median(times)
    assert figures["mad"] == pytest.approx(statistics.median(abs(t - middle) for t in times))
    assert figures["jitter"] == pytest.approx(figures["p99"] / middle)
    assert figures["samples"] == pytest.approx(times, abs=1e-5)
    assert figures["count"] == count


def test_the_interval_of_a_ratio_holds_the_truth_and_excludes_what_is_not():
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(60):
        old, new = random.gamma(50, 1, 40), 1.5 * random.gamma(50, 1, 40)
        ratio = ratio_of_medians(new, old, paired=False)
        inside += ratio.low <= 1.5 <= ratio.high
        assert ratio.low <= ratio.value <= ratio.high
        assert ratio.low > 1.0
    assert inside >= 57


def test_pairs_cancel_what_slowed_both_down():
    """Load that comes and goes, far larger than the difference of 20 %."""
    random = np.random.default_rng(2)
    load = np.repeat([1.0, 4.0, 1.0, 9.0, 2.0], 8)
    old, new = load * random.normal(1, 0.01, 40), 1.2 * load * random.normal(1, 0.01, 40)
    apart, together = (ratio_of_medians(new, old, paired=paired) for paired in (False, True))
    assert together.high - together.low < apart.high - apart.low


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


def test_a_person_who_looks_long_enough_never_waits():
    truth = np.zeros((128, 128), np.bool_)
    truth[30:100, 20:90] = True
    scene = Scene("square", PHOTO, truth)
    never_moves = {"kind": "none"}
    subject = slow_subject(prefetch=True, crop=never_moves, encoder=0.02)
    ahead = measure_paced(subject, [scene], 0.4, clicks=3)
    assert (ahead["count"], ahead["share_without_wait"]) == (3, 1.0)
    assert ahead["share_moved"] == pytest.approx(1 / 3)  # the first click's
    alone = measure_paced(subject, [scene], 0.0, clicks=3, prefetch=False)
    assert alone["share_without_wait"] == pytest.approx(2 / 3)


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
    assert len(found) == 8
    for scene in found:
        assert scene.truth.shape == scene.photo.shape[:2]
        assert 0.01 < scene.truth.mean() < 0.6
    height, width = PHOTO.shape[:2]
    assert all(0 <= click.x < width and 0 <= click.y < height for click in script(PHOTO))


# Layers


def test_nodes_go_to_the_module_that_their_name_begins_with():
    assert module_of("network.decoder/refine.0/Conv_1") == "network.decoder/refine.0"
    assert module_of("network.a/Conv + network.b/Relu") == "network.a"
    rows = by_module({"a": 1.0, "b": 2.0, "c": 5.0}, {"a": "x", "b": "x", "c": "y"})
    assert [(row["module"], row["ms"], row["nodes"]) for row in rows] == [("y", 5.0, 1), ("x", 3.0, 2)]
    assert [row["share"] for row in rows] == pytest.approx([5 / 8, 3 / 8])


def test_layers_are_those_of_the_artefact_that_runs(monkeypatch, tmp_path):
    subject = slow_subject()
    backend = subject.segmenter.backend
    assert "unavailable" in layers.measure_layers(subject, 64, 1)  # of no bundle
    seen = []
    monkeypatch.setattr(layers, "_onnxruntime", lambda _, artefact, *_rest: seen.append(artefact) or {})
    backend.name, backend.artefact = "onnxruntime", "the second of two"
    object.__setattr__(subject.segmenter.bundle, "path", tmp_path)
    layers.measure_layers(subject, 64, 1)
    subject.segmenter.close()
    assert seen == ["the second of two"]


def test_layers_are_profiled_with_clicks_that_could_be():
    ours = GraphSpec((TENSORS["clicks"], TENSORS["clicks_by_label"]), (TENSORS["logits"],))
    for most_clicks in (2, 16):
        made = inputs_of(ours, 64, most_clicks)
        given = min(4, most_clicks)
        labels = made["clicks"][0, :, 2]
        assert sorted(labels[labels >= 0]) == sorted([0.0, 1.0] * (given // 2))
        positive, negative = made["clicks_by_label"][0, :, :, 2]
        assert (positive.tolist(), negative.tolist()) == ([1.0] * (given // 2), [0.0] * (given // 2))


def test_the_engine_inspector_tells_where_layers_came_from():
    """As TensorRT writes it: detailed layers, and one of which only the name is told."""
    detailed = {
        "Name": "__myl_Conv",
        "Metadata": "[ONNX Layer: network.a/Conv]\x1e[ONNX Layer: network.b/Relu]",
    }
    other = {"Name": "Reformat", "Metadata": ""}
    found = origins(json.dumps({"Layers": [detailed, other, "__myl_Fc"], "Bindings": []}))
    assert found == {"__myl_Conv": "network.a/Conv"}
    assert module_of(found["__myl_Conv"]) == "network.a"


def test_an_engine_that_does_not_load_is_told_in_tensorrts_words(monkeypatch):
    trt = fake_tensorrt()

    allowed = []

    def refuse(runtime, _):
        allowed.append(getattr(runtime, "engine_host_code_allowed", False))
        runtime.logger.log(trt.ILogger.Severity.ERROR, "the plan is of another version")

    monkeypatch.setattr("clickmask.backends.tensorrt_engine._loggers", {})
    monkeypatch.setattr(trt.Runtime, "__init__", lambda runtime, logger: setattr(runtime, "logger", logger))
    monkeypatch.setattr(trt.Runtime, "deserialize_cuda_engine", refuse)
    monkeypatch.setattr(tensorrt_layers, "import_tensorrt", lambda _: trt)
    monkeypatch.setattr(tensorrt_layers, "CudaRuntime", lambda _: types.SimpleNamespace(current=nullcontext))
    bundle = types.SimpleNamespace(read=lambda _: b"plan")
    artefact = types.SimpleNamespace(
        engine=types.SimpleNamespace(profiles=[EngineProfile(64, 1, 1, 1)], lean_runtime_inside=True),
        files={"decoder": None},
    )
    with pytest.raises(BackendError, match="the plan is of another version"):
        tensorrt_layers.profile_engines(bundle, artefact, ["decoder"], 64, 1, 0, trust_host_code=True)
    assert allowed == [True]
    artefact.engine.lean_runtime_inside = False
    with pytest.raises(BackendError, match="the plan is of another version"):
        tensorrt_layers.profile_engines(bundle, artefact, ["decoder"], 64, 1, 0, trust_host_code=True)
    assert allowed == [True, False]


def test_stages_wait_for_the_device_that_the_backend_is_on(monkeypatch):
    seen = []

    class Cuda:
        cudart = types.SimpleNamespace(cudaDeviceSynchronize="cudaDeviceSynchronize")

        def __init__(self, index):
            self.index = index

        @contextmanager
        def current(self):
            seen.append(self.index)
            yield

        def call(self, function):
            seen.append(function)

    monkeypatch.setattr("clickmask_export.profiling.subject.CudaRuntime", Cuda)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert synchroniser("cpu") is None
    synchroniser("cuda:1")()
    assert seen == [1, "cudaDeviceSynchronize"]


# Comparison


def measured(subjects: list[Subject], rounds: int) -> list[dict]:
    found = measure_clicks(subjects, PHOTO, CLICKS, rounds, sizes=[64])
    return [subject.facts() | {"clicks": clicks} for subject, clicks in zip(subjects, found, strict=True)]


def test_a_slower_backend_is_found_and_the_same_one_is_not():
    seconds = {"usual": 0.004, "same": 0.004, "slower": 0.12}  # far apart: other tests run beside this
    subjects = [slow_subject(name, encoder=0.004, decoder=spent) for name, spent in seconds.items()]
    usual, same, slower = measured(subjects, rounds=8)
    rows = compare(slower, usual, 2.0, interleaved=True)
    assert len(rows) >= 3
    assert {row.what for row in rows if row.slower} == {row.what for row in rows if UNDO not in row.what}
    assert any_slower(compare(slower, usual, 2.0, interleaved=False))
    assert not any_slower(compare(same, usual, 2.0, interleaved=True))
    assert not any_slower(compare(usual, slower, 2.0, interleaved=True))


def test_a_handful_of_times_proves_nothing():
    def report(ms, count):
        return {"name": "x", "clicks": {"64": {SAME: summary([ms] * count)}}}

    assert not any_slower(compare(report(9.0, 4), report(1.0, 4), 1.1, interleaved=True))
    assert any_slower(compare(report(9.0, 5), report(1.0, 5), 1.1, interleaved=True))


def test_what_only_one_of_both_has_is_not_compared():
    one = {"name": "x", "clicks": {"64": {SAME: summary([1.0] * 9)}}}
    other = {"name": "y", "clicks": {"96": {SAME: summary([1.0] * 9)}}}
    assert compare(one, other, 1.1, interleaved=True) == []


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
