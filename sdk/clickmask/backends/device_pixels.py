"""The pixels of one image in device memory: crops are cut and masks painted there.

Crops stay there where the network takes them so. Masks come to the host as bits: an eighth of the bytes,
which the host unpacks quicker than the bus would bring the rest.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, InvalidInputError
from ..image import image_sha256
from ..paste import Painted
from ..view import Box, View
from .base import Backend
from .cuda_device import cuda_device, cuda_runtime
from .cuda_memory import DeviceArray, DevicePool, PinnedArrays
from .cuda_runtime import CudaRuntime
from .device_arrays import ForeignArray, check_mask_target, foreign_array, image_strides, refuse_host_memory
from .device_kernels import ImageStruct, ViewKernels, view_kernels
from .host import split_device


def device_pixels(image: Any, backend: Backend) -> DevicePixels:
    """Take an image in device memory.

    Args:
        image: as for `DevicePixels`.
        backend: what will run the network, on the device that the image is on.

    Raises:
        InvalidInputError: not such an image, or one on another device.
        BackendUnavailableError: no GPU, no cuda-python, no compiled kernels, or a context other than the
            device's primary one; the message says what to do.
    """
    refuse_host_memory(image, "image")  # on every machine, with a GPU or without
    purpose, remedy = "an image in device memory", "pass a NumPy array"
    cuda = cuda_device(backend.device, purpose, remedy, "tensorrt")
    return DevicePixels(image, cuda, view_kernels(), backend)


def uploaded_pixels(image: NDArray[np.uint8], backend: Backend) -> UploadedPixels:
    """Copy an image to the device of a backend, where it stays for the session.

    Args:
        image: (H, W, 3) uint8 RGB, C-contiguous, in host memory.
        backend: what will run the network, on a CUDA device.

    Raises:
        BackendUnavailableError: no compiled kernels, or no cuda-python.
        BackendError: it would leave less than a quarter of the memory there free, or CUDA failed.
    """
    kernels = view_kernels()
    return UploadedPixels(image, cuda_runtime(split_device(backend.device)[1], "tensorrt"), kernels, backend)


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
        backend: Backend,
    ) -> None:
        """Take an image.

        Args:
            image: (H, W, 3) RGB, (H, W, 4) RGBA, (H, W) or (H, W, 1) grey; uint8; any strides; with
                `__cuda_array_interface__` or DLPack, on the device of `cuda`.
            cuda: the device.
            kernels: what works on it.
            backend: what will run the network there.

        Raises:
            InvalidInputError: not such an image, or one on another device.
            BackendError: CUDA failed.
        """
        self._cuda, self._pool, self._kernels = cuda, DevicePool(cuda), kernels
        manifest = backend.manifest
        self._pad, self._threshold = tuple(manifest.input.pad), manifest.threshold
        self._crops_stay = backend.takes_device_arrays
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

    def crop(self, view: View) -> NDArray[np.float32] | DeviceArray:
        """The network's image, as `encode.image_tensor` gives it.

        Returns:
            (1, 3, S, S) float32 RGB in [0, 1], on the device where the backend takes it so.
        """
        with self._cuda.current(), self._copying:
            out = self._pool.take((1, 3, view.size, view.size), "float32")
            self._kernels.crop(view, self._image, self._pad, out.pointer, int(self._stream))
            if self._crops_stay:
                self._cuda.synchronize(self._stream)
                return out
            pinned = self._pinned.array("crop", out.shape, out.dtype)
            self._cuda.copy(pinned.ctypes.data, out.pointer, out.nbytes, self._stream)
            self._cuda.synchronize(self._stream)
            return pinned.copy()

    def paint(self, logits: NDArray[np.float32], view: View) -> Painted:
        """The mask in host memory; see `paste.paste_with_box`."""
        box = view.box
        width, height = self.image_size
        out = np.zeros((height, width), np.bool_)
        bits = self._bits(logits, view)
        out[box.slices] = np.unpackbits(bits, axis=1, count=box.width).view(np.bool_)
        return Painted(out, _box_of(bits, view))

    def find(self, logits: NDArray[np.float32], view: View) -> Box | None:
        """The box of that mask; see `paste.paste_box`."""
        return _box_of(self._bits(logits, view), view)

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
            given = self._upload(logits, view)
            paint = (self.image_size, self._threshold, out, int(self._stream))
            self._kernels.paste(view, given.pointer, *paint)
            self._cuda.synchronize(self._stream)

    def _bits(self, logits: NDArray[np.float32], view: View) -> NDArray[np.uint8]:
        """The view's box of the mask, packed by rows, in host memory."""
        with self._cuda.current(), self._copying:
            given = self._upload(logits, view)
            out = self._pool.take((view.box.height, (view.box.width + 7) // 8), "uint8")
            self._kernels.bits(view, given.pointer, self._threshold, out.pointer, int(self._stream))
            pinned = self._pinned.array("bits", out.shape, out.dtype)
            self._cuda.copy(pinned.ctypes.data, out.pointer, out.nbytes, self._stream)
            self._cuda.synchronize(self._stream)
            return pinned.copy()

    def _upload(self, logits: NDArray[np.float32], view: View) -> DeviceArray:
        expected = view.valid_size[::-1]
        if logits.shape != expected or logits.dtype != np.float32:
            raise InvalidInputError(
                f"logits: expected {expected} float32 of this view, but got {logits.shape} {logits.dtype}"
            )
        given = self._pool.take(logits.shape, "float32")
        pinned = self._pinned.array("logits", logits.shape, "float32")
        np.copyto(pinned, logits)
        self._cuda.copy(given.pointer, pinned.ctypes.data, given.nbytes, self._stream)
        return given

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


class UploadedPixels(DevicePixels):
    """A host image's copy on the device. The image must not change either: its hash is asked for late."""

    def __init__(
        self, image: NDArray[np.uint8], cuda: CudaRuntime, kernels: ViewKernels, backend: Backend
    ) -> None:
        """Copy an image; see `uploaded_pixels`."""
        self._host = image
        with cuda.current():
            free, total = cuda.free_and_total()
            if free - image.nbytes < total // 4:  # which networks and crops need more
                raise BackendError(
                    f"expected a quarter of {total >> 20} MiB left free beside an image of "
                    f"{image.nbytes >> 20} MiB, got {free >> 20} MiB free"
                )
            pool = DevicePool(cuda)
            held = pool.take(image.shape, "uint8")
            pool.close()  # it has this one array, and frees it when that goes
            cuda.upload(held.pointer, image.ctypes.data, held.nbytes)
        super().__init__(held, cuda, kernels, backend)

    def sha256(self) -> str:
        """Of the RGB pixels; see `image.image_sha256`."""
        return image_sha256(self._host)


def _box_of(bits: NDArray[np.uint8], view: View) -> Box | None:
    """The tight box, in the image, of a view's packed mask; None where it is empty."""
    rows = np.flatnonzero(bits.any(axis=1))
    if not rows.size:
        return None
    columns = np.flatnonzero(np.unpackbits(np.bitwise_or.reduce(bits, axis=0)))
    x, y = view.box.x0, view.box.y0
    return Box(x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1)


def _free(cuda: CudaRuntime, stream: Any, pinned: PinnedArrays, pool: DevicePool) -> None:
    with suppress(BackendError), cuda.current():  # nobody is there to hear of it
        pinned.close()
        pool.close()  # what is in use goes when its last user does
        cuda.free_stream(stream)
