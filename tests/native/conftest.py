"""The compiled library where it was built, and fresh builds of the kernels for a device, once for all tests.

Where one cannot be had the tests that need it skip and say why.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))  # reference_pixel_diffusion
sys.path.insert(0, str(Path(__file__).parents[1] / "sdk"))  # cuda_double, gpu_machine

from device_machines import Double, RealGpu
from view_builds import on_cuda, on_processor

from clickmask import native_library
from clickmask.backends.device_kernels import ViewKernels


@pytest.fixture(scope="session")
def native():
    """The binding, with its library."""
    if reason := native_library.unavailable_because():
        if os.environ.get("CLICKMASK_NATIVE") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return native_library


@pytest.fixture(scope="session")
def host_kernels(root: Path, tmp_path_factory: pytest.TempPathFactory) -> ViewKernels:
    """The device's arithmetic for the processor."""
    return on_processor(root, tmp_path_factory.mktemp("on_host"))


@pytest.fixture(scope="session")
def cuda_kernels(root: Path, tmp_path_factory: pytest.TempPathFactory) -> ViewKernels:
    """The kernels for a GPU."""
    return on_cuda(root, tmp_path_factory.mktemp("on_gpu"))


@pytest.fixture
def double(host_kernels: ViewKernels, monkeypatch: pytest.MonkeyPatch) -> Double:
    """A machine with a double of CUDA."""
    return Double(host_kernels, monkeypatch)


@pytest.fixture
def real_gpu(cuda_kernels: ViewKernels) -> RealGpu:
    """This machine's GPU."""
    pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-python")
    return RealGpu(cuda_kernels)


@pytest.fixture(params=["double", pytest.param("real_gpu", marks=pytest.mark.gpu)])
def machine(request: pytest.FixtureRequest) -> Any:
    """Both, one after the other."""
    return request.getfixturevalue(request.param)
