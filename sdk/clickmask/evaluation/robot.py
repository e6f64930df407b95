"""The robot annotator: the field's standard way to click without a person.

Each click goes to the centre of the largest error, as in the public evaluation code of f-BRS and RITM:
the pixel farthest from the border of the false-negative or false-positive region, whichever is deeper.
One thing is not as there: with nothing wrong left to click, the public code goes on with negative clicks on
the top left pixel, whatever lies there; this robot stops.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from clickmask.clicks import Click


def depth(region: NDArray[np.bool_], steps: int = cv2.DIST_MASK_PRECISE) -> NDArray[np.float32]:
    """L2 distance of each pixel of a region to its outside; the image border counts as outside.

    Args:
        region: (H, W) bool.
        steps: OpenCV's way to measure: exact, or by the steps of a 5x5 mask, a third of the time.

    Returns:
        (H, W) float32 in pixels, 0 outside the region.
    """
    padded = np.pad(region, 1).astype(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, steps)
    return np.asarray(distance[1:-1, 1:-1], dtype=np.float32)


def next_click(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    ignored: NDArray[np.bool_],
    clicked: NDArray[np.bool_],
) -> Click | None:
    """The robot's next click, one whole pixel; ties go to a negative click and to raster order.

    Args:
        prediction: (H, W) bool, the current mask (all False before the first click).
        truth: (H, W) bool, the object.
        ignored: (H, W) bool, pixels without ground truth; never clicked, never an error.
        clicked: (H, W) bool, pixels already clicked; never clicked again.

    Returns:
        The click, or None where no unclicked wrong pixel is left.
    """
    missed = depth(truth & ~prediction & ~ignored)
    surplus = depth(prediction & ~truth & ~ignored)
    # After the transform, not before it: a clicked pixel does not split its region.
    missed[clicked] = 0
    surplus[clicked] = 0
    positive = bool(missed.max() > surplus.max())
    errors = missed if positive else surplus
    row, column = np.unravel_index(int(errors.argmax()), errors.shape)
    if errors[row, column] == 0:
        return None
    return Click(float(column), float(row), positive)
