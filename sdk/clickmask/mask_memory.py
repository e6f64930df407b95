"""The memory of a session's masks, used again once nobody holds the mask that was there.

Fresh memory costs a large mask more than all that is painted on it: the kernel clears each page when it is
first written to, and takes it back with the mask.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from .mask import Mask


class MaskMemory:
    """Memory for masks of one shape, one of which waits to be used again at most. Thread-safe."""

    def __init__(self, shape: tuple[int, int]) -> None:
        """None yet; shape: (H, W)."""
        self._shape = shape
        self._idle: list[Mask] = []

    def mask(self) -> Mask:
        """A mask to paint on, all of it.

        Returns:
            (H, W) bool, C-contiguous. It holds what an earlier mask did, or what somebody wrote to that, or
            what was there: an allocator that clears memory does it on one thread.
        """
        try:
            memory = self._idle.pop()
        except IndexError:
            memory = np.empty(self._shape, np.bool_)
        return _Loan(memory, self).mask()

    def take_back(self, memory: Mask) -> None:
        """Keep the memory of a mask that is gone for the next one."""
        self._idle[:] = [memory]


class _Loan:
    """What a mask and all that shares its memory hold; the memory goes back when they are gone."""

    def __init__(self, memory: Mask, owner: MaskMemory) -> None:
        self._memory, self._owner = memory, weakref.ref(owner)

    def mask(self) -> Mask:
        return np.asarray(self)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._memory.__array_interface__

    def __del__(self) -> None:
        owner = self._owner()
        if owner is not None:
            owner.take_back(self._memory)
