"""Which plans load where: a table of facts, each refusal with both values and what to do."""

from __future__ import annotations

import ctypes
import dataclasses
from typing import Any

import pytest
from bundles import engine, facts_of
from tensorrt_double import HOST

from clickmask.backends import host_facts
from clickmask.backends.host_facts import Gpu, Package
from clickmask.plan_fit import verdict

LEAN = {"version_compatible": True, "flavour": "lean"}
PORTABLE = {"version_compatible": True, "lean_runtime_inside": True}


def cu13(version: str) -> dict[str, Any]:
    return {"tensorrt": Package("tensorrt-cu13", version)}


def decide(facts: dict[str, Any], host: dict[str, Any], **options: Any) -> Any:
    return verdict(facts_of(engine(**facts)), dataclasses.replace(HOST, **host), **options)


# Facts of the plan (of TensorRT 11.4.0.106 for an H100), facts of the host (the same), and who loads it.
LOADS = [
    ({}, {}, "tensorrt"),
    ({}, {"gpus": (Gpu("NVIDIA H100 80GB HBM3", (9, 0)),)}, "tensorrt"),
    (
        {"hardware_compatibility": "same_compute_capability"},
        {"gpus": (Gpu("NVIDIA H200", (9, 0)),)},
        "tensorrt",
    ),
    ({"hardware_compatibility": "ampere_plus"}, {"gpus": (Gpu("NVIDIA A10", (8, 6)),)}, "tensorrt"),
    ({"hardware_compatibility": "ampere_plus"}, {"gpus": (Gpu("RTX 5090", (12, 0)),)}, "tensorrt"),
    (PORTABLE | {"tensorrt": "11.0.0.114"}, {}, "tensorrt"),
    (PORTABLE | {"tensorrt": "11.4.0.105"}, {}, "tensorrt"),
    (PORTABLE | {"tensorrt": "10.12.0.36"}, {}, "tensorrt"),
    (PORTABLE | {"tensorrt": "10.12.0.36"}, cu13("10.16.1.11"), "tensorrt"),
    ({"version_compatible": True}, {}, "tensorrt"),
    ({}, cu13("11.4.0"), "tensorrt"),
    (LEAN, {"tensorrt": None, "tensorrt_lean": Package("tensorrt-lean-cu13", "11.4.0.106")}, "tensorrt_lean"),
    (
        LEAN | {"tensorrt": "11.2.0.1"},
        {"tensorrt_lean": Package("tensorrt-lean-cu13", "11.2.0.1")},
        "tensorrt_lean",
    ),
    (LEAN, {"tensorrt_lean": Package("tensorrt-lean-cu13", "11.4.0.106")}, "tensorrt"),
    (
        {},
        {"tensorrt": Package("tensorrt-cu12", "11.4.0.106"), "cuda": (12, 2), "cuda_bindings": "12.9.1"},
        "tensorrt",
    ),
]


@pytest.mark.parametrize(("facts", "host", "module"), LOADS)
def test_plan_that_loads(facts: dict[str, Any], host: dict[str, Any], module: str) -> None:
    answer = decide(facts, host, trust_host_code=True)

    assert (answer.loads, answer.module) == (True, module), answer.text


