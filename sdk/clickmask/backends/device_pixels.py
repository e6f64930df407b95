"""The pixels of one image in device memory: crops are cut and masks painted there.

To the host come only crops of the network's size.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..crop import View
from ..errors import BackendUnavailableError, InvalidInputError
from . import host
from .cuda_memory import DevicePool, PinnedArrays
from .cuda_runtime import CudaRuntime
from .device_arrays import ForeignArray, check_mask_target, foreign_array, image_strides, refuse_host_memory
from .device_kernels import ImageStruct, ViewKernels, view_kernels
from .host_facts import host_facts


def device_pixels(image: Any, device: str, pad: Sequence[float], threshold: float) -> DevicePixels:
    """Take an image in device memory.

    Args:
        image: as for `DevicePixels`.
        device: "cuda" or "cuda:N", where the image is.
        pad: RGB of the padding, each in [0, 1].
        threshold: of the mask, in (0, 1).

    Raises:
        InvalidInputError: not such an image, or one on another device.
        BackendUnavailableError: no GPU, no cuda-python, no compiled kernels, or a context other than the
            device's primary one; the message says what to do.
    """
    refuse_host_memory(image, "image")  # on every machine, with a GPU or without
    kind, index = host.split_device(device)
    facts = host_facts()
    if kind != "cuda" or index >= len(facts.gpus):
        raise BackendUnavailableError(
            f"expected a CUDA device for an image in device memory, got {device} with {len(facts.gpus)} CUDA "
            "device(s) found; check nvidia-smi, or pass a NumPy array"
        )
    if facts.foreign_context:
        raise BackendUnavailableError(
            "expected the device's primary CUDA context, got another one, as pycuda.autoinit makes; import "
            "pycuda.autoprimaryctx in its place"
        )
    try:
        cuda = CudaRuntime(index)
    except ImportError as exc:
        raise BackendUnavailableError(
            f'expected cuda-python to import, got: {exc}; run: pip install "clickmask[tensorrt]"'
        ) from exc
    return DevicePixels(image, cuda, view_kernels(), pad, threshold)


class DevicePixels:
    """An image on a CUDA device, as a session needs it. Safe from many threads.

    The image is not copied: its memory is held until the last user of this object goes, and its pixels must
    not change meanwhile. Every array that is returned is complete.

    Attributes:
        image_size: (width, height) in pixels.
        holds: what keeps the image's memory.
    """

    def __init__(
        self,
        image: Any,
        cuda: CudaRuntime,
        kernels: ViewKernels,
        pad: Sequence[float],
        threshold: float,
    ) -> None:
        """Take an image.

        Args:
            image: (H, W, 3) RGB, (H, W, 4) RGBA, (H, W) or (H, W, 1) grey; uint8; any strides; with
                `__cuda_array_interface__` or DLPack, on the device of `cuda`.
            cuda: the device.
            kernels: what works on it.
            pad: RGB of the padding, each in [0, 1].
            threshold: of the mask, in (0, 1).

        Raises:
            InvalidInputError: not such an image, or one on another device.
            BackendError: CUDA failed.
        """
        self._cuda, self._pool, self._kernels = cuda, DevicePool(cuda), kernels
        self._pad, self._threshold = tuple(pad), threshold
        self._pinned, self._copying = PinnedArrays(cuda), threading.Lock()
        with cuda.current():
            self._stream = cuda.new_stream()
            resources = (cuda, self._stream, self._pinned, self._pool)
            weakref.finalize(self, _free, *resources).atexit = False
            foreign = self._taken(image, "image")
            strides = image_strides(foreign)
        self.holds = foreign.owner
        height, width = foreign.shape[:2]
        self.image_size = (width, height)
        self._image = ImageStruct(foreign.pointer, (ctypes.c_int64 * 3)(*strides), height, width)

    def crop(self, view: View) -> NDArray[np.float32]:
        """The network's image in host memory, as `encode.image_tensor` gives it.

        Returns:
            (1, 3, S, S) float32 RGB in [0, 1].
        """
        with self._cuda.current(), self._copying:
            out = self._pool.take((1, 3, view.size, view.size), "float32")
            pinned = self._pinned.array("crop", out.shape, out.dtype)
            self._kernels.crop(view, self._image, self._pad, out.pointer, int(self._stream))
            self._cuda.copy(pinned.ctypes.data, out.pointer, out.nbytes, self._stream)
            self._cuda.synchronize(self._stream)
            return pinned.copy()

    def device_mask(self, logits: NDArray[np.float32], view: View, out: Any = None) -> Any:
        """The mask in device memory.

        Args:
            logits: (h', w') float32, the network's output on the view's valid part, in host memory.
            view: the view that they are on.
            out: (H, W) bool or uint8 on this device, C-contiguous and writable, to be filled with 0 and 1;
                None for a new array.

        Returns:
            `out`; or a new (H, W) bool array with `__cuda_array_interface__`.

        Raises:
            InvalidInputError: `logits` or `out` is no such array.
        """
        expected = view.valid_size[::-1]
        if logits.shape != expected or logits.dtype != np.float32:
            raise InvalidInputError(
                f"logits: expected {expected} float32 of this view, but got {logits.shape} {logits.dtype}"
            )
        with self._cuda.current():
            if out is None:
                out = self._pool.take(self.image_size[::-1], "bool")
                self._paste(logits, view, out.pointer)
            else:
                target = self._taken(out, "out")
                check_mask_target(target, self.image_size)
                self._paste(logits, view, target.pointer)
        return out

    # What follows is called with the device current.

    def _paste(self, logits: NDArray[np.float32], view: View, out: int) -> None:
        with self._copying:
            given = self._pool.take(logits.shape, "float32")
            pinned = self._pinned.array("logits", logits.shape, "float32")
            np.copyto(pinned, logits)
            self._cuda.copy(given.pointer, pinned.ctypes.data, given.nbytes, self._stream)
            paint = (self.image_size, self._threshold, out, int(self._stream))
            self._kernels.paste(view, given.pointer, *paint)
            self._cuda.synchronize(self._stream)

    def _taken(self, array: Any, name: str) -> ForeignArray:
        """An array of another library, the work that fills it done."""
        foreign = foreign_array(array, name)
        cudart = self._cuda.cudart
        place = self._cuda.call(cudart.cudaPointerGetAttributes, foreign.pointer)
        on_device = place.type == cudart.cudaMemoryType.cudaMemoryTypeDevice
        if not on_device and place.type != cudart.cudaMemoryType.cudaMemoryTypeManaged:
            raise InvalidInputError(f"{name}: expected memory of a CUDA device, but got that of the host")
        if on_device and place.device != self._cuda.index:
            raise InvalidInputError(
                f"{name}: expected an array on cuda:{self._cuda.index}, where the network runs, but got "
                f"one on cuda:{place.device}; copy it there"
            )
        if foreign.stream is not None:
            self._cuda.synchronize(foreign.stream)
        return foreign


def _free(cuda: CudaRuntime, stream: Any, pinned: PinnedArrays, pool: DevicePool) -> None:
    with cuda.current():
        pinned.close()
        pool.close()  # what is in use goes when its last user does
        cuda.free_stream(stream)
