"""Whether this machine can build and verify what was asked for: found out before anything slow starts."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from clickmask.backends import host
from clickmask.backends.host_facts import Gpu, HostFacts, host_facts
from clickmask.manifest import Precision
from clickmask.plan_fit import verdict
from clickmask_export.errors import TargetUnavailableError
from clickmask_export.tensorrt_facts import engine_facts
from clickmask_export.tensorrt_options import PlanOptions
from clickmask_export.torchscript import trace_device

_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

TargetName = Literal["onnxruntime", "torchscript", "tensorrt"]


@dataclass(frozen=True)
class Target:
    """An artefact to make: for which runtime, and the devices that its manifest entry promises."""

    backend: TargetName
    device: Literal["any", "cpu", "cuda"]

    @property
    def verified_on(self) -> str:
        """The device of this machine that the artefact is compared on."""
        return "cuda" if self.device == "cuda" else "cpu"


def find_target(backend: TargetName, precision: Precision) -> Target:
    """The artefact that this machine can make for a runtime.

    Raises:
        TargetUnavailableError: it can make none; the message says what is missing and how to get it.
    """
    if precision == "int8":
        _require(_ONNX_PACKAGES, "the ranges of int8 are measured by running an ONNX file")
    if backend == "torchscript":
        if precision == "int8":
            raise TargetUnavailableError(
                "int8 is written in ONNX files, which TorchScript has none of: use --target onnxruntime or "
                "--target tensorrt"
            )
        return Target(backend, "cuda" if trace_device(precision) == "cuda" else "cpu")
    if backend == "onnxruntime":
        _require(_ONNX_PACKAGES, "an ONNX artefact is exported and then verified by running it")
        return Target(backend, "any")
    _check_tensorrt()
    return Target(backend, "cuda")


def _check_tensorrt() -> None:
    missing = []
    if importlib.util.find_spec("tensorrt") is None:
        missing.append("the tensorrt package")
    if host.cuda_devices() == 0:
        missing.append("a usable NVIDIA GPU and driver")
    if missing:
        lacks = " and ".join(missing)
        raise TargetUnavailableError(
            f"a TensorRT plan is built on the GPU it will run on, and this machine lacks {lacks}: run "
            'pip install "clickmask[tensorrt]" on a machine with an NVIDIA GPU and its driver, or leave out '
            "--target tensorrt"
        )
    _require(_ONNX_PACKAGES[:2], "a TensorRT plan is built from an ONNX file")
    # Whether what is about to be built would load here: driver, cuda-python, versions, contexts.
    if problem := why_no_plan_loads(host_facts()):
        raise TargetUnavailableError(
            f"a TensorRT plan is verified by running it, and none would load: {problem}"
        )


def why_no_plan_loads(facts: HostFacts) -> str | None:
    """What keeps this machine from loading a plan that it has built itself; None where nothing does."""
    version = "0.0.0" if facts.tensorrt is None else facts.tensorrt.version
    gpu = facts.gpus[0] if facts.gpus else Gpu("none", (0, 0))
    answer = verdict(engine_facts(version, gpu, PlanOptions(), ()), facts, trust_host_code=True)
    return None if answer.loads else answer.text


def _require(packages: Sequence[str], why: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise TargetUnavailableError(
            f'{why}, and this machine lacks {", ".join(missing)}: pip install "clickmask[cpu,export]"'
        )
