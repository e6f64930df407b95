"""Pretended GPU boxes, the pipelines that run on them, and what they should give."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import (
    DIFFUSION,
    change_manifest,
    engine,
    expected_diffusion,
    expected_logits,
    make_bundle,
    read_manifest,
)
from cuda_double import FakeCuda, LateDiffusion, LateKernels
from onnxruntime_double import FakeOnnxRuntime
from tensorrt_double import HOST, FakeTensorRt, pretend_gpu

from clickmask.backends import cuda_device, device_pixels, diffusion, lane_backend, open_backend
from clickmask.backends.device_diffusion import declared
from clickmask.backends.lane_backend import LaneBackend
from clickmask.bundle import load_bundle
from clickmask.errors import BackendUnavailableError


@dataclass
class Machine:
    """A pretended GPU box.

    Attributes:
        cuda: Its CUDA.
        trt: Its TensorRT.
        ort: Its ONNX Runtime.
        folder: Where bundles are written.
        runtime: Whose backend ``open`` gives.
    """

    cuda: FakeCuda
    trt: FakeTensorRt
    ort: FakeOnnxRuntime
    folder: Path
    runtime: str = "tensorrt"

    def open(self, change: Callable[[Path], None] = lambda _: None, **options: Any) -> LaneBackend:
        """A backend on a fresh bundle; ``change`` may alter its folder first."""
        device, trust = options.pop("device", "cuda"), options.pop("trust_host_code", False)
        place = options.pop("place", "auto")
        folder = make_bundle(self.folder, backends=(self.runtime,), **options)
        change(folder)
        backend = open_backend(
            load_bundle(folder), self.runtime, device, pixel_diffusion=place, trust_host_code=trust
        )
        assert isinstance(backend, LaneBackend)
        return backend


def pretended(monkeypatch: pytest.MonkeyPatch, folder: Path, runtime: str, kernels: Any = None) -> Machine:
    """Make this process believe that it is on a GPU box, with compiled kernels only where some are given."""

    def found() -> Any:
        if kernels is None:
            raise BackendUnavailableError("not built")
        return LateKernels(kernels, trt.cuda)

    trt = pretend_gpu(monkeypatch)
    for module in (device_pixels, lane_backend):
        monkeypatch.setattr(module, "view_kernels", found)
    if kernels is not None:
        late = LateDiffusion(declared(kernels._library), trt.cuda)
        monkeypatch.setattr(diffusion, "diffusion_library", lambda: late)
    ort = FakeOnnxRuntime(trt.cuda)
    monkeypatch.setitem(sys.modules, "onnxruntime", ort.module)
    monkeypatch.setattr(cuda_device, "host_facts", lambda: HOST)
    return Machine(trt.cuda, trt, ort, folder, runtime)


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


def truth(
    pipeline: dict[str, Any], image: np.ndarray, clicks: np.ndarray, mask: np.ndarray | None
) -> np.ndarray:
    masked = pipeline.get("input", {}).get("previous_mask", True)
    logits = expected_logits(image, clicks, mask if masked else None, pipeline.get("encodes_once", False))
    return expected_diffusion(image, clicks, logits) if "pixel_diffusion" in pipeline else logits
