"""Between a photograph and the network in the compiled library: what `encode`, `paste` and `outlines` call.

Each has a slower twin there that needs no library; `native_library.available` says which it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .native_library import check, library

_THREADS = 2  # more of them wait for memory
_CORNERS = 1 << 15  # that outlines are given room for at first


def area_mean(
    pixels: NDArray[np.uint8], out: NDArray[np.float32], instruction_set: str | None = None
) -> None:
    """Shrink a picture to the mean over the area that each pixel covers, in whole grey levels.

    Args:
        pixels: (h, w, 3) uint8; copied where it is not contiguous along rows.
        out: (3, h', w') float32 to fill with values in [0, 1], contiguous along rows; h' <= h, w' <= w.
        instruction_set: One of `native_library.instruction_sets`; None for the best. All give the same.
    """
    if pixels.strides[1:] != (3, 1):
        pixels = np.ascontiguousarray(pixels, np.uint8)
    height, width, _ = pixels.shape
    _, rows, columns = out.shape
    plane_stride, row_stride, _ = (stride // out.itemsize for stride in out.strides)
    check(
        library().clickmask_area_mean(
            *(pixels.ctypes.data, pixels.strides[0], height, width, rows, columns, _THREADS),
            *(_encoded(instruction_set), out.ctypes.data, row_stride, plane_stride),
        )
    )


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)) of finite float32 logits of any shape."""
    logits = np.ascontiguousarray(logits, np.float32)
    result = np.empty_like(logits)
    check(library().clickmask_sigmoid(logits.ctypes.data, logits.size, result.ctypes.data))
    return result


def paint(
    values: NDArray[np.float32],
    limit: float,
    shape: tuple[int, int],
    steps: tuple[float, float],
    centre: float,
    mask: NDArray[np.bool_] | None,
) -> tuple[int, int, int, int] | None:
    """Set the pixels of a mask where values, interpolated bilinearly, rows before columns, exceed a limit.

    Args:
        values: (h, w) float32, finite; the outer ones extend outwards.
        limit: See above.
        shape: (H, W) of the mask.
        steps: of rows and columns, >= 0: row y of the mask lies at row `(y + centre) * step - centre` of the
            values.
        centre: See there.
        mask: (H, W) bool, contiguous along rows, all False before; None to find the box only.

    Returns:
        Tight half-open box (x0, y0, x1, y1) of what was set; None where nothing was.
    """
    if mask is not None and mask.shape != shape:
        raise ValueError(f"mask: expected shape {shape}, got {mask.shape}")
    values = np.ascontiguousarray(values, np.float32)
    box = np.zeros(4, np.int32)
    where = (None, 0) if mask is None else (mask.ctypes.data, mask.strides[0])
    check(
        library().clickmask_paint(
            *(values.ctypes.data, *values.shape, limit, *steps, centre, *shape),
            *(*where, box.ctypes.data),
        )
    )
    x0, y0, x1, y1 = box.tolist()
    return (x0, y0, x1, y1) if x1 > x0 else None


def rings(mask: NDArray[np.bool_]) -> list[NDArray[np.int32]]:
    """All outlines of a mask along pixel edges, each from its top left corner, in raster order of those.

    Args:
        mask: (H, W) bool, contiguous along rows.

    Returns:
        (N, 2) int32 corners (x, y) of each, object on the right hand; pixels that meet at a corner only are
        apart.
    """
    capacity, counts = _CORNERS, np.zeros(2, np.int32)
    while True:
        corners, ends = np.empty((capacity, 2), np.int32), np.empty(capacity, np.int32)
        check(
            library().clickmask_outlines(
                *(mask.ctypes.data, mask.strides[0], *mask.shape, capacity),
                *(corners.ctypes.data, ends.ctypes.data, counts.ctypes.data),
            )
        )
        if counts[0] <= capacity:
            # A copy, since rings are views: one that is kept would keep all of the room.
            found = corners[: counts[0]].copy()
            return np.split(found, ends[: counts[1] - 1]) if counts[0] else []
        capacity = int(counts[0])


def _encoded(instruction_set: str | None) -> bytes | None:
    return instruction_set.encode() if instruction_set else None
