"""Machines whose device memory holds a session's image: a double of CUDA, and a GPU.

The double's device memory is host memory where fresh blocks are NaN or 255, and the kernels are those for the
processor. Queued work is done only when somebody waits for it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from cuda_double import FakeCuda, LateKernels

from clickmask import encode
from clickmask.backends.cuda_memory import DeviceArray, given_array
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

    def device(self, array: np.ndarray) -> DeviceArray:
        """As a backend holds it."""
        held = given_array(self.cuda, array.shape, str(array.dtype))
        self.fake.array(held.pointer, held.shape, held.dtype)[:] = array
        return held

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

    def device(self, array: np.ndarray) -> DeviceArray:
        tensor = self.torch.from_numpy(array).cuda()
        self.torch.cuda.synchronize()
        return DeviceArray(tensor.data_ptr(), array.shape, str(array.dtype), tensor)

    def host(self, array: Any) -> np.ndarray:
        return self.torch.as_tensor(array, device="cuda").cpu().numpy()


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def slope(seed: int = 0) -> np.ndarray:
    """Dark on the left, bright on the right, with noise."""
    noise = np.random.default_rng(seed).integers(-40, 41, (HEIGHT, WIDTH, 3))
    return np.clip(noise + np.linspace(0, 255, WIDTH)[:, None], 0, 255).astype(np.uint8)


def backend_of() -> FakeBackend:
    backend = FakeBackend(fake_manifest(threshold=THRESHOLD, input={"pad": list(PAD)}))
    backend.device, backend.takes_device_arrays = "cuda", True
    return backend


def pixels_of(machine: Any, image: Any = None) -> DevicePixels:
    image = machine.foreign(picture()) if image is None else image
    return DevicePixels(image, machine.cuda, machine.kernels, backend_of())


def logits_on(view: View) -> np.ndarray:
    """On the view's valid part, smooth."""
    width, height = view.valid_size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return (5 * np.sin(x / 6) * np.cos(y / 8)).astype(np.float32)


def padded(logits: np.ndarray, view: View) -> np.ndarray:
    """(1, 1, S, S), as a network gives them; nobody may look at the padding."""
    whole = np.full((1, 1, view.size, view.size), np.nan, np.float32)
    whole[0, 0, : logits.shape[0], : logits.shape[1]] = logits
    return whole


def assert_crops(machine: Any, pixels: DevicePixels, image: np.ndarray) -> None:
    for view in (OLD, NEW):
        found, expected = machine.host(pixels.crop(view)), encode.image_tensor(image, view, PAD)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 1.01 / 255
        assert np.abs(found - expected).mean() < 1e-4
