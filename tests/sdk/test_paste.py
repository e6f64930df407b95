"""Logits to masks: against plain NumPy, and the compiled library against the form without it."""

from __future__ import annotations

import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sessions import new_session, paste_reference, probability_reference

from clickmask import native_library, native_pixels, paste
from clickmask.errors import BackendUnavailableError
from clickmask.mask import mask_box
from clickmask.view import Box, View

COORDINATES = ("half_pixel", "public")
SHAPES = [(40, 30), (64, 64), (200, 150), (7, 333), (1, 1), (1, 90), (97, 2), (65, 63)]


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where the library was not built."""
    monkeypatch.setattr(native_library, "available", lambda: False)


def pasted_mask(*arguments) -> np.ndarray:
    return paste.paste_with_box(*arguments)[0]


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("fit", ["letterbox", "squash"])
@pytest.mark.parametrize("size", SHAPES)
def test_pasted_probability_equals_the_definition(size, fit, coordinates) -> None:
    view = View(Box(3, 4, 3 + size[0], 4 + size[1]), 64, fit, coordinates)
    width, height = view.valid_size
    logits = np.random.default_rng(0).normal(0, 5, (height, width)).astype(np.float32)
    pasted = paste.paste_probability(logits, view, (view.box.x1, view.box.y1))[view.box.slices]
    assert pasted.dtype == np.float32
    np.testing.assert_allclose(pasted, probability_reference(logits, size, coordinates), atol=1e-5)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.usefixtures("no_library")
def test_mask_and_probability_are_painted_in_bands_without_a_seam(monkeypatch, coordinates) -> None:
    view = View(Box(5, 6, 105, 96), 64, "letterbox", coordinates)
    logits = np.random.default_rng(1).normal(0, 3, (58, 64)).astype(np.float32)
    monkeypatch.setattr(paste, "_BAND_PIXELS", 700)  # seven rows
    mask = pasted_mask(logits, view, (120, 100), 0.3)
    probability = paste.paste_probability(logits, view, (120, 100))
    reference = probability_reference(logits, (100, 90), coordinates)
    np.testing.assert_allclose(probability[6:96, 5:105], reference, atol=1e-5)
    sure = abs(reference - 0.3) > 1e-4
    np.testing.assert_array_equal(mask[6:96, 5:105][sure], (reference > 0.3)[sure])
    outside = np.ones((100, 120), bool)
    outside[6:96, 5:105] = False
    assert not mask[outside].any()
    assert not probability[outside].any()
    assert mask.dtype == bool
    assert probability.dtype == np.float32


@pytest.mark.parametrize("library", [True, False])
def test_a_pixel_on_the_threshold_is_background(monkeypatch: pytest.MonkeyPatch, library: bool) -> None:
    if library and (reason := native_library.unavailable_because()):
        pytest.skip(reason)
    monkeypatch.setattr(native_library, "available", lambda: library)
    view = View(Box(0, 0, 4, 4), 64)
    on, above = np.zeros((64, 64), np.float32), np.full((64, 64), 1e-6, np.float32)
    assert not pasted_mask(on, view, (4, 4), 0.5).any()
    assert paste.paste_box(on, view, 0.5) is None
    assert pasted_mask(above, view, (4, 4), 0.5).all()
    assert paste.paste_box(above, view, 0.5) == view.box


def test_public_coordinates_interpolate_probabilities_not_logits() -> None:
    """Halfway between logits 8 and -1 the probabilities' mean is above 0.6 and the logits' above 0.97."""
    logits = np.array([[8, -1], [8, -1]], np.float32)
    for coordinates, expected in (("public", 0.634303), ("half_pixel", 0.970688)):
        view = View(Box(0, 0, 3, 3), 2, "squash", coordinates)
        assert paste.paste_probability(logits, view, (3, 3))[1, 1] == pytest.approx(expected, abs=1e-5)
    strict = View(Box(0, 0, 3, 3), 2, "squash", "public")
    assert not pasted_mask(logits, strict, (3, 3), 0.7)[1, 1]
    assert pasted_mask(logits, strict, (3, 3), 0.6)[1, 1]


boxes = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 150), st.integers(1, 150)).map(
    lambda t: Box(t[0], t[1], t[0] + t[2], t[1] + t[3])
)
views = st.builds(
    View,
    boxes,
    st.sampled_from([64, 96]),
    st.sampled_from(["letterbox", "squash"]),
    st.sampled_from(COORDINATES),
)


@given(views, st.floats(-20, 20, width=32))
@settings(max_examples=60, deadline=None)
def test_constant_logits_paste_to_themselves(view, value) -> None:
    width, height = view.valid_size
    logits = np.full((height, width), value, np.float32)
    pasted = paste.paste_probability(logits, view, (view.box.x1, view.box.y1))
    expected = np.zeros_like(pasted)
    expected[view.box.slices] = 1 / (1 + math.exp(-value))
    np.testing.assert_allclose(pasted, expected, atol=2e-6)


@given(boxes, st.sampled_from([64, 96]), st.sampled_from(["letterbox", "squash"]), st.data())
@settings(max_examples=100, deadline=None)
def test_a_click_drawn_on_its_network_pixel_pastes_back_onto_its_image_pixel(box, size, fit, data) -> None:
    view = View(box, size, fit)
    column = data.draw(st.integers(box.x0, box.x1 - 1))
    row = data.draw(st.integers(box.y0, box.y1 - 1))
    x, y = view.to_network(column, row)
    width, height = view.valid_size
    logits = np.full((height, width), -1, np.float32)
    logits[math.floor(y + 0.5), math.floor(x + 0.5)] = 10  # weight >= 1/4 at the click
    mask = pasted_mask(logits, view, (box.x1 + 3, box.y1 + 3), 0.5)
    assert mask[row, column]


def blob(width: int, height: int) -> np.ndarray:
    """Logits (height, width) float32 of one object with a hole that touches the left border."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    outside, inside = np.hypot(x - 0.2, y - 0.4), np.hypot(x - 0.35, y - 0.35)
    return (40 * np.minimum(0.3 - outside, inside - 0.06)).astype(np.float32)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("size", [*SHAPES, (1500, 1100), (3, 2)])
