"""Which artefact is opened where several could be, what is said of the others, and what the host offers."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import artefact, change_manifest, make_bundle, read_manifest
from runtimes import CPU, CUDA, fake_onnxruntime, hollow
from tensorrt_double import HOST, pretend_gpu

from clickmask.backends import Backend, cuda_device, host, open_backend, tensorrt
from clickmask.batching import batched
from clickmask.bundle import load_bundle
from clickmask.errors import BackendUnavailableError, InvalidInputError


@pytest.fixture
def both(tmp_path: Path) -> Any:
    """A bundle with a plan, an fp16 and an fp32 TorchScript archive and an ONNX graph."""
    folder = make_bundle(tmp_path / "both", backends=("onnxruntime", "torchscript"))
    onnx, script = read_manifest(folder)["artefacts"]
    plan = artefact("tensorrt", script["files"])
    change_manifest(folder, artefacts=[onnx, script, {**script, "precision": "fp16"}, plan])
    return load_bundle(folder)


def test_order_of_the_choice(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from clickmask import backends

    tried: list[str] = []

    def refuse(_: Any, candidate: Any, *__: Any) -> Backend:
        tried.append(str(candidate))
        raise BackendUnavailableError("no")

    monkeypatch.setattr(backends, "_open", refuse)

    with pytest.raises(BackendUnavailableError):
        open_backend(both)

    assert tried == [
        "tensorrt fp32 on cuda",
        "torchscript fp16 on cuda",
        "torchscript fp32 on cuda",
        "onnxruntime fp32 on cuda",
        "onnxruntime fp32 on cpu",
        "torchscript fp32 on cpu",
        "torchscript fp16 on cpu",
    ]


def test_auto_on_a_host_without_a_gpu_takes_onnx_and_imports_no_torch(
    both: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "cuda_devices", lambda: 0)
    monkeypatch.setitem(sys.modules, "torch", None)

    backend = open_backend(both)

    assert (backend.name, backend.device) == ("onnxruntime", "cpu")
    assert "tensorrt fp32 on cuda passed over" in backend.reason
    assert "no CUDA device on this host" in backend.reason


def test_auto_takes_torchscript_on_the_cpu_when_there_is_nothing_better(
    both: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="TorchScript needs torch")
    monkeypatch.setattr(host, "cuda_devices", lambda: 0)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    assert open_backend(both).name == "torchscript"


def test_auto_passes_over_a_hollow_runtime(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="TorchScript needs torch")
    monkeypatch.setattr(host, "cuda_devices", lambda: 0)
    monkeypatch.setitem(sys.modules, "onnxruntime", hollow("onnxruntime", "/somewhere"))

    backend = open_backend(both)

    assert backend.name == "torchscript"
    assert "a module without InferenceSession from /somewhere" in backend.reason


def test_tensorrt_asked_for_is_refused_clearly(
    both: Any, one_runtime: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "host_facts", lambda: dataclasses.replace(HOST, cuda=None, gpus=()))

    with pytest.raises(BackendUnavailableError, match=r"got none that fits\. The bundle has: onnxruntime"):
        open_backend(one_runtime("onnxruntime"), "tensorrt")
    with pytest.raises(BackendUnavailableError, match="expected an NVIDIA driver, got none that works"):
        open_backend(both, "tensorrt")


def test_host_without_a_gpu_is_routine(
    both: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host, "cuda_devices", lambda: 0)

    with caplog.at_level(logging.INFO, "clickmask"):
        open_backend(both)

    assert {record.levelname for record in caplog.records} == {"INFO"}


def test_request_outside_the_bundle_lists_bundle_and_host(one_runtime: Callable[[str], Any]) -> None:
    with pytest.raises(BackendUnavailableError) as caught:
        open_backend(one_runtime("onnxruntime"), "torchscript", "cuda")

    message = str(caught.value)
    assert "backend='torchscript' and device='cuda'" in message
    assert "The bundle has: onnxruntime fp32 for any." in message
    assert "This host has: " in message


def test_nothing_that_opens_lists_every_attempt(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "torch", None)

    with pytest.raises(BackendUnavailableError) as caught:
        open_backend(both, device="cpu")

    assert 'pip install "clickmask[cpu]"' in str(caught.value)
    assert 'pip install "clickmask[torchscript]"' in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "onnx"}, "backend: expected one of auto, onnxruntime"),
        ({"device": "gpu"}, "device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
        ({"device": "cuda:x"}, "device: expected"),
        ({"device": None}, "device: expected"),
        ({"threads": 0}, "threads: expected an integer of at least 1"),
        ({"threads": True}, "threads: expected"),
    ],
)
def test_options_that_do_not_exist(both: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        open_backend(both, **options)


def test_auto_takes_cuda_where_it_opens(
    one_runtime: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = one_runtime("onnxruntime")
    pretend_gpu(monkeypatch)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_onnxruntime([CUDA, CPU], [CUDA, CPU]))
    monkeypatch.setattr(cuda_device, "host_facts", lambda: HOST)
    monkeypatch.setattr(host, "cuda_devices", lambda: 1)

    assert open_backend(bundle).device == "cuda"
    assert open_backend(bundle, device="cuda:1").device == "cuda:1"


def test_a_backend_tells_which_artefact_it_runs(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="TorchScript needs torch")
    monkeypatch.setattr(host, "cuda_devices", lambda: 0)
    by_kind = {(a.backend, a.precision): a for a in both.manifest.artefacts}

    script = open_backend(both, "torchscript", "cpu")

    assert script.artefact is by_kind["torchscript", "fp32"]
    assert batched(open_backend(both), 2, 1).artefact is by_kind["onnxruntime", "fp32"]


def test_auto_falls_back_to_the_cpu_and_says_why(
    one_runtime: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = one_runtime("onnxruntime")
    pretend_gpu(monkeypatch)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_onnxruntime([CUDA, CPU], [CPU]))
    monkeypatch.setattr(cuda_device, "host_facts", lambda: HOST)
    monkeypatch.setattr(host, "cuda_devices", lambda: 1)

    with caplog.at_level(logging.INFO, "clickmask"):
        backend = open_backend(bundle)

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert backend.device == "cpu"
    assert "onnxruntime fp32 on cuda passed over: expected ONNX Runtime on cuda" in backend.reason
    assert backend.reason in caplog.text


# The host


@pytest.mark.parametrize(
    ("text", "device"), [("cpu", ("cpu", 0)), ("cuda", ("cuda", 0)), ("cuda:12", ("cuda", 12))]
)
def test_device_is_a_kind_and_an_index(text: str, device: tuple[str, int]) -> None:
    assert host.split_device(text) == device


def test_host_counts_at_least_one_core() -> None:
    assert host.physical_cores() >= 1


def test_host_respects_the_quota_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    files = {"/sys/fs/cgroup/cpu.max": "200000 100000"}
    monkeypatch.setattr(host, "_text", lambda path: files.get(path, ""))

    assert host.physical_cores() == 2


def test_host_counts_hyper_threads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    pairs = {
        f"/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}"
        for n in range(8)
    }
    monkeypatch.setattr(host, "_text", lambda path: pairs.get(path, ""))

    assert host.physical_cores() == 4


def test_host_without_a_driver_has_no_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(host.ctypes, "CDLL", missing)

    assert host.cuda_devices() == 0
