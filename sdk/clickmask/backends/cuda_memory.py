"""Memory on a CUDA device and pinned memory on the host, for backends that manage their own.

Input sizes are few and fixed, so freed blocks are kept by their exact size and used again: ``cudaFree`` would
make the whole device wait.
"""

from __future__ import annotations

import ctypes
import math
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import BackendError
from . import dlpack
from .cuda_runtime import CudaRuntime

_SMALLEST = 256


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """A C-contiguous array in device memory.

    Attributes:
        pointer: Its address.
        shape: Its extents.
        dtype: NumPy's name of its type.
        owner: What keeps the memory; it is free to be used again when the last array of it is gone.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: str
    owner: Any = None

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """What CuPy, torch, Numba and PyCUDA take without a copy; the work that filled it is done."""
        typestr = np.dtype(self.dtype).str
        return {
            "shape": self.shape,
            "typestr": typestr,
            "data": (self.pointer, False),
            "strides": None,
            "version": 3,
        }


@dataclass(frozen=True, eq=False)
class GivenArray(DeviceArray):
    """An array that applications get, from `given_array`; complete.

    Attributes:
        index: CUDA's number of the device.
    """

    index: int = field(kw_only=True)

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's name of the device."""
        return dlpack.DEVICE, self.index

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """The array as a capsule, without a copy; see `dlpack.export`, which says what is raised."""
        return dlpack.export(
            self.__cuda_array_interface__,
            self.owner,
            self.__dlpack_device__(),
            stream=stream,
            max_version=max_version,
            dl_device=dl_device,
            copy=copy,
        )


def given_array(cuda: CudaRuntime, shape: tuple[int, ...], dtype: str) -> GivenArray:
    """An array with undefined contents, to be filled and given to an application.

    Its memory is freed, not used again, when its last user lets go: whose kernels still read it cannot be
    known, and ``cudaFree`` waits for all of them.

    Raises:
        BackendError: The device has no memory left.
    """
    pool = DevicePool(cuda)
    array = pool.take(shape, dtype)
    pool.close()  # it has this one array, and frees it when that goes
    return GivenArray(array.pointer, shape, dtype, array.owner, index=cuda.index)


class DevicePool:
    """Device memory that is used again. Safe from many threads, and from finalisers in any of them."""

    def __init__(self, cuda: CudaRuntime) -> None:
        """An empty pool on a device."""
        self._cuda = cuda
        # append and pop of a deque are atomic; a lock could be held by the thread that a finaliser stops.
        self._idle: defaultdict[int, deque[int]] = defaultdict(deque)
        self._closed = False

    def take(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """An array with undefined contents.

        Raises:
            BackendError: The device has no memory left, even without what the pool keeps.
        """
        nbytes = max(_SMALLEST, math.prod(shape) * np.dtype(dtype).itemsize)
        try:
            pointer = self._idle[nbytes].pop()
        except IndexError:
            try:
                pointer = self._cuda.malloc(nbytes)
            except BackendError:
                self.trim()
                pointer = self._cuda.malloc(nbytes)
        return DeviceArray(pointer, shape, dtype, _Block(self, pointer, nbytes))

    def give(self, pointer: int, nbytes: int) -> None:
        """Take a block back; of a closed pool, free it."""
        self._idle[nbytes].append(pointer)
        if self._closed:
            self.trim()

    def trim(self) -> None:
        """Free every block that nobody has.

        Raises:
            BackendError: CUDA refuses; what is not freed stays in the pool.
        """
        with self._cuda.current():  # a finaliser may run in a thread that has another device, or none
            for blocks in list(self._idle.values()):
                with suppress(IndexError):
                    while True:
                        self._free(blocks)

    def _free(self, blocks: deque[int]) -> None:
        pointer = blocks.pop()
        try:
            self._cuda.free(pointer)
        except BackendError:
            blocks.append(pointer)
            raise

    def close(self) -> None:
        """Free what is idle now, and what is in use as soon as it no longer is."""
        self._closed = True
        self.trim()


class _Block:
    def __init__(self, pool: DevicePool, pointer: int, nbytes: int) -> None:
        self._held = pool, pointer, nbytes

    def __del__(self) -> None:
        pool, pointer, nbytes = self._held
        with suppress(BackendError):  # at the end of the process CUDA may be gone, and the memory with it
            pool.give(pointer, nbytes)


class PinnedArrays:
    """Pinned host arrays by name, each as large as was ever asked for. For one thread at a time."""

    def __init__(self, cuda: CudaRuntime) -> None:
        """No arrays yet."""
        self._cuda = cuda
        self._blocks: dict[str, tuple[int, int]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """The array of a name, C-contiguous, valid until the next call with that name or ``close``."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        pointer, capacity = self._blocks.get(name, (0, 0))
        if capacity < nbytes:
            if pointer:
                self._cuda.free_pinned(pointer)
                del self._blocks[name]
            pointer = self._cuda.malloc_pinned(nbytes)
            self._blocks[name] = pointer, nbytes
        memory = memoryview((ctypes.c_ubyte * nbytes).from_address(pointer))
        return np.ndarray(shape, dtype, buffer=memory)

    def close(self) -> None:
        """Free all of them; see `DevicePool.trim` for errors."""
        for name, (pointer, _) in list(self._blocks.items()):
            self._cuda.free_pinned(pointer)
            del self._blocks[name]