# ... and what both values and the remedy are.
REFUSED = [
    (
        {"platform": "windows amd64"},
        {},
        "expected a plan for linux x86_64, got one for windows amd64; rebuild",
    ),
    ({}, {"cuda": None, "gpus": ()}, "expected an NVIDIA driver, got none that works; install one"),
    ({}, {"gpus": ()}, "expected CUDA device 0, got 0 CUDA device(s); check nvidia-smi"),
    (
        {},
        {"gpus": (Gpu("NVIDIA H200", (9, 0)),)},
        "expected the GPU of the plan, NVIDIA H100 80GB HBM3 with compute capability 9.0, got NVIDIA H200 "
        "with compute capability 9.0; use another artefact or rebuild here: python export/build_engine.py",
    ),
    (
        {"hardware_compatibility": "same_compute_capability"},
        {"gpus": (Gpu("NVIDIA A10", (8, 6)),)},
        "expected the compute capability of the plan, built on NVIDIA H100 80GB HBM3 with compute capability "
        "9.0, got NVIDIA A10 with compute capability 8.6",
    ),
    (
        {"hardware_compatibility": "ampere_plus"},
        {"gpus": (Gpu("Tesla T4", (7, 5)),)},
        "expected compute capability 8.0 or more, as the plan was built for ampere_plus, got Tesla T4",
    ),
    (
        {},
        {"tensorrt": None},
        'expected TensorRT 11.4.0.106, got none installed; run: pip install "clickmask[',
    ),
    (
        {},
        cu13("11.4.0.107"),
        "expected TensorRT 11.4.0.106, as the plan is not version-compatible, got tensorrt-cu13 11.4.0.107; "
        'run: pip install "tensorrt-cu13==11.4.0.106" or rebuild here',
    ),
    ({}, cu13("10.16.1.11"), "expected TensorRT 11.4.0.106, as the plan is not version-compatible, got"),
    (
        PORTABLE,
        cu13("11.3.0.99"),
        "expected TensorRT 11.4.0.106 or later, as no plan loads on an earlier one",
    ),
    (PORTABLE, cu13("10.16.1.11"), "expected TensorRT 11.4.0.106 or later, as no plan loads on an earlier"),
    (PORTABLE | {"tensorrt": "8.6.1.6"}, {}, "expected TensorRT 8.x, got tensorrt-cu13 11.4.0.106"),
    (
        {"version_compatible": True, "tensorrt": "11.2.0.1"},
        {},
        "expected TensorRT 11.2.0.1, as the plan carries no lean runtime for later ones, got tensorrt-cu13",
    ),
    ({"tensorrt": "12.0.0.1"}, cu13("12.0.0.1"), "expected TensorRT 10.12 to 11, got tensorrt-cu13 12.0.0.1"),
    (
        {"tensorrt": "10.3.0.26"},
        cu13("10.3.0.26"),
        "expected TensorRT 10.12 to 11, got tensorrt-cu13 10.3.0.26",
    ),
    (
        {},
        {"tensorrt": Package("tensorrt-cu12", "11.3.0.1"), "cuda": (12, 2)},
        'run: pip install "tensorrt-cu12==11.4.0.106"',
    ),
    (
        {},
        {"tensorrt": None, "tensorrt_lean": Package("tensorrt-lean-cu13", "11.4.0.106")},
        "expected the full TensorRT for this plan, got tensorrt-lean-cu13 11.4.0.106",
    ),
    (
        LEAN | {"stripped": True},
        {"tensorrt": None, "tensorrt_lean": Package("tensorrt-lean-cu13", "11.4.0.106")},
        "expected the full TensorRT for a plan without weights, got tensorrt-lean-cu13",
    ),
    (
        {},
        {"cuda": (12, 8)},
        "expected a driver for CUDA 13.0, as tensorrt-cu13 11.4.0.106 needs, got one for CUDA 12.8; install "
        "driver r580 or newer",
    ),
    (
        {},
        {"tensorrt": Package("tensorrt-cu12", "11.4.0.106"), "cuda": (12, 1)},
        "expected a driver for CUDA 12.2, as tensorrt-cu12 11.4.0.106 needs, got one for CUDA 12.1",
    ),
    (
        {},
        {"cuda_bindings": None},
        'expected cuda-python, got no installed distribution of it; run: pip install "',
    ),
    (
        {},
        {"tensorrt": Package("tensorrt-cu12", "11.4.0.106"), "cuda": (12, 4)},
        'expected cuda-python 12.x, as the driver serves CUDA 12.4, got 13.4.4; run: pip install "cuda',
    ),
    (PORTABLE, {}, "expected trust_host_code=True for a plan that carries a lean runtime, which is code"),
    (
        {},
        {"foreign_context": True},
        "expected the device's primary CUDA context, got another one, as pycuda.autoinit makes; import "
        "pycuda.autoprimaryctx in its place",
    ),
]


