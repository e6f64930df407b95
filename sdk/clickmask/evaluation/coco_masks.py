"""COCO segmentations as masks, pixel for pixel as COCO's own tools draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickmask import rle_decode
from clickmask.errors import InvalidInputError

_SCALE = 5  # COCO's tools trace an outline on a grid this much finer than the pixels


def coco_mask(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of an annotation's `segmentation`.

    Args:
        segmentation: polygons [[x0, y0, x1, y1, ...], ...], whose union is the object, or run lengths.
        size: (width, height) of the image.

    Returns:
        (H, W) bool.

    Raises:
        InvalidInputError: neither of the two, or run lengths of another size.
    """
    width, height = size
    if isinstance(segmentation, Mapping):
        mask = rle_decode(segmentation)
        if mask.shape != (height, width):
            raise InvalidInputError(
                f"expected run lengths of the image's size [{height}, {width}], got {segmentation['size']}"
            )
        return mask
    mask = np.zeros((height, width), np.bool_)
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        raise InvalidInputError(f"expected polygons or run lengths, got {segmentation!r}")
    for ring in segmentation:
        try:
            points = np.asarray(ring, dtype=np.float64).reshape(-1, 2)
            if len(points) < 3 or not np.isfinite(points).all():
                raise ValueError("fewer than three points, or one that is not finite")
        except (TypeError, ValueError) as error:
            raise InvalidInputError(
                f"expected a polygon [x0, y0, x1, y1, x2, y2, ...], got {error}"
            ) from error
        mask |= _fill(points, width, height)
    return mask


def _fill(points: NDArray[np.float64], width: int, height: int) -> NDArray[np.bool_]:
    """One polygon, (N, 2) float64 (x, y), as an (H, W) bool mask.

    Wherever the outline, drawn on the fine grid, steps sideways over the middle of a pixel column, the column
    changes between inside and outside at that height.
    """
    x, y = _outline(np.trunc(points * _SCALE + 0.5).astype(np.int64))
    step = np.flatnonzero(x[1:] != x[:-1])
    column = (np.minimum(x[step], x[step + 1]) + 0.5) / _SCALE - 0.5
    row = np.ceil(np.clip((np.minimum(y[step], y[step + 1]) + 0.5) / _SCALE - 0.5, 0, height))
    kept = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    # Positions run down the columns and on into the next, as run lengths do; the last is past the image.
    position = (column[kept] * height + row[kept]).astype(np.int64)
    changes = np.bincount(position, minlength=width * height + 1)[: width * height]
    return np.ascontiguousarray((changes.cumsum() % 2 == 1).reshape(width, height).T)


def _outline(corners: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Points (x, y) of a closed outline on the fine grid, one per step along each edge's longer axis."""
    columns, rows = [], []
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        across, down = abs(x1 - x0), abs(y1 - y0)
        flat = across >= down
        # An edge is drawn towards growing coordinates, so that two polygons that share it agree.
        flipped = x0 > x1 if flat else y0 > y1
        if flipped:
            x0, y0, x1, y1 = x1, y1, x0, y0
        t = np.arange(max(across, down) + 1)
        rise, run = (y1 - y0, across) if flat else (x1 - x0, down)
        slope = rise / run if run else 0.0
        along = t + (x0 if flat else y0)
        other = np.trunc((y0 if flat else x0) + slope * t + 0.5).astype(np.int64)
        x, y = (along, other) if flat else (other, along)
        columns.append(x[::-1] if flipped else x)
        rows.append(y[::-1] if flipped else y)
    return np.concatenate(columns), np.concatenate(rows)
