"""A mask as runs of pixels along its rows, found from the network's logits without a pixel being made.

Between four neighbouring logits bilinear interpolation decides the mask. Where all four lie on one side of
the threshold there is nothing to compute, so that the cost goes with the length of the object's outline
rather than with the area of the photo.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_MOST_OUTLINE = 1 / 200  # of the pixels; beyond it, interpolating every pixel is quicker (measured)

Indices = NDArray[np.int64]


class Runs(NamedTuple):
    """Half-open runs of object pixels, N of them, by row and from left to right; none is empty.

    Attributes:
        rows: (N,) int64 row.
        starts: (N,) int64 first column.
        ends: (N,) int64 column after the last.
    """

    rows: Indices
    starts: Indices
    ends: Indices

    def box(self) -> tuple[int, int, int, int] | None:
        """Tight half-open box (x0, y0, x1, y1); None where there is no run."""
        if not self.rows.size:
            return None
        return int(self.starts.min()), int(self.rows[0]), int(self.ends.max()), int(self.rows[-1]) + 1

    def paint(self, mask: NDArray[np.bool_], corner: tuple[int, int]) -> None:
        """Set the runs in a mask (H, W), C-contiguous; their pixel (0, 0) is `corner` (x, y) there."""
        flat = mask.reshape(-1)
        origin = (self.rows + corner[1]) * mask.shape[1] + corner[0]
        for start, end in zip((origin + self.starts).tolist(), (origin + self.ends).tolist(), strict=True):
            flat[start:end] = True


def runs_above(
    values: NDArray[np.float32], limit: np.float32, rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> Runs | None:
    """Where values, interpolated bilinearly at the positions of a finer grid, lie above a limit.

    Args:
        values: (h, w) float32; the outer ones extend outwards.
        limit: a position is object where its value is above this.
        rows: (H,) ascending fractional row index into `values`, of each row of the result.
        columns: (W,) likewise of each column.

    Returns:
        Runs of an (H, W) mask; None where the outline is so long that the pixels are quicker than the runs.
        Rounding aside the mask is that of interpolating, rows before columns, and comparing.
    """
    height, width = values.shape
    low = np.clip(np.floor(rows).astype(np.int64), 0, height - 1)
    weight = np.clip(rows - low, 0.0, 1.0).astype(np.float32)
    first = np.searchsorted(low, np.arange(height + 1))  # rows first[i] to first[i + 1] lie in cell row i
    tall = np.diff(first)
    values = np.pad(values, ((0, 1), (0, 1)), "edge")
    i, j = np.divmod(np.flatnonzero(_mixed(values > limit) & (tall > 0)[:, None]), width)
    count = tall[i]
    total = int(count.sum())
    if total > _MOST_OUTLINE * rows.size * columns.size:
        return None
    y = np.arange(total) + np.repeat(first[i] - np.cumsum(count) + count, count)
    j = np.repeat(j, count)
    left, right = (_between_rows(values, low[y], column, weight[y]) for column in (j, j + 1))
    crosses = np.flatnonzero((left > limit) != (right > limit))
    y, j, left, right = y[crosses], j[crosses], left[crosses].astype(np.float64), right[crosses]
    at = j + (limit - left) / (right - left)
    x = np.where(left < right, np.searchsorted(columns, at, "right"), np.searchsorted(columns, at, "left"))
    # The mask changes there, and at the borders of the rows that are object at their borders.
    starts, ends = (
        np.flatnonzero(_between_rows(values, low, np.full(rows.size, column), weight) > limit)
        for column in (0, width - 1)
    )
    y = np.concatenate([starts, y, ends])
    x = np.concatenate([np.zeros_like(starts), x, np.full_like(ends, columns.size)])
    order = np.lexsort((np.concatenate([np.full_like(starts, -1), j, np.full_like(ends, width)]), y))
    runs = Runs(y[order[0::2]], x[order[0::2]], x[order[1::2]])
    some = runs.starts < runs.ends
    return Runs(runs.rows[some], runs.starts[some], runs.ends[some])


def _mixed(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which cells between the points (h + 1, w + 1) have corners of both kinds, (h, w)."""
    a, b, c, d = inside[:-1, :-1], inside[:-1, 1:], inside[1:, :-1], inside[1:, 1:]
    return np.not_equal(a | b | c | d, a & b & c & d)


def _between_rows(
    values: NDArray[np.float32], row: Indices, column: Indices, weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Between a row and the next; rounding never leaves the two, so that equal sides give no crossing."""
    index = row * values.shape[1] + column
    above, below = values.take(index), values.take(index + values.shape[1])
    between = above + weight * (below - above)
    bounded: NDArray[np.float32] = np.clip(between, np.minimum(above, below), np.maximum(above, below))
    return bounded
