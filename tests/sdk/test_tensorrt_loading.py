"""What TensorRT and CUDA refuse, and the loading of plans, on doubles."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from bundles import (
    change_manifest,
    engine,
    file_entry,
    make_bundle,
    prompt,
    read_manifest,
)
from cuda_double import Error
from driver_double import Result
from gpu_machine import Machine, change_engine, truth
from tensorrt_double import HOST, FakeTensorRt

from clickmask.backends import open_backend, tensorrt
from clickmask.backends.host_facts import HostFacts, Package
from clickmask.bundle import load_bundle
from clickmask.errors import BackendError, BackendUnavailableError, BundleError

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


@pytest.mark.parametrize("call", ["cudaMallocHost", "cudaMemcpyAsync", "cudaStreamSynchronize"])
def test_an_error_of_cuda(machine: Machine, call: str) -> None:
    backend = machine.open()
    machine.cuda.fail[call] = Error.cudaErrorInvalidValue

    with pytest.raises(BackendError, match=f"CUDA device 0: {call} failed with cudaErrorInvalidValue: text"):
        backend.encode(prompt(1, 64)[0])


@pytest.mark.parametrize("call", ["cuInit", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent"])
def test_an_error_of_cudas_driver(machine: Machine, call: str) -> None:
    machine.cuda.driver.fail[call] = Result.CUDA_ERROR_INVALID_CONTEXT

    with pytest.raises(BackendError, match=f"{call} failed with CUDA_ERROR_INVALID_CONTEXT: text"):
        machine.open()


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
