"""The pixels of one image in device memory: crops are cut, logits blended and masks painted there.

Of a click nothing comes to the host but the mask, as bits: an eighth of the bytes, and the host would go over
them once more in either case, into the memory that the application gets.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import paste
from ..clicks import Click
from ..errors import BackendError, BackendUnavailableError, InvalidInputError
from ..image import image_sha256
from ..mask_memory import MaskMemory
from ..paste import Painted
from ..view import Box, View
from .base import Backend, Features
from .cuda_device import cuda_device, cuda_runtime
from .cuda_memory import DeviceArray, PinnedArrays, given_array
from .cuda_runtime import CudaRuntime
from .device_arrays import ForeignArray, check_mask_target, foreign_array, image_strides, refuse_host_memory
from .device_kernels import ImageStruct, ViewKernels, view_kernels
from .host import split_device
from .shared_pool import shared_pool


def device_pixels(image: Any, backend: Backend) -> DevicePixels:
    """Take an image in device memory.

    Args:
        image: as for `DevicePixels`.
        backend: what will run the network, on the device that the image is on.

    Raises:
        InvalidInputError: not such an image, or one on another device.
        BackendUnavailableError: no GPU, no cuda-python, no compiled kernels, a context other than the
            device's primary one, or a backend that takes host arrays only; the message says what to do.
    """
    refuse_host_memory(image, "image")  # on every machine, with a GPU or without
    purpose, remedy = "an image in device memory", "pass a NumPy array"
    cuda = cuda_device(backend.device, purpose, remedy, "tensorrt")
    if not backend.takes_device_arrays:
        raise BackendUnavailableError(
            f"expected a backend that takes {purpose}, got {backend.name}, which takes host arrays; {remedy}"
        )
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
        self._cuda, self._kernels = cuda, kernels
        manifest = backend.manifest
        self._pad, self._threshold = tuple(manifest.input.pad), manifest.threshold
        self._pinned, self._one_at_a_time = PinnedArrays(cuda), threading.Lock()
        with cuda.current():
            self._shared = shared_pool(cuda)
            self._pool = self._shared.pool
            self._stream = cuda.new_stream()
            weakref.finalize(self, _free, cuda, self._stream, self._pinned).atexit = False
            foreign = self._taken(image, "image")
            strides = image_strides(foreign)
        self.holds = foreign.owner
        height, width = foreign.shape[:2]
        self.image_size = (width, height)
        self._masks = MaskMemory((height, width))
        self._image = ImageStruct(foreign.pointer, (ctypes.c_int64 * 3)(*strides), height, width)

    def crop(self, view: View) -> DeviceArray:
        """The network's image, (1, 3, S, S) float32 RGB in [0, 1], as `encode.image_tensor` gives it."""
        with self._working() as stream:
            out = self._pool.take((1, 3, view.size, view.size), "float32")
            self._kernels.crop(view, self._image, self._pad, out.pointer, stream)
            self._cuda.synchronize(self._stream)
            return out

    def decode(
        self,
        backend: Backend,
        features: Features,
        clicks: NDArray[np.float32],
        previous: NDArray[np.float32] | DeviceArray | None,
        view: View,
    ) -> DeviceArray:
        """Logits of the view, (1, 1, S, S) float32, the padding's among them."""
        del view
        return backend.decode_on_device(features, clicks, previous)[0]

    def previous_mask(self, logits: DeviceArray | None, old: View | None, new: View) -> DeviceArray:
        """What the network is told of a view's logits on another one, (1, 1, S, S); see `Pixels`."""
        given = 0 if logits is None or old is None else self._checked(logits, old).pointer
        with self._working() as stream:
            out = self._pool.take((1, 1, new.size, new.size), "float32")
            scratch = self._pool.take((old.size if old else 1, new.size), "float32")
            self._kernels.previous(given, old, new, scratch.pointer, out.pointer, stream)
            self._cuda.synchronize(self._stream)
            return out

    def blend(
        self,
        logits: DeviceArray,
        view: View,
        other: DeviceArray,
        seen: View,
        largest: float = 1.0,
        click: Click | None = None,
    ) -> DeviceArray:
        """Logits of a view with others blended in, (1, 1, S, S); see `Pixels`."""
        given, part = self._checked(logits, view).pointer, self._checked(other, seen).pointer
        with self._working() as stream:
            out = self._pool.take((1, 1, view.size, view.size), "float32")
            scratch = self._pool.take((seen.size, view.size), "float32")
            looks, memory = (given, view, part, seen), (scratch.pointer, out.pointer, stream)
            self._kernels.blend(*looks, largest, click, *memory)
            self._cuda.synchronize(self._stream)
            return out

    def probability(self, logits: DeviceArray, view: View) -> NDArray[np.float32]:
        """In host memory, to where the logits are copied; see `paste.paste_probability`."""
        (width, height), given = view.valid_size, self._checked(logits, view)
        with self._working():
            pinned = self._pinned.array("logits", given.shape, given.dtype)
            self._cuda.copy(pinned.ctypes.data, given.pointer, given.nbytes, self._stream)
            self._cuda.synchronize(self._stream)
            valid = pinned[0, 0, :height, :width].copy()
        return paste.paste_probability(valid, view, self.image_size)

    def paint(self, logits: DeviceArray, view: View) -> Painted:
        """The mask in host memory; see `paste.paste_with_box`."""
        box = view.box
        bits = self._bits(logits, view)
        out = self._masks.mask()
        out[:] = False
        out[box.slices] = np.unpackbits(bits, axis=1, count=box.width).view(np.bool_)
        return Painted(out, _box_of(bits, view))

    def find(self, logits: DeviceArray, view: View) -> Box | None:
        """The box of that mask; see `paste.paste_box`."""
        return _box_of(self._bits(logits, view), view)

    def device_mask(self, logits: DeviceArray, view: View, out: Any = None) -> Any:
        """The mask in device memory.

        Args:
            logits: of `decode`.
            view: the view that they are on.
            out: (H, W) bool or uint8 on this device, C-contiguous and writable, to be filled with 0 and 1;
                None for a new array.

        Returns:
            `out`; or a new (H, W) bool array with `__cuda_array_interface__` and DLPack.

        Raises:
            InvalidInputError: `logits` or `out` is no such array.
        """
        with self._cuda.current():
            if out is None:
                out = given_array(self._cuda, self.image_size[::-1], "bool")
                self._paste(logits, view, out.pointer)
            else:
                target = self._taken(out, "out")
                check_mask_target(target, self.image_size)
                self._paste(logits, view, target.pointer)
        return out

    @contextmanager
    def _working(self) -> Iterator[int]:
        """The stream, for the caller alone; after an error its work is done before memory is used again."""
        with self._cuda.current(), self._one_at_a_time:
            try:
                yield int(self._stream)
            except BaseException:
                with suppress(BackendError):  # the first error is the one to tell
                    self._cuda.synchronize(self._stream)
                raise

    def _paste(self, logits: DeviceArray, view: View, out: int) -> None:
        given = self._checked(logits, view)
        with self._working() as stream:
            self._kernels.paste(view, given.pointer, self.image_size, self._threshold, out, stream)
            self._cuda.synchronize(self._stream)

    def _bits(self, logits: DeviceArray, view: View) -> NDArray[np.uint8]:
        """The view's box of the mask, packed by rows, in host memory."""
        given, (width, height) = self._checked(logits, view), self.image_size
        with self._working() as stream:
            # as large for every box: the pool would keep a block of each size
            out = self._pool.take((height * ((width + 7) // 8),), "uint8")
            self._kernels.bits(view, given.pointer, self._threshold, out.pointer, stream)
            pinned = self._pinned.array("bits", (view.box.height, (view.box.width + 7) // 8), "uint8")
            self._cuda.copy(pinned.ctypes.data, out.pointer, pinned.nbytes, self._stream)
            self._cuda.synchronize(self._stream)
            return pinned.copy()

    @staticmethod
    def _checked(logits: DeviceArray, view: View) -> DeviceArray:
        expected = (1, 1, view.size, view.size)
        if not isinstance(logits, DeviceArray) or (logits.shape, logits.dtype) != (expected, "float32"):
            raise InvalidInputError(
                f"logits: expected a device array {expected} float32, as `decode` gives for this view, but "
                f"got {type(logits).__name__} {getattr(logits, 'shape', '')}"
            )
        return logits

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
            held = given_array(cuda, image.shape, "uint8")
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


def _free(cuda: CudaRuntime, stream: Any, pinned: PinnedArrays) -> None:
    with suppress(BackendError), cuda.current():  # nobody is there to hear of it
        pinned.close()
        cuda.free_stream(stream)
