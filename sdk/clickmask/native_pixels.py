"""Between a photograph and the network, compiled: what `encode`, `blend`, `paste` and `outlines` call.

Each has a slower twin there that needs no library; `native_library.available` says which it is.
"""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError
from .native_library import Canvas, check, library

_THREADS = 2  # more of them wait for memory
_ALONE = 1 << 20  # pixels of a mask below which a second thread comes too late
_Found, _Counts = ctypes.c_int32 * 5, ctypes.c_int32 * 2  # quicker to make and to read than arrays


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


def sigmoid(logits: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """1 / (1 + exp(-x)) of finite logits.

    Args:
        logits: (h, w); copied where they are not float32 or not contiguous along rows.
        out: (h, w) float32 to fill, contiguous along rows.
    """
    if logits.dtype != np.float32 or logits.strides[1] != logits.itemsize:
        logits = np.ascontiguousarray(logits, np.float32)
    strides = (logits.strides[0] // logits.itemsize, out.strides[0] // out.itemsize)
    where = (logits.ctypes.data, strides[0], *logits.shape, out.ctypes.data, strides[1])
    check(library().clickmask_sigmoid(*where))


def lerp(
    values: NDArray[np.float32],
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    out: NDArray[np.float32],
    instruction_set: str | None = None,
) -> None:
    """Values between those of a grid, bilinearly, rows before columns; the outer ones extend outwards.

    Args:
        values: (h, w) float32.
        rows: (h',) float64, where to look: fractional indices of rows.
        columns: (w',) float64, likewise.
        out: (h', w') float32 to fill, contiguous along rows.
        instruction_set: As for `area_mean`.
    """
    values = np.ascontiguousarray(values, np.float32)
    check(
        library().clickmask_lerp(
            *(values.ctypes.data, *values.shape, rows.ctypes.data, len(rows)),
            *(columns.ctypes.data, len(columns), _encoded(instruction_set)),
            *(out.ctypes.data, out.strides[0] // out.itemsize),
        )
    )


def blend(
    values: NDArray[np.float32],
    other: NDArray[np.float32],
    shares: tuple[NDArray[np.float32], NDArray[np.float32]],
    away: tuple[NDArray[np.float32], NDArray[np.float32]],
    instruction_set: str | None = None,
) -> None:
    """Blend other values into a grid's, by the smaller of two shares times the larger of two distances.

    Args:
        values: (h, w) float32 to change, contiguous along rows.
        other: (h, w); copied where they are not float32 or not contiguous along rows.
        shares: (h,) and (w,) float32, those of rows and of columns.
        away: (h,) and (w,) float32, how far rows and columns are from what stays as it is, at most 1.
        instruction_set: As for `area_mean`. All give the same.

    Raises:
        InvalidInputError: `values` cannot be changed so.
    """
    if values.dtype != np.float32 or values.strides[1] != values.itemsize or not values.flags.writeable:
        raise InvalidInputError(
            "values: expected writeable float32, contiguous along rows, got "
            f"{values.dtype}, strides {values.strides}, writeable: {values.flags.writeable}; copy them."
        )
    if other.dtype != np.float32 or other.strides[1] != other.itemsize:
        other = np.ascontiguousarray(other, np.float32)
    factors = (each.ctypes.data for each in (*shares, *away))
    strides = (values.strides[0] // values.itemsize, other.strides[0] // other.itemsize)
    where = (values.ctypes.data, strides[0], other.ctypes.data, strides[1], *values.shape)
    check(library().clickmask_blend(*where, *factors, _encoded(instruction_set)))


class Runs:
    """A mask as the runs of its rows, which its outlines are made of. They never change.

    Attributes:
        corner: (x, y) of the image where its first row and column are.
    """

    def __init__(self, handle: ctypes.c_void_p, most: int, corner: tuple[int, int] = (0, 0)) -> None:
        """Take over a clickmask_runs, whose outlines have so many corners at most."""
        self.corner, self._handle, self._free = corner, handle, library().clickmask_runs_free
        self._most = most

    def __del__(self) -> None:
        """Free them: each click makes some, and weakref.finalize would take as long as they do."""
        self._free(self._handle)

    @classmethod
    def of(cls, mask: NDArray[np.bool_], corner: tuple[int, int] = (0, 0)) -> Runs:
        """Those of a mask, (H, W) bool, contiguous along rows."""
        handle, found = ctypes.c_void_p(), _Found()
        mask = mask.view(np.uint8) != 0  # an array seen as bool may hold other bytes
        where = (mask.ctypes.data, mask.strides[0], *mask.shape)
        check(library().clickmask_mask_runs(*where, _threads(mask.size), found, ctypes.byref(handle)))
        return cls(handle, found[4], corner)

    def outlines(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """The outlines along pixel edges, each from its top left corner, in raster order of those.

        Returns:
            (N, 2) int32 corners (x, y) of one outline after the other, object on the right hand, where pixels
            that meet at a corner only are apart; (K,) int32, where each outline ends among them; and (K,)
            int32, the number of the outer outline of its piece: a hole's, or its own. All share memory.
        """
        ends = 2 * self._most  # where they begin, behind the corners
        owners = ends + self._most // 4
        room, counts = np.empty(owners + self._most // 4, np.int32), _Counts()
        start = room.ctypes.data
        where = (start, start + 4 * ends, start + 4 * owners, counts)
        check(library().clickmask_outlines(self._handle, *self.corner, *where))
        corners, outlines = counts
        return (
            room[: 2 * corners].reshape(-1, 2),
            room[ends : ends + outlines],
            room[owners : owners + outlines],
        )


def value_runs(
    values: NDArray[np.float32],
    limit: float,
    shape: tuple[int, int],
    steps: tuple[float, float],
    centre: float,
    corner: tuple[int, int] = (0, 0),
    onto: NDArray[np.bool_] | None = None,
    clear: bool = False,
) -> tuple[tuple[int, int, int, int] | None, Runs]:
    """The mask of all pixels where values, interpolated bilinearly, rows before columns, exceed a limit.

    Args:
        values: (h, w) float32, finite; the outer ones extend outwards. Copied where they are not contiguous
            along rows.
        limit: See above.
        shape: (H, W) of the mask.
        steps: of rows and columns, >= 0: row y of the mask lies at row `(y + centre) * step - centre` of the
            values.
        centre: See there.
        corner: (x, y) of the mask in the image.
        onto: a mask of the image, (H', W') bool, contiguous along rows, where these pixels are set; or None.
        clear: whether all its others are set to False, whatever they are; they stay as they are otherwise.

    Returns:
        Tight half-open box (x0, y0, x1, y1) of its pixels, None where there are none; and the runs.
    """
    if values.dtype != np.float32 or values.strides[1] != values.itemsize:
        values = np.ascontiguousarray(values, np.float32)
    found, handle = _Found(), ctypes.c_void_p()
    canvas, threads = None, _threads(shape[0] * shape[1])
    if onto is not None:
        place = (onto.ctypes.data, onto.strides[0], *onto.shape, *corner[::-1], clear)
        canvas, threads = ctypes.byref(Canvas(*place)), _threads(onto.size)
    check(
        library().clickmask_value_runs(
            *(values.ctypes.data, values.strides[0] // values.itemsize, *values.shape, limit),
            *(*steps, centre, *shape, threads),
            *(canvas, found, ctypes.byref(handle)),
        )
    )
    x0, y0, x1, y1, most = found
    return (x0, y0, x1, y1) if x1 > x0 else None, Runs(handle, most, corner)


def _threads(pixels: int) -> int:
    return _THREADS if pixels >= _ALONE else 1


def _encoded(instruction_set: str | None) -> bytes | None:
    return instruction_set.encode() if instruction_set else None