@pytest.mark.parametrize("draw", ["blob", "noise", "empty", "full", "stripes"])
def test_mask_and_box_are_the_definition_s_with_and_without_the_library(
    monkeypatch, draw, size, coordinates
) -> None:
    view = View(Box(3, 4, 3 + size[0], 4 + size[1]), 64, "letterbox", coordinates)
    width, height = view.valid_size
    logits = {
        "blob": blob(width, height),
        "noise": np.random.default_rng(3).normal(0, 3, (height, width)).astype(np.float32),
        "empty": np.full((height, width), -2, np.float32),
        "full": np.full((height, width), 2, np.float32),
        "stripes": np.where(np.arange(width) % 3 == 0, 4, -4) * np.ones((height, 1), np.float32),
    }[draw].astype(np.float32)
    image_size = (view.box.x1 + 5, view.box.y1 + 2)
    mask, box, _ = paste.paste_with_box(logits, view, image_size, 0.3)
    assert paste.paste_box(logits, view, 0.3) == box
    monkeypatch.setattr(native_library, "available", lambda: False)
    slow, slow_box, _ = paste.paste_with_box(logits, view, image_size, 0.3)
    assert paste.paste_box(logits, view, 0.3) == slow_box

    reference = np.zeros(image_size[::-1])
    reference[view.box.slices] = probability_reference(logits, size, coordinates)
    sure = abs(reference - 0.3) > 1e-5
    np.testing.assert_array_equal(mask[sure], (reference > 0.3)[sure])
    np.testing.assert_array_equal(mask[sure], slow[sure])
    assert sure.mean() > 0.999
    for found, painted in ((box, mask), (slow_box, slow)):
        expected = mask_box(painted)
        assert found == (Box(*expected) if expected else None)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 23), st.integers(1, 23), st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_whole_numbers_meet_ties_exactly(height, width, rows, columns, seed) -> None:
    """Small whole logits on grids of halves: values equal the limit often, and float32 holds them all."""
    values = np.random.default_rng(seed).integers(-2, 3, (height, width)).astype(np.float32)
    y, x = (np.arange(n) * 0.5 - 1 for n in (rows, columns))
    bounded = [np.clip(at, 0, count - 1) for at, count in ((y, height), (x, width))]
    low = [
        np.minimum(at.astype(int), max(count - 2, 0)) for at, count in zip(bounded, values.shape, strict=True)
    ]
    (i, j), (v, u) = low, [at - first for at, first in zip(bounded, low, strict=True)]
    last = np.pad(values, ((0, 1), (0, 1)), "edge")
    tall = last[i] * (1 - v)[:, None] + last[i + 1] * v[:, None]
    expected = tall[:, j] * (1 - u) + tall[:, j + 1] * u > 0
    if reason := native_library.unavailable_because():
        pytest.skip(reason)
    mask = np.zeros((rows, columns), np.bool_)
    box, _ = native_pixels.value_runs(values, 0.0, mask.shape, (0.5, 0.5), 2.0, onto=mask)
    np.testing.assert_array_equal(mask, expected)
    assert box == mask_box(expected)


