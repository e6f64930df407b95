"""Whether this machine can build and verify what was asked for: found out before anything slow starts."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

from clickmask.backends import host
from clickmask_export.errors import TargetUnavailableError
from clickmask_export.graphs import Precision
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
    if backend == "torchscript":
        return Target(backend, "cuda" if trace_device(precision) == "cuda" else "cpu")
    if backend == "onnxruntime":
        missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise TargetUnavailableError(
                "an ONNX artefact is exported and then verified by running it, and this machine lacks "
                f'{", ".join(missing)}: pip install "clickmask[cpu,export]"'
            )
        return Target(backend, "any")
    raise TargetUnavailableError(_why_no_tensorrt())


def _why_no_tensorrt() -> str:
    missing = []
    if importlib.util.find_spec("tensorrt") is None:
        missing.append("the tensorrt package")
    if host.cuda_devices() == 0:
        missing.append("a usable NVIDIA GPU and driver")
    if missing:
        lacks = " and ".join(missing)
        return (
            f"a TensorRT plan is built on the GPU it will run on, and this machine lacks {lacks}: run "
            'pip install "clickmask[tensorrt]" on a machine with an NVIDIA GPU and its driver, or leave out '
            "--target tensorrt"
        )
    return (
        "this version of clickmask cannot build TensorRT plans yet: use --target onnxruntime or --target "
        "torchscript, both of which run on this GPU"
    )
