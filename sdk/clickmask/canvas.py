"""Canvases: the memory of masks, met again, so that painting a mask costs what differs from one before.

A mask of a 12-megapixel photograph is 12 MB to clear and to write, the outline that a click moves a few kB.
"""

from __future__ import annotations

import weakref

import numpy as np

from .mask import Mask
from .native_pixels import Runs

_LARGE = 1 << 20  # pixels of a mask whose memory is worth the trouble
_Canvas = tuple[Mask, Runs]  # memory, and what it shows
_spare: list[_Canvas] = []
"""The newest canvas that no array has any more, or none: one for the process, whichever image it was for."""


class _Loan:
    """Through which an array has a canvas's memory. It ends with the last array that does."""

    def __init__(self, memory: Mask, runs: Runs) -> None:
        self.__array_interface__ = memory.__array_interface__ | {"data": (memory.ctypes.data, True)}
        weakref.finalize(self, _end_loan, (memory, runs)).atexit = False


def _end_loan(canvas: _Canvas) -> None:
    _spare[:] = [canvas]


def clear() -> None:
    """Give up the spare canvas."""
    _spare.clear()


def show(runs: Runs, image_size: tuple[int, int]) -> Mask:
    """The mask of some runs of an image.

    Args:
        runs: see above.
        image_size: (width, height) in pixels.

    Returns:
        (H, W) bool, read-only: the memory of a large one will be a later mask's once no array has it.
    """
    width, height = image_size
    if width * height < _LARGE:
        mask = np.zeros((height, width), np.bool_)
        runs.paint(mask)
        mask.setflags(write=False)
        return mask
    memory, before = _take((height, width))
    runs.paint(memory, before)
    return np.asarray(_Loan(memory, runs))


def _take(shape: tuple[int, int]) -> tuple[Mask, Runs | None]:
    """The spare canvas where it has that shape; otherwise it goes, and there is a new one."""
    try:
        memory, runs = _spare.pop()
    except IndexError:
        return np.zeros(shape, np.bool_), None
    if memory.shape == shape:
        return memory, runs
    del memory, runs  # before the new one takes as much
    return np.zeros(shape, np.bool_), None
