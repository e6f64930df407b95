"""Clicks in rows by label: what a graph takes whose work grows with the clicks of either label."""

from __future__ import annotations

import numpy as np


def by_label(clicks: np.ndarray) -> np.ndarray:
    """Clicks of each label apart, in their order.

    Rows come in few numbers, so that a runtime meets few shapes: powers of two and the middles between them,
    or M.

    Args:
        clicks: (B, M, 3) float32 rows (x, y, label); label 1 positive, 0 negative, others absent.

    Returns:
        (B, 2, R, 3) float32, positive clicks first; R is the least of 1, 2, 3, 4, 6, 8, 12, 16, ... and M
        that holds those of each image and label; unused rows are (-1, -1, -1).
    """
    labels = clicks[..., 2]
    counts = [int((labels == label).sum(axis=1).max()) for label in (1, 0)]
    rows = min(_rows(max(1, *counts)), clicks.shape[1])
    out = np.full((len(clicks), 2, rows, 3), -1, np.float32)
    for image, ours in zip(clicks, out, strict=True):
        for side, label in enumerate((1, 0)):
            found = image[image[:, 2] == label]
            ours[side, : len(found)] = found
    return out


def row_counts(max_clicks: int) -> set[int]:
    """All R that `by_label` may give for up to `max_clicks` clicks."""
    return {min(_rows(count), max_clicks) for count in range(1, max_clicks + 1)}


def _rows(count: int) -> int:
    power: int = 1 << (count - 1).bit_length()
    middle = 3 * power // 4
    return middle if count <= middle else power