@pytest.mark.parametrize(("facts", "host", "text"), REFUSED)
def test_plan_that_does_not_load(facts: dict[str, Any], host: dict[str, Any], text: str) -> None:
    answer = decide(facts, host)

    assert (answer.loads, answer.module) == (False, None)
    assert text in answer.text


def test_the_device_asked_for_decides() -> None:
    gpus = (Gpu("NVIDIA A10", (8, 6)), HOST.gpus[0])

    assert not decide({}, {"gpus": gpus}, index=0).loads
    assert decide({}, {"gpus": gpus}, index=1).loads
    assert "expected CUDA device 2, got 2 CUDA device(s)" in decide({}, {"gpus": gpus}, index=2).text


# What the host says, on a driver that is not there


class Driver:
    """libcuda with two devices; ``current`` and ``primary`` are contexts, 0 for none."""

    def __init__(self, current: int = 0, primary: int = 0, init: int = 0) -> None:
        self.current, self.primary, self.init, self.released = current, primary, init, 0

    def cuInit(self, flags: int) -> int:
        return self.init + flags

    def cuDriverGetVersion(self, out: Any) -> int:
        out._obj.value = 13020
        return 0

    def cuDeviceGetCount(self, out: Any) -> int:
        out._obj.value = 2
        return 0

    def cuDeviceGet(self, out: Any, index: int) -> int:
        out._obj.value = 10 + index
        return 0

    def cuDeviceGetName(self, out: Any, size: int, device: Any) -> int:
        out.value = f"GPU {device.value}".encode()[:size]
        return 0

    def cuDeviceGetAttribute(self, out: Any, number: int, device: Any) -> int:
        out._obj.value = {75: 8, 76: device.value - 10}[number]
        return 0

    def cuCtxGetCurrent(self, out: Any) -> int:
        out._obj.value = self.current or None
        return 0

    def cuCtxGetDevice(self, out: Any) -> int:
        out._obj.value = 10
        return 0

    def cuDevicePrimaryCtxGetState(self, _device: Any, _flags: Any, active: Any) -> int:
        active._obj.value = int(self.primary != 0)
        return 0

    def cuDevicePrimaryCtxRetain(self, out: Any, _device: Any) -> int:
        out._obj.value = self.primary
        self.released -= 1
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, _device: Any) -> int:
        self.released += 1
        return 0


def test_driver_is_asked_for_version_and_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver())

    facts = host_facts.host_facts()

    assert facts.cuda == (13, 2)
    assert facts.gpus == (Gpu("GPU 10", (8, 0)), Gpu("GPU 11", (8, 1)))


def test_no_driver_and_a_driver_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    for library in (missing, lambda _: Driver(init=999)):
        monkeypatch.setattr(ctypes, "CDLL", library)
        facts = host_facts.host_facts()
        assert (facts.cuda, facts.gpus, facts.foreign_context) == (None, (), False)


@pytest.mark.parametrize(
    ("current", "primary", "foreign"),
    [(0, 0, False), (0, 7, False), (7, 7, False), (8, 7, True), (8, 0, True)],
)
def test_context_that_is_not_the_primary_one(
    monkeypatch: pytest.MonkeyPatch, current: int, primary: int, foreign: bool
) -> None:
    driver = Driver(current, primary)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)

    assert host_facts.host_facts().foreign_context is foreign
    assert driver.released == 0


def test_packages_are_found_by_their_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"tensorrt": "11.4.0.106", "tensorrt-cu13": "11.4.0.106", "tensorrt-lean-cu12": "10.12.0.36"}
    monkeypatch.setattr(host_facts, "installed", versions.get)

    facts = host_facts.host_facts()

    assert facts.tensorrt == Package("tensorrt-cu13", "11.4.0.106")
    assert facts.tensorrt_lean == Package("tensorrt-lean-cu12", "10.12.0.36")
    assert facts.cuda_bindings is None
