"""The boxes of the public global-to-local predictor (CSFPN), from what its first pass found.

Of that only every fourth row and column was recorded, so a tight box is known to within three pixels on each
side. The recorded crop must be that of one of those boxes; nearly all others give another crop.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from clickmask.clicks import Click
from clickmask.crop import CropPolicy, next_box
from clickmask.view import Box

STEP = 4
PUBLIC = CropPolicy("global_to_local", start_click=1, expansion=1.4, small_object_expansion=2.5, min_size=1)


@pytest.fixture(scope="module")
def recorded(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "golden" / "csfpn_hrnet18_fine.npz") as arrays:
        names = ("case1/clicks", "case1/image", "predictor/coarse_prob_sub", "predictor/roi")
        return {name.split("/")[1]: arrays[name] for name in names}


def tight_boxes(found: np.ndarray, width: int, height: int) -> list[Box]:
    """All boxes that a mask can have of which every fourth row and column is ``found``."""
    rows, columns = (np.flatnonzero(found.any(axis=axis)) * STEP for axis in (1, 0))
    return [
        Box(
            max(0, columns[0] - left),
            max(0, rows[0] - top),
            min(width, columns[-1] + 1 + right),
            min(height, rows[-1] + 1 + bottom),
        )
        for left, top, right, bottom in itertools.product(range(STEP), repeat=4)
    ]


@pytest.mark.parametrize("number", range(5))
def test_recorded_box_is_that_of_the_first_pass(recorded, number: int) -> None:
    height, width = recorded["image"].shape[:2]
    clicks = [Click(x, y, bool(positive)) for y, x, positive, _ in recorded["clicks"][: number + 1]]
    top, bottom, left, right = recorded["roi"][number]
    expected = Box(left, top, right + 1, bottom + 1)
    tight = tight_boxes(recorded["coarse_prob_sub"][number] > 0.5, width, height)

    def boxes(policy: CropPolicy) -> set[Box]:
        return {next_box(policy, (width, height), clicks, bbox, None) for bbox in tight}

    assert expected in boxes(PUBLIC)
    assert expected not in boxes(dataclasses.replace(PUBLIC, expansion=1.3))
