"""Machines whose device memory holds a session's image: a double of CUDA, and a GPU.

The double's device memory is host memory where fresh blocks are NaN or 255, and the kernels are those for the
processor. Queued work is done only when somebody waits for it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from cuda_double import FakeCuda

from clickmask import encode
from clickmask.backends.cuda_runtime import CudaRuntime
from clickmask.backends.device_kernels import ViewKernels
from clickmask.backends.device_pixels import DevicePixels
from clickmask.backends.fake import FakeBackend, fake_manifest
from clickmask.backends.host_facts import Gpu, HostFacts
from clickmask.view import Box, View

HERE = HostFacts("linux x86_64", (13, 0), (Gpu("a GPU", (9, 0)),), None, None, "13.0.0")
PAD, THRESHOLD = (0.25, 0.5, 0.75), 0.4
WIDTH, HEIGHT = 150, 110
OLD, NEW = View(Box(0, 0, WIDTH, HEIGHT), 64), View(Box(30, 20, 100, 90), 96)


class LateKernels:
    """The kernels for the processor, run when the stream is waited for."""

    def __init__(self, kernels: ViewKernels, cuda: FakeCuda) -> None:
        self.kernels, self.cuda = kernels, cuda

    def __getattr__(self, name: str) -> Any:
        def queued(*arguments: Any) -> None:
            self.cuda.put(arguments[-1], lambda: getattr(self.kernels, name)(*arguments))

        return queued


class Double:
    """A machine with a double of CUDA."""

    def __init__(self, kernels: ViewKernels, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fake = FakeCuda()
        for name, module in self.fake.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
        self.cuda = CudaRuntime(0)
        self.kernels: Any = LateKernels(kernels, self.fake)

    def foreign(self, array: np.ndarray, stream: int | None = None) -> Any:
        """As another library would hold it in device memory."""
        return Foreign(array, stream)

    def host(self, array: Any) -> np.ndarray:
        if isinstance(array, Foreign):
            return array.memory
        return self.fake.array(array.pointer, array.shape, array.dtype).copy()


class Foreign:
    def __init__(self, array: np.ndarray, stream: int | None) -> None:
        self.memory = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": array.strides,
            "version": 3,
            "stream": stream,
        }


class RealGpu:
    """The machine's GPU; arrays of another library are torch's."""

    def __init__(self, kernels: ViewKernels) -> None:
        import torch

        self.torch, self.kernels = torch, kernels
        self.cuda = CudaRuntime(0)

    def foreign(self, array: np.ndarray, stream: int | None = None) -> Any:  # noqa: ARG002 - torch tells its own
        return self.torch.from_numpy(array).cuda()

    def host(self, array: Any) -> np.ndarray:
        return self.torch.as_tensor(array, device="cuda").cpu().numpy()


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def backend_of(takes_device_arrays: bool = False) -> FakeBackend:
    backend = FakeBackend(fake_manifest(threshold=THRESHOLD, input={"pad": list(PAD)}))
    backend.device, backend.takes_device_arrays = "cuda", takes_device_arrays
    return backend


def pixels_of(machine: Any, image: Any = None, takes_device_arrays: bool = False) -> DevicePixels:
    image = machine.foreign(picture()) if image is None else image
    return DevicePixels(image, machine.cuda, machine.kernels, backend_of(takes_device_arrays))


def logits_on(view: View) -> np.ndarray:
    """On the view's valid part, smooth."""
    width, height = view.valid_size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return (5 * np.sin(x / 6) * np.cos(y / 8)).astype(np.float32)


def assert_crops(pixels: DevicePixels, image: np.ndarray) -> None:
    for view in (OLD, NEW):
        found, expected = pixels.crop(view), encode.image_tensor(image, view, PAD)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 1.01 / 255
        assert np.abs(found - expected).mean() < 1e-4
