"""Device memory that all images on a device work in: idle sessions do not keep what they worked in."""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from typing import Any

from ..errors import BackendError
from .cuda_memory import DevicePool
from .cuda_runtime import CudaRuntime


class SharedPool:
    """Holds a pool, which is closed when nobody holds this any more.

    Attributes:
        pool: For whoever waits for what it does in a block before giving that back.
    """

    def __init__(self, cuda: CudaRuntime) -> None:
        """An empty pool on a device; see `shared_pool`."""
        self.pool = DevicePool(cuda)
        weakref.finalize(self, _close, cuda, self.pool).atexit = False


_pools: weakref.WeakValueDictionary[Any, SharedPool] = weakref.WeakValueDictionary()
_finding = threading.Lock()


def shared_pool(cuda: CudaRuntime) -> SharedPool:
    """The one of a device; to be held as long as its pool is used. From any thread."""
    key = cuda.cudart, cuda.index
    with _finding:
        found = _pools.get(key)
        if found is None:
            found = _pools[key] = SharedPool(cuda)
        return found


def _close(cuda: CudaRuntime, pool: DevicePool) -> None:
    with suppress(BackendError), cuda.current():  # nobody is there to hear of it
        pool.close()  # what is in use goes when its last user does
