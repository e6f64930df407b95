"""Boundary F: how well the outline of a mask follows the object's, apart from its area.

Definition and tolerance are those of the DAVIS benchmark (Perazzi et al., "A Benchmark Dataset and Evaluation
Methodology for Video Object Segmentation", CVPR 2016, measure F, as its public code computes it): precision
and recall of boundary pixels, one counting as found where the other mask has a boundary pixel within 0.8 % of
the image's diagonal, rounded up.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 0.008  # of the image's diagonal


class BoundaryTruth:
    """An object's boundary, prepared once and compared with one prediction after the other."""

    def __init__(self, truth: NDArray[np.bool_], ignored: NDArray[np.bool_]) -> None:
        """Takes the object and the pixels that do not count, both (H, W) bool."""
        self._counted = ~ignored
        self._radius = math.ceil(_TOLERANCE * math.hypot(*truth.shape))
        self._boundary = boundary(truth & self._counted)
        self._near = _within(self._boundary, self._radius)

    def f(self, prediction: NDArray[np.bool_]) -> float:
        """F of an (H, W) bool mask, in [0, 1]; 1 where neither mask has a boundary, 0 where only one has."""
        drawn = boundary(prediction & self._counted)
        count, true_count = np.count_nonzero(drawn), np.count_nonzero(self._boundary)
        if count == 0 or true_count == 0:
            return float(count == true_count)
        precision = np.count_nonzero(drawn & self._near) / count
        recall = np.count_nonzero(self._boundary & _within(drawn, self._radius)) / true_count
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that differ from the pixel to the right, below or between the two; (H, W) bool to (H, W) bool.

    The border of the image is no boundary.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here = padded[:-1, :-1]
    return (here ^ padded[:-1, 1:]) | (here ^ padded[1:, :-1]) | (here ^ padded[1:, 1:])


def _within(pixels: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Which pixels have one of `pixels` at a distance of at most `radius`: dilation by a disk."""
    if not pixels.any():
        return np.zeros_like(pixels)
    side = np.arange(-radius, radius + 1)
    disk = (side[:, None] ** 2 + side**2 <= radius**2).astype(np.uint8)
    return cv2.dilate(pixels.view(np.uint8), disk).view(np.bool_)
