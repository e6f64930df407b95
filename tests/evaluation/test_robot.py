"""The robot annotator against the protocol, written a second time with SciPy's distance transform."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from clickmask.clicks import Click
from clickmask.evaluation.robot import depth, next_click


def reference_depth(region: np.ndarray) -> np.ndarray:
    """Exact distances, the frame around the image counted as outside."""
    return ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]


def reference_click(
    prediction: np.ndarray, truth: np.ndarray, ignored: np.ndarray, clicked: np.ndarray
) -> Click | None:
    """The published protocol, step by step."""
    missed = reference_depth(truth & ~prediction & ~ignored) * ~clicked
    surplus = reference_depth(~truth & prediction & ~ignored) * ~clicked
    positive = bool(missed.max() > surplus.max())
    errors = missed if positive else surplus
    if errors.max() == 0:
        return None
    rows, columns = np.nonzero(errors == errors.max())  # in raster order
    return Click(float(columns[0]), float(rows[0]), positive)


shapes = st.shared(st.tuples(st.integers(1, 12), st.integers(1, 12)), key="shape")
masks = arrays(bool, shapes)


@settings(deadline=None, max_examples=60)
@given(masks)
def test_depth_is_the_exact_distance_to_the_outside(region: np.ndarray) -> None:
    np.testing.assert_allclose(depth(region), reference_depth(region), atol=1e-5)


@settings(deadline=None, max_examples=150)
@given(masks, masks, masks, masks)
def test_every_click_is_the_protocols(
    prediction: np.ndarray, truth: np.ndarray, ignored: np.ndarray, clicked: np.ndarray
) -> None:
    arguments = (prediction, truth, ignored, clicked)
    assert next_click(*arguments) == reference_click(*arguments)


@pytest.mark.parametrize("seed", range(6))
def test_clicks_on_large_smooth_errors_are_the_protocols(seed: int) -> None:
    # Blobs at the size of photos: deep regions, with ties between equally deep pixels.
    rng = np.random.default_rng(seed)
    truth, prediction, band = (
        ndimage.gaussian_filter(rng.standard_normal((240, 320)), 12) > level for level in (0, 0.01, 0.05)
    )
    clicked = np.zeros_like(truth)
    for _ in range(5):
        click = next_click(prediction, truth, band, clicked)
        assert click == reference_click(prediction, truth, band, clicked)
        assert click is not None
        clicked[int(click.y), int(click.x)] = True


def blank(shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.zeros(shape, bool)


def test_the_first_click_is_positive_at_the_objects_deepest_pixel() -> None:
    truth = blank()
    truth[4:11, 10:17] = True
    assert next_click(blank(), truth, blank(), blank()) == Click(13, 7, True)


def test_the_deeper_error_wins() -> None:
    truth, prediction = blank(), blank()
    truth[2:5, 2:5] = True  # 3 x 3 missed
    prediction[10:15, 20:25] = True  # 5 x 5 surplus
    assert next_click(prediction, truth, blank(), blank()) == Click(22, 12, False)


def test_a_tie_is_a_negative_click_and_the_first_pixel_in_raster_order() -> None:
    truth, prediction = blank(), blank()
    truth[2:5, 2:5] = True
    prediction[10:13, 4:7] = True
    prediction[10:13, 20:23] = True
    assert next_click(prediction, truth, blank(), blank()) == Click(5, 11, False)


def test_the_image_border_counts_as_outside() -> None:
    truth = blank()
    truth[:, :5] = True  # its deepest column is the middle one, not the border
    click = next_click(blank(), truth, blank(), blank())
    assert click is not None
    assert click.x == 2


def test_a_clicked_pixel_does_not_split_its_region() -> None:
    truth, clicked = blank(), blank()
    truth[4:11, 10:17] = True
    clicked[7, 13] = True  # the deepest; around it all are 3 deep, as they were
    assert next_click(blank(), truth, blank(), clicked) == Click(12, 6, True)


def test_ignored_and_clicked_pixels_are_never_clicked() -> None:
    truth, ignored, clicked = blank(), blank(), blank()
    truth[4:11, 10:17] = True
    ignored[4:11, 10:12] = True
    seen = set()
    for _ in range(35):
        click = next_click(blank(), truth, ignored, clicked)
        assert click is not None
        position = int(click.y), int(click.x)
        assert not ignored[position]
        assert position not in seen
        seen.add(position)
        clicked[position] = True
    assert next_click(blank(), truth, ignored, clicked) is None


def test_an_object_of_one_pixel_is_clicked() -> None:
    truth = blank((1, 1))
    truth[0, 0] = True
    assert next_click(blank((1, 1)), truth, blank((1, 1)), blank((1, 1))) == Click(0, 0, True)


def test_a_perfect_mask_needs_no_click() -> None:
    truth = blank()
    truth[4:11, 10:17] = True
    assert next_click(truth, truth, blank(), blank()) is None
