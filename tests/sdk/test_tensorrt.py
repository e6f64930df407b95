"""The TensorRT backend on doubles of CUDA and TensorRT; nothing here says anything of a real GPU.

The doubles do their work late, fill fresh memory with NaN, notice memory that is not there, and compute the
tiny network of bundles.py, so that results, order and ownership are checked together.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import (
    DIFFUSION,
    LOCAL_BIAS,
    change_manifest,
    engine,
    expected_diffusion,
    expected_logits,
    file_entry,
    make_bundle,
    prompt,
    read_manifest,
)
from cuda_double import Error, FakeCuda
from tensorrt_double import HOST, FakeTensorRt, pretend_gpu

from clickmask.backends import open_backend, tensorrt
from clickmask.backends.cuda_memory import DevicePool
from clickmask.backends.host_facts import HostFacts, Package
from clickmask.backends.lanes import LANES, Lanes
from clickmask.bundle import load_bundle
from clickmask.errors import BackendError, BackendUnavailableError, BundleError


@dataclass
class Machine:
    """A pretended GPU box."""

    cuda: FakeCuda
    trt: FakeTensorRt
    folder: Path

    def open(
        self, change: Callable[[Path], None] = lambda _: None, **options: Any
    ) -> tensorrt.TensorRtBackend:
        """A backend on a fresh bundle; ``change`` may alter its folder first."""
        device, trust = options.pop("device", "cuda"), options.pop("trust_host_code", False)
        folder = make_bundle(self.folder, backends=("tensorrt",), **options)
        change(folder)
        backend = open_backend(load_bundle(folder), "tensorrt", device, trust_host_code=trust)
        assert isinstance(backend, tensorrt.TensorRtBackend)
        return backend


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    trt = pretend_gpu(monkeypatch)
    return Machine(trt.cuda, trt, tmp_path / "bundle")


def change_engine(**changes: Any) -> Callable[[Path], None]:
    """Alters the facts of the one artefact."""

    def change(folder: Path) -> None:
        artefact = read_manifest(folder)["artefacts"][0]
        change_manifest(folder, artefacts=[{**artefact, "engine": engine(**changes)}])

    return change


PIPELINES = {
    "one_graph": {},
    "two_graphs": {"encodes_once": True},
    "no_mask": {"encodes_once": True, "input": {"previous_mask": False}},
    "diffusion": {"pixel_diffusion": DIFFUSION},
    "two_graphs_diffusion": {"encodes_once": True, "pixel_diffusion": DIFFUSION},
}


@pytest.fixture(params=PIPELINES, ids=str)
def pipeline(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(PIPELINES[request.param])


def truth(
    pipeline: dict[str, Any], image: np.ndarray, clicks: np.ndarray, mask: np.ndarray | None
) -> np.ndarray:
    masked = pipeline.get("input", {}).get("previous_mask", True)
    logits = expected_logits(image, clicks, mask if masked else None, pipeline.get("encodes_once", False))
    return expected_diffusion(image, clicks, logits) if "pixel_diffusion" in pipeline else logits


# What it computes


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_results_are_the_networks(machine: Machine, pipeline: dict[str, Any], warm: bool) -> None:
    backend = machine.open(**pipeline)
    if warm:
        backend.warmup()
    masked = pipeline.get("input", {}).get("previous_mask", True)

    for number, (size, slots) in enumerate([(64, 4), (128, 8), (64, 8), (128, 4), (96, 32)]):
        image, clicks, mask = prompt(1, size, slots, seed=number)
        features = backend.encode(image)
        for rows in (clicks, clicks[:, ::-1].copy()):
            logits = backend.decode(features, rows, mask if masked else None)
            np.testing.assert_allclose(logits, truth(pipeline, image, rows, mask), rtol=0, atol=2e-6)


def test_a_warm_backend_runs_batches_that_were_not_warmed_up(machine: Machine) -> None:
    backend = machine.open(encodes_once=True, pixel_diffusion=DIFFUSION)
    backend.warmup()
    image, clicks, mask = prompt(3, 96)

    logits = backend.decode(backend.encode(image), clicks, mask)

    expected = truth({"encodes_once": True, "pixel_diffusion": 1}, image, clicks, mask)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-6)


def test_features_outlive_the_calls_between(machine: Machine) -> None:
    backend = machine.open(encodes_once=True)
    prompts = [prompt(1, 64, seed=seed) for seed in range(4)]
    kept = [backend.encode(image) for image, _, _ in prompts]

    for features, (image, clicks, mask) in reversed(list(zip(kept, prompts, strict=True))):
        expected = truth({"encodes_once": True}, image, clicks, mask)
        np.testing.assert_allclose(backend.decode(features, clicks, mask), expected, rtol=0, atol=2e-6)


def test_second_network_runs_for_the_second_pass(machine: Machine) -> None:
    backend = machine.open(local_network=True)
    image, clicks, mask = prompt(1, 64)

    difference = backend.decode(backend.encode(image, local=True), clicks, mask) - backend.decode(
        backend.encode(image), clicks, mask
    )

    np.testing.assert_allclose(difference, LOCAL_BIAS, rtol=0, atol=2e-6)


def test_join_and_split(machine: Machine) -> None:
    backend = machine.open(encodes_once=True)
    prompts = [prompt(1, 64, seed=seed) for seed in range(3)]
    whole = backend.join([backend.encode(image) for image, _, _ in prompts])
    image, clicks, mask = (np.concatenate(arrays) for arrays in zip(*prompts, strict=True))

    together = backend.decode(whole, clicks, mask)
    parts = backend.split(whole)
    del whole
    last = backend.decode(parts[2], clicks[2:], mask[2:])

    expected = truth({"encodes_once": True}, image, clicks, mask)
    np.testing.assert_allclose(together, expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(last, expected[2:], rtol=0, atol=2e-6)


@pytest.mark.parametrize("pipeline", [{}, {"pixel_diffusion": DIFFUSION}], ids=["plain", "diffusion"])
def test_logits_that_are_not_finite_are_refused(machine: Machine, pipeline: dict[str, Any]) -> None:
    backend = machine.open(bias=float("inf"), **pipeline)
    image, clicks, mask = prompt(1, 64)

    with pytest.raises(BackendError, match="expected finite logits"):
        backend.decode(backend.encode(image), clicks, mask)


def test_infinity_shows_after_calls_that_were_fine(machine: Machine) -> None:
    backend = machine.open(pixel_diffusion=DIFFUSION)
    backend.warmup()
    image, clicks, mask = prompt(1, 64)
    backend.decode(backend.encode(image), clicks, mask)
    image[0, 0, 5, 5] = np.inf

    with pytest.raises(BackendError, match="expected finite logits"):
        backend.decode(backend.encode(image), clicks, mask)


def test_more_images_than_the_plan_takes(machine: Machine) -> None:
    backend = machine.open()

    assert backend.largest_batch == 8
    image, clicks, mask = prompt(9, 64)
    with pytest.raises(BackendError, match="expected 1 to 8 images of side 64 at once"):
        backend.decode(backend.encode(image), clicks, mask)


# CUDA graphs, contexts and copies


def test_graphs_are_captured_at_warmup_and_only_there(machine: Machine) -> None:
    backend = machine.open(pixel_diffusion=DIFFUSION)
    image, clicks, mask = prompt(1, 64)
    backend.decode(backend.encode(image), clicks, mask)
    assert machine.cuda.calls["cudaStreamBeginCapture"] == 0

    backend.warmup()

    # 3 sizes, 4 numbers of click rows (4, 8, 16, 32), network and Pixel Diffusion, in each lane.
    assert machine.cuda.live("executable") == 3 * 4 * 2 * LANES
    enqueued = sum(len(context.runs) for context in machine.trt.contexts)
    before = machine.cuda.calls.copy()
    backend.decode(backend.encode(image), clicks, mask)
    assert sum(len(context.runs) for context in machine.trt.contexts) == enqueued
    assert (machine.cuda.calls - before)["cudaGraphLaunch"] == 2
    assert (machine.cuda.calls - before)["cudaStreamBeginCapture"] == 0
    assert (machine.cuda.calls - before)["cudaMalloc"] == 0
    backend.warmup()
    assert machine.cuda.live("executable") == 3 * 4 * 2 * LANES


@pytest.mark.parametrize("diffusion", [{}, {"pixel_diffusion": DIFFUSION}], ids=["plain", "diffusion"])
def test_an_image_that_overflows_costs_no_captured_graph(machine: Machine, diffusion: dict[str, Any]) -> None:
    backend = machine.open(**diffusion)
    backend.warmup()
    captured = machine.cuda.live("executable")
    image, clicks, mask = prompt(1, 64)

    with pytest.raises(BackendError, match="expected finite logits"):
        backend.decode(backend.encode(np.full_like(image, np.inf)), clicks, mask)

    assert machine.cuda.live("executable") == captured
    backend.decode(backend.encode(image), clicks, mask)


def test_one_context_for_each_size_without_warmup(machine: Machine) -> None:
    backend = machine.open()
    for size in (64, 96, 64, 96):
        for slots in (4, 8):
            image, clicks, mask = prompt(1, size, slots)
            backend.decode(backend.encode(image), clicks, mask)

    assert sorted(context.profile for context in machine.trt.contexts) == [0, 1]


def test_what_cannot_be_captured_runs_without_a_graph(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.trt.fail.add("execute_async_v3 captured")
    backend = machine.open()
    image, clicks, mask = prompt(1, 64)

    with caplog.at_level(logging.WARNING, "clickmask"):
        backend.warmup()

    assert "network runs without a CUDA graph" in caplog.text
    assert machine.cuda.live("graph") == 0
    logits = backend.decode(backend.encode(image), clicks, mask)
    np.testing.assert_allclose(logits, truth({}, image, clicks, mask), rtol=0, atol=2e-6)


def test_what_is_on_the_device_already_is_not_copied_again(machine: Machine) -> None:
    backend = machine.open(pixel_diffusion=DIFFUSION)
    image, clicks, mask = prompt(1, 64)
    features = backend.encode(image)
    before = machine.cuda.calls["cudaMemcpyAsync"]

    backend.decode(features, clicks, mask)

    # In: image, clicks, mask, once for both graphs. Out: logits to be looked at, and the diffused ones.
    assert machine.cuda.calls["cudaMemcpyAsync"] - before == 5


# Ownership


def test_everything_is_given_back(machine: Machine, pipeline: dict[str, Any]) -> None:
    backend = machine.open(**pipeline)
    backend.warmup()
    image, clicks, mask = prompt(2, 64)
    features = backend.encode(image)
    masked = pipeline.get("input", {}).get("previous_mask", True)
    backend.decode(features, clicks, mask if masked else None)

    backend.close()
    backend.close()

    held = len(features.tensors)
    assert machine.cuda.live("device") == held
    del features
    gc.collect()
    kinds = ("device", "pinned", "stream", "event", "graph", "executable")
    assert {kind: machine.cuda.live(kind) for kind in kinds} == dict.fromkeys(kinds, 0)
    with pytest.raises(BackendError, match=r"after close\(\)"):
        backend.encode(image)


def test_memory_of_features_is_used_again(machine: Machine) -> None:
    backend = machine.open(encodes_once=True)
    image, _, _ = prompt(1, 64)
    backend.encode(image)
    blocks = machine.cuda.calls["cudaMalloc"]

    for _ in range(5):
        backend.encode(image)

    assert machine.cuda.calls["cudaMalloc"] == blocks
    assert machine.cuda.calls["cudaFree"] == 0


def test_close_gives_up_the_engines_whose_weights_fill_the_device(machine: Machine) -> None:
    backend = machine.open()
    image, clicks, mask = prompt(1, 64)
    backend.decode(backend.encode(image), clicks, mask)
    loaded = weakref.ref(machine.trt.contexts[0].engine)
    machine.trt.contexts.clear()  # the double's own record of them

    backend.close()
    gc.collect()

    assert loaded() is None


def test_memory_of_a_call_that_fails_is_not_used_again_before_its_work_is_done(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = machine.open()
    features = backend.encode(prompt(4, 64)[0])
    size = prompt(1, 64)[0].nbytes
    machine.cuda.memory_limit = 2 * size + sum(
        nbytes for _, nbytes, kind in machine.cuda.blocks.values() if kind == "device"
    )
    unfinished: list[int] = []
    give = DevicePool.give

    def watched(self: DevicePool, pointer: int, nbytes: int) -> None:
        unfinished.append(sum(len(stream.work) for stream in machine.cuda.streams.values()))
        give(self, pointer, nbytes)

    monkeypatch.setattr(DevicePool, "give", watched)
    with pytest.raises(BackendError, match="cudaMalloc failed"):
        backend.split(features)  # the third of four finds no memory
    gc.collect()

    assert unfinished == [0, 0]


def test_memory_that_is_kept_idle_is_freed_before_giving_up(machine: Machine) -> None:
    backend = machine.open(encodes_once=True)
    backend.encode(prompt(4, 96)[0])
    in_use = sum(block[1] for block in machine.cuda.blocks.values() if block[2] == "device")
    machine.cuda.memory_limit = in_use

    backend.encode(prompt(1, 64)[0])

    assert machine.cuda.calls["cudaFree"] > 0


def test_no_memory_at_all_names_the_call(machine: Machine) -> None:
    backend = machine.open()
    machine.cuda.memory_limit = 0

    with pytest.raises(BackendError, match=r"cudaMalloc failed with cudaErrorMemoryAllocation: text of"):
        backend.encode(prompt(1, 64)[0])


def test_the_applications_device_is_left_as_it_was(machine: Machine) -> None:
    backend = machine.open(device="cuda:1")
    image, clicks, mask = prompt(1, 64)

    backend.decode(backend.encode(image), clicks, mask)
    backend.warmup()

    assert machine.cuda.cudaGetDevice() == 0
    assert backend.device == "cuda:1"


# Many threads


def test_many_threads_at_once(machine: Machine) -> None:
    backend = machine.open(encodes_once=True, pixel_diffusion=DIFFUSION)
    backend.warmup()
    wrong: list[Any] = []

    def annotate(seed: int) -> None:
        try:
            for turn in range(4):
                size, slots = (64, 96, 128)[(seed + turn) % 3], (4, 8)[turn % 2]
                image, clicks, mask = prompt(1, size, slots, seed=10 * seed + turn)
                logits = backend.decode(backend.encode(image), clicks, mask)
                expected = truth({"encodes_once": True, "pixel_diffusion": 1}, image, clicks, mask)
                np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-6)
        except BaseException as exc:
            wrong.append(exc)

    threads = [threading.Thread(target=annotate, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not wrong, wrong[0]
    assert machine.cuda.live("stream") <= 2 * LANES


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


# What fails, by name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("create_execution_context", r"ICudaEngine\.create_execution_context failed"),
        ("set_optimization_profile_async", r"IExecutionContext\.set_optimization_profile_async\(0\) failed"),
        ("set_input_shape", r"IExecutionContext\.set_input_shape\(image \[1, 3, 64, 64\]\) failed"),
        ("infer_shapes", r"infer_shapes left \['clicks'\] unspecified"),
        ("set_tensor_address", r"IExecutionContext\.set_tensor_address\(image\) failed"),
        ("execute_async_v3", r"IExecutionContext\.execute_async_v3\(\) failed"),
    ],
)
def test_a_call_that_reports_failure(machine: Machine, call: str, message: str) -> None:
    backend = machine.open()
    image, clicks, mask = prompt(1, 64)
    features = backend.encode(image)
    machine.trt.fail.add(call)

    with pytest.raises(BackendError, match=message):
        backend.decode(features, clicks, mask)

    assert machine.cuda.calls["cudaStreamDestroy"] == 2
    machine.trt.fail.clear()  # the broken lane is gone and a new one works
    logits = backend.decode(features, clicks, mask)
    np.testing.assert_allclose(logits, truth({}, image, clicks, mask), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "call", ["cudaGetDevice", "cudaSetDevice", "cudaMallocHost", "cudaMemcpyAsync", "cudaStreamSynchronize"]
)
def test_an_error_of_cuda(machine: Machine, call: str) -> None:
    backend = machine.open()
    machine.cuda.fail[call] = Error.cudaErrorInvalidValue

    with pytest.raises(BackendError, match=f"CUDA device 0: {call} failed with cudaErrorInvalidValue: text"):
        backend.encode(prompt(1, 64)[0])


# Loading


def test_plan_that_tensorrt_refuses(machine: Machine) -> None:
    def spoil(folder: Path) -> None:
        (folder / "network.plan").write_bytes(b"junk")
        artefact = read_manifest(folder)["artefacts"][0]
        artefact["files"]["network"] = file_entry(folder / "network.plan")
        change_manifest(folder, artefacts=[artefact])

    with pytest.raises(
        BackendError, match=r"deserialize_cuda_engine failed; it said: magic tag does not match"
    ):
        machine.open(spoil)


def test_plan_changed_after_the_bundle_was_loaded(machine: Machine) -> None:
    bundle = load_bundle(make_bundle(machine.folder, backends=("tensorrt",)))
    (machine.folder / "network.plan").write_text("{}")

    with pytest.raises(BundleError, match="got other bytes than when the bundle was loaded"):
        open_backend(bundle, "tensorrt")
    assert not machine.trt.contexts


def test_plan_of_another_graph(machine: Machine) -> None:
    def swap(folder: Path) -> None:
        artefact = read_manifest(folder)["artefacts"][0]
        files = artefact["files"]
        artefact["files"] = {"encoder": files["decoder"], "decoder": files["encoder"]}
        change_manifest(folder, artefacts=[artefact])

    with pytest.raises(BackendError, match=r"graph 'encoder': expected the inputs \{'image': 'float32'\}"):
        machine.open(swap, encodes_once=True)


def test_plan_with_other_profiles(machine: Machine) -> None:
    profiles = [*engine()["profiles"], {"size": 64, "min_batch": 1, "opt_batch": 1, "max_batch": 1}]

    with pytest.raises(BackendError, match="expected the 4 optimisation profiles of the manifest, got 3"):
        machine.open(change_engine(profiles=profiles))


def test_host_code_runs_only_for_who_trusts_it(machine: Machine) -> None:
    change = change_engine(version_compatible=True, lean_runtime_inside=True, flavour="lean")
    with pytest.raises(BackendUnavailableError, match="expected trust_host_code=True"):
        machine.open(change)
    assert not machine.trt.runtimes

    machine.open(change, trust_host_code=True)

    assert machine.trt.runtimes[-1].engine_host_code_allowed


def test_trust_opens_no_door_that_a_plan_does_not_need(machine: Machine) -> None:
    machine.open(trust_host_code=True)

    assert not machine.trt.runtimes[-1].engine_host_code_allowed


def with_weights(folder: Path) -> None:
    (folder / "network.onnx").write_bytes(b"weights")
    artefact = read_manifest(folder)["artefacts"][0]
    artefact |= {
        "engine": engine(stripped=True),
        "weights": {"network": file_entry(folder / "network.onnx")},
    }
    change_manifest(folder, artefacts=[artefact])


def test_plan_without_weights_is_refitted(machine: Machine) -> None:
    backend = machine.open(with_weights)
    image, clicks, mask = prompt(1, 64)

    assert machine.trt.refits == [b"weights"]
    assert backend.decode(backend.encode(image), clicks, mask).shape == (1, 1, 64, 64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("refit_from_bytes", "refit_from_bytes failed; it said: no such initializer"),
        ("refit_cuda_engine", r"Refitter\.refit_cuda_engine failed"),
    ],
)
def test_refit_that_fails(machine: Machine, call: str, message: str) -> None:
    machine.trt.fail.add(call)

    with pytest.raises(BackendError, match=message):
        machine.open(with_weights)


def test_lean_runtime_is_used_where_it_is_what_fits(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lean = FakeTensorRt(machine.cuda, "tensorrt_lean")
    monkeypatch.setitem(sys.modules, "tensorrt_lean", lean.module)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    host = HostFacts(
        **{**vars(HOST), "tensorrt": None, "tensorrt_lean": Package("tensorrt-lean", "11.4.0.106")}
    )
    monkeypatch.setattr(tensorrt, "host_facts", lambda: host)

    backend = machine.open(change_engine(version_compatible=True, flavour="lean"))

    assert lean.runtimes
    assert "with tensorrt-lean 11.4.0.106" in backend.reason


def test_module_that_does_not_import(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    with pytest.raises(BackendUnavailableError, match="expected the module tensorrt to import, got"):
        machine.open()


def test_folder_of_that_name(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", types.ModuleType("tensorrt"))

    with pytest.raises(BackendUnavailableError, match="got a module without Runtime from no file"):
        machine.open()


def test_plan_is_json_in_these_tests(machine: Machine) -> None:
    """The double's plans say what their graph takes, from the manifest: a stale one would test nothing."""
    folder = make_bundle(machine.folder, backends=("tensorrt",), encodes_once=True)

    plan = json.loads((folder / "decoder.plan").read_text())
    assert [row[0] for row in plan["tensors"]] == ["feature_0", "clicks", "previous_mask", "logits"]
