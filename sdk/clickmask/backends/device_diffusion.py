"""Fused Pixel Diffusion on a CUDA device: libclickmask_native_cuda's, called with addresses.

It does what the graph "pixel_diffusion" does (CDNet, Eq. 5-8). A crop's weights are made anew for each click:
work for the device, of which the caller notices little.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

from ..native_diffusion import DiffusionOptions, as_struct
from .device_library import check, installed, load

GRAPH = "pixel_diffusion"
"""The graph in whose place it runs."""
_FLOAT, _COLOURS, _ROW = 4, 3, 3  # bytes; planes of an image; numbers of a click


@dataclass(frozen=True)
class Call:
    """Addresses of device memory, of C-contiguous float32 arrays.

    Attributes:
        image: (B, 3, S, S), as the network sees it.
        clicks: (B, M, 3).
        logits: (B, 1, S, S), finite.
        out: (B, 1, S, S), to be written; not `logits`.
        scratch: ``scratch_bytes(size)`` of them, of any contents.
        batch: B.
        slots: M.
        size: S.
    """

    image: int
    clicks: int
    logits: int
    out: int
    scratch: int
    batch: int
    slots: int
    size: int


class DeviceDiffusion:
    """The kernel with the settings of a bundle. Safe from many threads: it holds nothing that changes."""

    def __init__(self, library: Any, options: DiffusionOptions) -> None:
        """Take a library, from ``diffusion_library``, and settings without a ``problem``."""
        self._library, self._options = library, as_struct(options)

    def scratch_bytes(self, size: int) -> int:
        """Device memory that a call works in, whatever its batch; 0 where the kernel does not do the size."""
        weights, planes = self._parts(size)
        return weights + planes if weights and planes else 0

    def run(self, call: Call, stream: int) -> None:
        """Put Pixel Diffusion of each image on a stream, a cudaStream_t's address.

        Nothing is allocated or waited for, so that it can be captured in a CUDA graph.

        Raises:
            BackendError: a launch failed.
        """
        size, plane = (call.size, call.size), call.size * call.size * _FLOAT
        planes = call.scratch + self._parts(call.size)[0]
        for number in range(call.batch):  # one after another on the stream: they share the memory
            image = call.image + number * _COLOURS * plane
            clicks = call.clicks + number * call.slots * _ROW * _FLOAT
            logits, out = call.logits + number * plane, call.out + number * plane
            self._check(
                self._library.clickmask_cuda_affinity(self._struct(), image, *size, call.scratch, stream)
            )
            given = (call.scratch, logits, clicks, call.slots, *size, planes, out, stream)
            self._check(self._library.clickmask_cuda_diffuse(self._struct(), *given))

    def _parts(self, size: int) -> tuple[int, int]:
        """Bytes of a crop's weights, and of the planes that steps go between. The weights' end is aligned."""
        weights = self._library.clickmask_cuda_affinity_bytes(self._struct(), size, size)
        return weights, self._library.clickmask_cuda_scratch_bytes(size, size)

    def _struct(self) -> Any:
        return ctypes.byref(self._options)

    @staticmethod
    def _check(status: int) -> None:
        check(status, "device Pixel Diffusion", "addresses, settings and a size that they do")


@functools.cache
def diffusion_library() -> Any:
    """The library beside this package, its functions of clickmask_native_cuda.h declared.

    Raises:
        BackendUnavailableError: there is none that fits; the message says how to build it.
    """
    return declared(load(installed()))


def declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """A loaded library with the signatures of clickmask_native_cuda.h."""
    pointer, number = ctypes.c_void_p, ctypes.c_int
    for name, result, arguments in (
        ("affinity_bytes", ctypes.c_size_t, (pointer, number, number)),
        ("scratch_bytes", ctypes.c_size_t, (number, number)),
        ("affinity", number, (pointer, pointer, number, number, pointer, pointer)),
        ("diffuse", number, (*[pointer] * 4, number, number, number, *[pointer] * 3)),
    ):
        function = getattr(library, f"clickmask_cuda_{name}")
        function.restype, function.argtypes = result, arguments
    return library
