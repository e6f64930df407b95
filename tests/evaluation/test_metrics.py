"""The field's figures, by hand, and the boundary F by its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from clickmask.evaluation import metrics
from clickmask.evaluation.boundary import BoundaryTruth, boundary

CURVES = [[0.5, 0.86, 0.91], [0.95, 0.95, 0.95], [0.2, 0.3, 0.4], [0.5, 0.6, 0.9]]


def blank(shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.zeros(shape, bool)


def test_iou_skips_ignored_pixels() -> None:
    truth, prediction, ignored = blank(), blank(), blank()
    truth[:4, :10] = True  # 40 pixels
    prediction[:2, :10] = True  # 20 of them
    ignored[2, :10] = True  # 10 of the missed ones do not count
    assert metrics.iou(prediction, truth, ignored) == pytest.approx(20 / 30)


def test_iou_of_empty_masks() -> None:
    truth = blank()
    truth[3, 4] = True
    assert metrics.iou(blank(), blank(), blank()) == 1.0
    assert metrics.iou(blank(), truth, blank()) == 0.0
    assert metrics.iou(truth, truth, truth) == 1.0  # all ignored: nothing is wrong


def test_number_of_clicks_counts_a_failure_as_the_limit() -> None:
    assert metrics.noc(CURVES, 0.85, 3) == (2 + 1 + 3 + 3) / 4


def test_the_public_rule_counts_a_success_at_the_last_click_as_a_failure() -> None:
    assert metrics.nof(CURVES, 0.90, 3) == 3
    assert metrics.failures(CURVES, 0.90, 3) == 1


def test_a_lower_limit_looks_at_the_first_clicks_alone() -> None:
    assert metrics.noc(CURVES, 0.85, 2) == (2 + 1 + 2 + 2) / 4
    assert metrics.failures(CURVES, 0.85, 2) == 2


def test_mean_iou_keeps_the_end_of_a_curve_that_ended_early() -> None:
    assert metrics.mean_iou_at([[0.5, 1.0], [0.2, 0.4, 0.6]], 3) == pytest.approx(0.8)


# The boundary F


def reference_boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from their right, lower or lower right neighbour inside the image, one by one."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1)):
                other = mask[min(y + dy, height - 1), min(x + dx, width - 1)]
                found[y, x] |= mask[y, x] != other
    return found


def reference_f(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Precision and recall by exact distances."""
    radius = np.ceil(0.008 * np.linalg.norm(truth.shape))
    drawn, wanted = reference_boundary(prediction), reference_boundary(truth)
    if not drawn.any() or not wanted.any():
        return float(drawn.any() == wanted.any())
    precision = (ndimage.distance_transform_edt(~wanted)[drawn] <= radius).mean()
    recall = (ndimage.distance_transform_edt(~drawn)[wanted] <= radius).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


shapes = st.shared(st.tuples(st.integers(1, 14), st.integers(1, 14)), key="shape")


@settings(deadline=None, max_examples=60)
@given(arrays(bool, shapes), arrays(bool, shapes))
def test_boundary_f_is_the_definitions(prediction: np.ndarray, truth: np.ndarray) -> None:
    np.testing.assert_array_equal(boundary(truth), reference_boundary(truth))
    got = BoundaryTruth(truth, np.zeros_like(truth)).f(prediction)
    assert got == pytest.approx(reference_f(prediction, truth))


@pytest.mark.parametrize("seed", range(4))
def test_boundary_f_at_the_size_of_photos(seed: int) -> None:
    # 240 x 320 has a tolerance of 4 px, so that the disk's shape matters.
    rng = np.random.default_rng(seed)
    truth, prediction = (ndimage.gaussian_filter(rng.standard_normal((240, 320)), 9) > 0 for _ in range(2))
    got = BoundaryTruth(truth, np.zeros_like(truth)).f(prediction)
    assert got == pytest.approx(reference_f(prediction, truth))
    assert 0.2 < got < 0.9


def test_boundary_f_does_not_see_ignored_pixels() -> None:
    truth, ignored = blank(), blank()
    truth[5:15, 5:15] = True
    ignored[:, 20:] = True
    prediction = truth.copy()
    prediction[3:8, 22:28] = True
    assert BoundaryTruth(truth, ignored).f(prediction) == 1.0
    assert BoundaryTruth(truth, blank()).f(prediction) < 1.0


def test_boundary_f_of_an_empty_mask_is_zero() -> None:
    truth = blank()
    truth[5, 5] = True
    assert BoundaryTruth(truth, blank()).f(blank()) == 0.0
    assert BoundaryTruth(blank(), blank()).f(blank()) == 1.0
