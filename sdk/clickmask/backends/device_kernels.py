"""The compiled kernels between an image and the network: libclickmask_native_cuda's, called with addresses.

Each call does what the function that it names does, on device memory, and returns at once: the work is queued
on a stream.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

from .. import encode
from ..blend import reach_of
from ..clicks import Click
from ..view import View
from .device_library import check, installed, load


class ImageStruct(ctypes.Structure):
    """clickmask_image: uint8 RGB by address, byte strides of row, column and colour, height and width."""

    _fields_ = (
        ("pixels", ctypes.c_void_p),
        ("strides", ctypes.c_int64 * 3),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
    )


class _View(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_int32)
        for name in ("x0", "y0", "width", "height", "valid_width", "valid_height", "size", "coordinates")
    )


class _Samples(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_double),
        ("step", ctypes.c_double),
        *((name, ctypes.c_int32) for name in ("first", "last", "pixels", "cells")),
    )


class _Blending(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_float) for name in ("largest", "x", "y", "reach"))


class ViewKernels:
    """The functions of clickmask_view_pixels.h. Safe from many threads. `stream` is a cudaStream_t's address.

    The arrays are C-contiguous and float32 but for what is said. Logits are (S, S), as the network gives
    them; what of them is padding is not looked at.
    """

    def __init__(self, path: Path) -> None:
        """Load a library; applications call `view_kernels`.

        Raises:
            BackendUnavailableError: it does not load, or is of another version.
        """
        self._library = load(path)
        struct, address, number = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int
        self._library.clickmask_view_crop.argtypes = (struct, struct, struct, address, address)
        paste = (struct, address, ctypes.c_float, number, number, address, address)
        self._library.clickmask_view_paste.argtypes = paste
        bits = (struct, address, ctypes.c_float, address, address)
        self._library.clickmask_view_bits.argtypes = bits
        previous = (address, number, struct, struct, address, address, number, address)
        self._library.clickmask_view_previous.argtypes = previous
        whole, part = (address, number, number, number), (address, number)
        blend = (*whole, *part, struct, struct, struct, address, address, address)
        self._library.clickmask_view_blend.argtypes = blend
        self._library.clickmask_find_not_finite.argtypes = (address, number, number, address, address)

    def crop(self, view: View, image: ImageStruct, pad: Sequence[float], out: int, stream: int) -> None:
        """`encode.image_tensor`: out (3, S, S).

        Raises:
            BackendError: the view does not lie in the image, or the launch failed.
        """
        colour = (ctypes.c_float * 3)(*pad)
        _check(
            self._library.clickmask_view_crop(
                ctypes.byref(_view(view)), ctypes.byref(image), colour, out, stream
            )
        )

    def paste(
        self, view: View, logits: int, image_size: tuple[int, int], threshold: float, out: int, stream: int
    ) -> None:
        """`paste.paste_with_box`: out (H, W) bytes of 0 and 1.

        Raises:
            BackendError: the view does not lie in the image, or the launch failed.
        """
        limit, (width, height) = _limit(view, threshold), image_size
        _check(
            self._library.clickmask_view_paste(
                ctypes.byref(_view(view)), logits, limit, height, width, out, stream
            )
        )

    def bits(self, view: View, logits: int, threshold: float, out: int, stream: int) -> None:
        """The view's box of that mask as `np.packbits` packs its rows: out (h, (w + 7) // 8) bytes.

        Raises:
            BackendError: not a view, or the launch failed.
        """
        limit = _limit(view, threshold)
        _check(self._library.clickmask_view_bits(ctypes.byref(_view(view)), logits, limit, out, stream))

    def previous(self, logits: int, old: View | None, new: View, scratch: int, out: int, stream: int) -> None:
        """`HostPixels.previous_mask`: out (S, S), zeros where there is no old view.

        `scratch` has room for the product of both sizes.

        Raises:
            BackendError: not such views, or the launch failed.
        """
        nowhere = encode.Samples()
        across, down = encode.old_samples(old, new) if old else (nowhere, nowhere)
        samples = (ctypes.byref(_samples(axis)) for axis in (down, across))
        old_size = old.size if old else 1
        _check(
            self._library.clickmask_view_previous(logits, old_size, *samples, scratch, out, new.size, stream)
        )

    def blend(
        self,
        logits: int,
        view: View,
        other: int,
        seen: View,
        largest: float,
        click: Click | None,
        scratch: int,
        out: int,
        stream: int,
    ) -> None:
        """`blend.blend_into`: out (S, S), other memory than `logits`; `scratch` is as for `previous`.

        Raises:
            BackendError: not such views, or the launch failed.
        """
        width, height = view.valid_size
        across, down = encode.old_samples(seen, view)
        samples = (ctypes.byref(_samples(axis)) for axis in (down, across))
        whole, part = (logits, view.size, height, width), (other, seen.size)
        around = (0.0, 0.0, 0.0)
        if click is not None:
            around = (*view.to_network(click.x, click.y), reach_of(view))
        blending = ctypes.byref(_Blending(largest, *around))
        _check(self._library.clickmask_view_blend(*whole, *part, *samples, blending, scratch, out, stream))

    def find_not_finite(self, values: int, rows: int, columns: int, found: int, stream: int) -> None:
        """Set an int32 that the device can write, such as pinned memory, to 1 for NaN and infinity.

        Raises:
            BackendError: no values, or the launch failed.
        """
        _check(self._library.clickmask_find_not_finite(values, rows, columns, found, stream))


@functools.cache
def view_kernels() -> ViewKernels:
    """The kernels of the library beside this package.

    Raises:
        BackendUnavailableError: there is none that fits; the message says how to build it.
    """
    return ViewKernels(installed())


def _view(view: View) -> _View:
    box, (width, height) = view.box, view.valid_size
    public = int(view.coordinates == "public")
    return _View(box.x0, box.y0, box.width, box.height, width, height, view.size, public)


def _samples(axis: encode.Samples) -> _Samples:
    return _Samples(axis.start, axis.step, axis.first, axis.last, axis.pixels, axis.cells)


def _limit(view: View, threshold: float) -> float:
    return threshold if view.coordinates == "public" else encode.logit(threshold)


def _check(status: int) -> None:
    wanted = "a view inside the image and sides of at most 131072 (image) and 4096 (network) pixels"
    check(status, "device pixels", wanted)