def test_values_that_rounding_swallows_stay_on_their_side() -> None:
    """1e8 and 1e-3 are both above 0, whatever float32 makes of the way between them."""
    if reason := native_library.unavailable_because():
        pytest.skip(reason)
    values = np.tile(np.float32([[1e8], [1e-3]]), 9)
    mask = np.zeros((400, 30), np.bool_)
    box, _ = native_pixels.value_runs(values, 0.0, mask.shape, (2 / 400, 9 / 30), 0.5, onto=mask)
    assert box == (0, 0, 30, 400)
    assert mask.all()
    assert native_pixels.value_runs(-values, 0.0, mask.shape, (2 / 400, 9 / 30), 0.5)[0] is None


def test_values_may_be_part_of_a_wider_array() -> None:
    """As logits are, whose padding is nobody's business."""
    if reason := native_library.unavailable_because():
        pytest.skip(reason)
    values = np.random.default_rng(1).normal(0, 1, (12, 9)).astype(np.float32)
    padded = np.full((16, 16), np.nan, np.float32)
    padded[:12, :9] = values
    view = View(Box(5, 7, 185, 247), 16)
    expected = paste.paste_with_box(values, view, (200, 300), 0.5)
    given = paste.paste_with_box(padded[:12, :9], view, (200, 300), 0.5)
    np.testing.assert_array_equal(given.mask, expected.mask)
    assert given.box == expected.box
    assert given.mask.any()
    assert not given.mask.all()


def test_a_mask_of_another_shape_is_refused_before_the_library_writes_to_it() -> None:
    if reason := native_library.unavailable_because():
        pytest.skip(reason)
    values = np.ones((5, 5), np.float32)
    where = (values, 0.0, (5, 5), (1.0, 1.0), 0.5, (3, 2))
    native_pixels.value_runs(*where, np.zeros((7, 8), np.bool_))
    for shape in ((6, 8), (7, 7)):
        with pytest.raises(BackendUnavailableError, match="wrong kind or size"):
            native_pixels.value_runs(*where, np.zeros(shape, np.bool_))


def test_a_large_mask_is_the_definition_s() -> None:
    """Many rows for each of the library's threads, and an outline that is everywhere."""
    logits = np.random.default_rng(0).normal(0, 3, (48, 64)).astype(np.float32)
    view = View(Box(0, 0, 1280, 960), 64)
    reference = paste_reference(logits, (1280, 960))
    sure = abs(reference) > 1e-4
    mask, box, _ = paste.paste_with_box(logits, view, (1280, 960), 0.5)
    np.testing.assert_array_equal(mask[sure], (reference > 0)[sure])
    assert box == Box(*mask_box(mask))


LARGE = (4000, 3000)


def test_a_large_photo_costs_its_outline_and_one_byte_a_pixel() -> None:
    """2 ms are the aim on a quiet machine; processor time of this thread, five times as much allowed."""
    if reason := native_library.unavailable_because():
        pytest.skip(reason)
    view = View(Box(0, 0, *LARGE), 608)
    logits = blob(*view.valid_size)
    paste.paste_with_box(logits, view, LARGE, 0.5)
    tracemalloc.start()
    mask, box, _ = paste.paste_with_box(logits, view, LARGE, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * mask.size
    assert box is not None
    assert mask.sum() > 2_000_000

    def once() -> float:
        start = time.thread_time()
        paste.paste_with_box(logits, view, LARGE, 0.5)
        return time.thread_time() - start

    assert min(once() for _ in range(10)) < 0.010


def test_the_mask_before_goes_before_the_next_one_is_painted() -> None:
    """Where nobody else holds it: a session then has one byte a pixel at most."""
    session, _ = new_session(*LARGE)
    tracemalloc.start()
    session.click(2000, 1500)
    peak = tracemalloc.get_traced_memory()[1]
    session.click(2100, 1500)
    again = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert again < peak + 0.5 * LARGE[0] * LARGE[1]


def test_a_click_on_a_large_photo_makes_no_copy_of_it() -> None:
    session, _ = new_session(*LARGE, crop={"kind": "fbrs", "start_click": 2, "min_size": 40})
    session.click(2000, 1500)
    for x in (2100, 2050, 1900):  # the second one moves the crop
        tracemalloc.start()
        mask = session.click(x, 1500)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert mask.any()
        assert peak < 1.2 * LARGE[0] * LARGE[1] + 4e6  # the new mask; the photo has 36e6 bytes
