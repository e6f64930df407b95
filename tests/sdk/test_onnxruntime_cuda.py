"""ONNX Runtime's CUDA graphs and what it refuses, on doubles; nothing here says anything of a real GPU."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
import pytest
from bundles import DIFFUSION, prompt
from cuda_double import FakeCuda
from gpu_machine import Machine, pretended, truth
from onnxruntime_double import Binding, RunOptions, Session
from runtimes import CPU
from tensorrt_double import HOST

from clickmask.backends import cuda_device
from clickmask.backends.lanes import LANES
from clickmask.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend
from clickmask.errors import BackendError, BackendUnavailableError


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Machine:
    return pretended(monkeypatch, tmp_path / "bundle", "onnxruntime")


def test_graphs_are_captured_at_warmup_and_replayed_from_any_thread(machine: Machine) -> None:
    backend = machine.open(encodes_once=True, pixel_diffusion=DIFFUSION)
    image, clicks, mask = prompt(1, 64)
    backend.decode(backend.encode(image), clicks, mask)
    assert set(machine.ort.counts) == {"plain"}

    backend.warmup()

    # 3 sizes: the encoder, and decoder and Pixel Diffusion with 4, 8, 16 and 32 rows.
    assert machine.ort.counts["capture"] == 3 * (1 + 2 * 4) * LANES
    machine.ort.counts.clear()
    expected = truth({"encodes_once": True, "pixel_diffusion": 1}, image, clicks, mask)
    with ThreadPoolExecutor(3) as pool:  # threads that captured nothing
        for logits in pool.map(lambda _: backend.decode(backend.encode(image), clicks, mask), range(6)):
            np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-6)
    assert machine.ort.counts == {"replay": 6 * 3}


def test_sessions_work_on_the_lanes_stream_and_without_tf32(machine: Machine) -> None:
    backend = machine.open(encodes_once=True)
    assert isinstance(backend, OnnxRuntimeCudaBackend)
    streams = {int(stream) for stream in machine.cuda.streams.values()}

    assert len(machine.ort.options) == 2
    for options in machine.ort.options:
        assert (options["device_id"], options["use_tf32"], options["enable_cuda_graph"]) == ("0", "0", "1")
        assert int(options["user_compute_stream"]) in streams


def test_a_click_does_not_wait_for_a_crop_that_is_encoded_ahead(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = machine.open(encodes_once=True)
    image, clicks, mask = prompt(1, 64)
    features = backend.encode(image)
    run, encoding, clicked = Session.run_with_iobinding, threading.Event(), threading.Event()

    def slow_encoder(session: Session, *arguments: Any) -> None:
        if not session.get_inputs()[1:]:  # the image alone
            encoding.set()
            assert clicked.wait(20)
        run(session, *arguments)

    monkeypatch.setattr(Session, "run_with_iobinding", slow_encoder)
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(backend.encode, image)
        assert encoding.wait(20)
        logits = backend.decode(features, clicks, mask)
        clicked.set()
        ahead.result()

    expected = truth({"encodes_once": True}, image, clicks, mask)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-6)


def test_nothing_of_ours_allocates_while_a_graph_is_captured(machine: Machine) -> None:
    backend = machine.open(encodes_once=True)
    image, clicks, mask = prompt(1, 64)
    over = threading.Event()

    def annotate(_: int) -> int:
        turns = 0
        while not over.is_set() or turns == 0:
            backend.decode(backend.encode(image), clicks, mask)
            turns += 1
        return turns

    with ThreadPoolExecutor(3) as pool:
        clicked = pool.map(annotate, range(3))
        try:
            backend.warmup()
        finally:
            over.set()
        assert min(clicked) > 0
    assert machine.ort.counts["capture"] == 3 * (1 + 4) * LANES


def test_where_graphs_cannot_be_captured_it_runs_without(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.ort.refuses_graphs = True
    with caplog.at_level(logging.WARNING, "clickmask"):
        backend = machine.open()
    assert "network runs without a CUDA graph, which costs launch time" in caplog.text

    backend.warmup()

    image, clicks, mask = prompt(1, 96)
    logits = backend.decode(backend.encode(image), clicks, mask)
    np.testing.assert_allclose(logits, truth({}, image, clicks, mask), rtol=0, atol=2e-6)
    assert set(machine.ort.counts) == {"plain"}


def test_a_run_that_fails_costs_the_lane_and_the_next_call_opens_another(machine: Machine) -> None:
    others = set(threading.enumerate())
    backend = machine.open()
    image, clicks, mask = prompt(1, 64)
    features = backend.encode(image)
    machine.ort.broken = True
    with pytest.raises(BackendError, match="a run failed: CUDA failure 700"):
        backend.decode(features, clicks, mask)
    assert machine.cuda.live("stream") == 0
    for thread in set(threading.enumerate()) - others:
        thread.join(10)  # it was told to end, and is not waited for
    assert set(threading.enumerate()) <= others

    machine.ort.broken = False
    logits = backend.decode(features, clicks, mask)
    np.testing.assert_allclose(logits, truth({}, image, clicks, mask), rtol=0, atol=2e-6)
    backend.close()


def test_ctrl_c_frees_nothing_that_a_run_still_wants(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = machine.open()
    image, clicks, mask = prompt(1, 64)
    features = backend.encode(image)
    run, interrupted, unknown = Session.run_with_iobinding, threading.Event(), []

    def slow(*arguments: Any) -> None:
        assert interrupted.wait(20)
        time.sleep(0.2)
        run(*arguments)

    def result(_: Any) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "run_with_iobinding", slow)
    monkeypatch.setattr(Future, "result", result)
    release = FakeCuda._release

    def freed(self: FakeCuda, pointer: int, kind: str) -> Any:
        unknown.append(machine.ort.counts["plain"] == 0)
        return release(self, pointer, kind)

    monkeypatch.setattr(FakeCuda, "_release", freed)
    with pytest.raises(KeyboardInterrupt):
        backend.decode(features, clicks, mask)

    assert unknown
    assert not any(unknown)
    backend.close()


def test_a_session_that_falls_back_to_the_cpu_is_refused(machine: Machine) -> None:
    machine.ort.obtained = [CPU]
    with pytest.raises(BackendUnavailableError, match=f"expected ONNX Runtime on cuda:0, got {CPU}"):
        machine.open()
    assert machine.cuda.live("stream") == 0


def test_a_provider_that_fails_says_why(machine: Machine) -> None:
    machine.ort.no_provider = True
    with pytest.raises(BackendError, match=r"does not load 'network\.onnx': CUDA failure 2: out of memory"):
        machine.open()


def test_a_foreign_context_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {**vars(HOST), "foreign_context": True}
    monkeypatch.setattr(cuda_device, "host_facts", lambda: type(HOST)(**facts))
    with pytest.raises(BackendUnavailableError, match=r"pycuda\.autoprimaryctx"):
        machine.open()


def test_the_double_has_what_the_real_runtime_has() -> None:
    assert hasattr(onnxruntime.RunOptions, "add_run_config_entry")
    for name in ("bind_input", "bind_output"):
        code, real = getattr(Binding, name).__code__, getattr(onnxruntime.IOBinding, name).__code__
        assert code.co_varnames[: code.co_argcount] == real.co_varnames[: real.co_argcount]
    options = RunOptions()
    options.add_run_config_entry("gpu_graph_id", "-1")
    assert options.entries == {"gpu_graph_id": "-1"}
