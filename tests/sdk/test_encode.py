"""Pixels, clicks and masks to the network, against plain NumPy."""

from __future__ import annotations

import math
import warnings

import cv2
import numpy as np
import pytest
from sessions import make_image, paste_reference, resize_reference

from clickmask import encode, native_library, native_pixels
from clickmask.clicks import Click
from clickmask.errors import InvalidInputError
from clickmask.pixels import HostPixels
from clickmask.state import State, previous_mask
from clickmask.view import Box, View

COORDINATES = ("half_pixel", "public")
# cv2 averages uint8 to uint8 (half a grey level); everything else is float32
TOLERANCE = 0.51 / 255
SHAPES = [(40, 30), (64, 64), (200, 150), (7, 333), (1, 1), (1, 90), (97, 2), (65, 63)]


@pytest.fixture(params=["library", "without"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiled library, and as on a machine where it was not built."""
    if request.param == "without":
        monkeypatch.setattr(native_library, "available", lambda: False)
    elif reason := native_library.unavailable_because():
        pytest.skip(reason)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("fit", ["letterbox", "squash"])
@pytest.mark.parametrize("size", SHAPES)
def test_image_tensor_equals_the_definition(size, fit, coordinates) -> None:
    image = make_image(*size)
    view = View(Box(0, 0, *size), 64, fit, coordinates)
    tensor = encode.image_tensor(image, view, (0.25, 0.5, 0.75))
    assert tensor.shape == (1, 3, 64, 64)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    width, height = view.valid_size
    expected = resize_reference(image / 255, (width, height), coordinates).transpose(2, 0, 1)
    np.testing.assert_allclose(tensor[0, :, :height, :width], expected, atol=TOLERANCE)
    padding = np.ones((64, 64), bool)
    padding[:height, :width] = False
    for channel, value in enumerate((0.25, 0.5, 0.75)):
        assert (tensor[0, channel][padding] == np.float32(value)).all()


SHRUNK = [
    (384, 274, 512, 365),
    (64, 48, 640, 479),
    (33, 97, 100, 97),
    (5, 4, 5, 4),
    (3, 64, 7, 333),
    (1, 1, 9, 1),
]


@pytest.mark.parametrize(("rows", "columns", "height", "width"), SHRUNK)
def test_the_library_shrinks_to_the_mean_of_areas(rows, columns, height, width) -> None:
    """Rounded to whole levels; the same on every instruction set, and nothing outside is written."""
    if reason := native_library.unavailable_because():
        pytest.skip(reason)
    image = np.random.default_rng(rows).integers(0, 256, (height + 2, width + 3, 3), np.uint8)
    part = image[1:-1, 2:-1]
    expected = resize_reference(part, (columns, rows), "half_pixel").transpose(2, 0, 1)
    for instruction_set in native_library.instruction_sets():
        out = np.full((3, rows + 2, columns + 1), -1, np.float32)
        native_pixels.area_mean(part, out[:, 1:-1, :-1], instruction_set)
        levels = out[:, 1:-1, :-1] * 255
        np.testing.assert_allclose(levels, levels.round(), atol=1e-4)
        assert abs(levels - expected).max() <= 0.5001
        assert (out[:, [0, -1]] == -1).all()
        assert (out[:, :, -1] == -1).all()


@pytest.mark.parametrize(
    "box", [Box(3, 5, 303, 229), Box(0, 0, 400, 300), Box(10, 10, 74, 74), Box(0, 0, 64, 300)]
)
@pytest.mark.parametrize("fit", ["letterbox", "squash"])
def test_image_tensor_is_the_same_without_the_library(monkeypatch, fit, box) -> None:
    """Means that lie between two levels may be rounded either way."""
    if reason := native_library.unavailable_because():
        pytest.skip(reason)
    image, view = make_image(400, 300), View(box, 64, fit)
    tensor = encode.image_tensor(image, view, (0.25, 0.5, 0.75))
    backwards = encode.image_tensor(np.asfortranarray(image), view, (0.25, 0.5, 0.75))
    np.testing.assert_array_equal(backwards, tensor)
    monkeypatch.setattr(native_library, "available", lambda: False)
    difference = abs(tensor - encode.image_tensor(image, view, (0.25, 0.5, 0.75)))
    assert difference.max() < 1.01 / 255
    assert (difference > 1e-6).mean() < 0.01


def test_enlarging_is_exact_to_float32() -> None:
    image = make_image(40, 30)
    for coordinates in COORDINATES:
        tensor = encode.image_tensor(image, View(Box(0, 0, 40, 30), 64, "letterbox", coordinates), (0, 0, 0))
        expected = resize_reference(image / 255, (64, 48), coordinates).transpose(2, 0, 1)
        np.testing.assert_allclose(tensor[0, :, :48], expected, atol=2e-6)


def test_only_the_box_is_seen() -> None:
    image = make_image(100, 80)
    box = Box(20, 10, 52, 42)
    seen = encode.image_tensor(image, View(box, 64), (0, 0, 0))
    alone = encode.image_tensor(image[10:42, 20:52].copy(), View(Box(0, 0, 32, 32), 64), (0, 0, 0))
    np.testing.assert_array_equal(seen, alone)
    image[:10] = image[42:] = image[:, :20] = image[:, 52:] = 0
    np.testing.assert_array_equal(encode.image_tensor(image, View(box, 64), (0, 0, 0)), seen)


def test_a_box_of_the_network_size_is_not_resampled() -> None:
    image = make_image(64, 64)
    for coordinates in COORDINATES:
        tensor = encode.image_tensor(image, View(Box(0, 0, 64, 64), 64, "letterbox", coordinates), (0, 0, 0))
        np.testing.assert_allclose(tensor[0].transpose(1, 2, 0) * 255, image, atol=1e-4)


def test_click_slots() -> None:
    assert [encode.click_slots(n, 48) for n in (0, 1, 4, 5, 8, 9, 16, 17, 32, 33, 48)] == [
        4, 4, 4, 8, 8, 16, 16, 32, 32, 48, 48,
    ]  # fmt: skip
    assert encode.click_slots(1, 2) == 2
    for most in (1, 4, 5, 48, 128):
        met = {encode.click_slots(count, most) for count in range(1, most + 1)}
        assert encode.slot_counts(most) == tuple(sorted(met))
    with pytest.raises(InvalidInputError, match="at most 48 clicks, but got 49"):
        encode.click_slots(49, 48)


def test_clicks_tensor_rows_and_padding() -> None:
    view = View(Box(10, 20, 42, 52), 64)  # 32 -> 64: x' = (x - 10 + .5) * 2 - .5
    tensor = encode.clicks_tensor([Click(10, 20), Click(41, 51, False), Click(0, 0)], view, 4)
    assert tensor.dtype == np.float32
    assert tensor.tolist() == [[[0.5, 0.5, 1], [62.5, 62.5, 0], [-19.5, -39.5, 1], [-1, -1, -1]]]
    with pytest.raises(InvalidInputError, match="4 slots, but got 5"):
        encode.clicks_tensor([Click(0, 0)] * 5, view, 4)


@pytest.mark.usefixtures("form")
def test_sigmoid_and_logit() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = encode.sigmoid(np.float32([-1e30, -100, -1, 0, 1, 100, 1e30]))
    assert values.dtype == np.float32
    expected = [0, 0, 1 / (1 + math.e), 0.5, math.e / (1 + math.e), 1, 1]
    np.testing.assert_allclose(values, expected, atol=1e-7)
    logits = np.linspace(-30, 30, 999, dtype=np.float32).reshape(27, 37)
    exact = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(encode.sigmoid(logits), exact, atol=1e-7)
    np.testing.assert_allclose(encode.sigmoid(logits[::2, ::3]), exact[::2, ::3], atol=1e-7)
    assert encode.logit(0.5) == 0
    assert encode.logit(0.49) == pytest.approx(math.log(0.49 / 0.51))


@pytest.mark.parametrize("box", [Box(0, 0, 20, 10), Box(5, 5, 15, 25), Box(0, 0, 30, 30)])
@pytest.mark.parametrize("earlier", [None, Box(0, 0, 20, 10), Box(2, 1, 32, 31)])
@pytest.mark.usefixtures("form")
def test_the_previous_mask_fills_the_valid_part_and_pads_with_zero(box, earlier) -> None:
    view = View(box, 64)
    now = State()
    if earlier is not None:
        before = View(earlier, 64)
        logits = np.full(before.valid_size[::-1], 1.5, np.float32)
        now = State((Click(3, 4),), view=before, logits=logits)
    pixels = HostPixels(make_image(40, 35), (0.5, 0.5, 0.5), 0.5)
    tensor = previous_mask(now, view, pixels)
    assert (tensor.shape, tensor.dtype, tensor.flags.c_contiguous) == ((1, 1, 64, 64), np.float32, True)
    width, height = view.valid_size
    assert not tensor[0, 0, height:].any()
    assert not tensor[0, 0, :, width:].any()
    told = tensor[0, 0, :height, :width]
    seen = np.zeros((64, 64), np.bool_)  # of the image, by the earlier view
    if earlier is not None:
        seen[earlier.slices] = True
    sure = cv2.resize(seen[box.slices].astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(told[sure == 1], 1 / (1 + math.exp(-1.5)), atol=1e-6)
    assert not told[sure == 0].any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 1), (48, 70)])
@pytest.mark.parametrize("step", [0.0, 0.31, 1.0, 1.7])
def test_values_between_are_the_same_bit_for_bit_with_and_without_the_library(shape, step) -> None:
    if reason := native_library.unavailable_because():
        pytest.skip(reason)
    values = np.random.default_rng(4).normal(size=shape).astype(np.float32)
    rows, columns = -1.3 + step * np.arange(37), 0.25 + step * np.arange(61)
    expected = encode.lerp(encode.lerp(values, rows, axis=0), columns, axis=1)
    exact = [np.interp(columns, np.arange(shape[1]), row) for row in values.astype(np.float64)]
    exact = np.stack([np.interp(rows, np.arange(shape[0]), column) for column in np.array(exact).T], axis=1)
    np.testing.assert_allclose(expected, exact, atol=1e-5)
    for name in native_library.instruction_sets():
        out = np.full((39, 64), np.nan, np.float32)
        native_pixels.lerp(values, rows, columns, out[1:-1, 2:-1], name)
        np.testing.assert_array_equal(out[1:-1, 2:-1], expected)
        out[1:-1, 2:-1] = np.nan
        assert np.isnan(out).all()


@pytest.mark.parametrize("coordinates", COORDINATES)
def test_mask_probability_is_the_mask_resized(coordinates) -> None:
    mask = np.random.default_rng(2).random((90, 120)) > 0.5
    view = View(Box(10, 5, 110, 85), 64, "letterbox", coordinates)
    expected = resize_reference(mask[5:85, 10:110], view.valid_size, coordinates)
    np.testing.assert_allclose(encode.mask_probability(mask, view), expected, atol=TOLERANCE)


def smooth(width: int, height: int) -> np.ndarray:
    """A blob, (height, width) float32 in [0, 1], like a network's probability: without fine detail."""
    y, x = np.mgrid[:height, :width]
    radius = np.hypot((x - 0.45 * width) / width, (y - 0.55 * height) / height)
    return (1 / (1 + np.exp(30 * (radius - 0.3)))).astype(np.float32)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("new", [Box(30, 20, 130, 120), Box(0, 0, 400, 300), Box(60, 60, 300, 200)])
@pytest.mark.parametrize("old", [Box(40, 40, 160, 130), Box(0, 0, 400, 300), Box(100, 50, 164, 114)])
def test_resampling_equals_the_detour_through_the_image(old, new, coordinates) -> None:
    """Mean error below 0.005 and 97 in 100 pixels within 0.02.

    The rest lies where the old box's edge cuts through the object: the detour averages over that edge.
    """
    before, after = View(old, 96, "letterbox", coordinates), View(new, 64, "letterbox", coordinates)
    probability = smooth(*before.valid_size)
    image = np.zeros((300, 400))
    image[old.slices] = paste_reference(probability, (old.width, old.height), coordinates)
    expected = resize_reference(image[new.slices], after.valid_size, coordinates)
    direct = encode.resample(probability, before, after)
    assert direct.dtype == np.float32
    assert direct.shape == expected.shape
    error = abs(direct - expected)
    assert error.mean() < 0.005
    assert (error < 0.02).mean() > 0.97


def test_resampling_to_the_same_view_changes_nothing() -> None:
    for coordinates in COORDINATES:
        view = View(Box(3, 5, 90, 77), 64, "letterbox", coordinates)
        probability = smooth(*view.valid_size)
        np.testing.assert_allclose(encode.resample(probability, view, view), probability, atol=1e-6)


@pytest.mark.usefixtures("form")
def test_resampling_is_zero_outside_the_old_box() -> None:
    old, new = View(Box(0, 0, 64, 64), 64), View(Box(0, 0, 128, 128), 64)
    warped = encode.resample(np.ones((64, 64), np.float32), old, new)
    assert (warped[:32, :32] == 1).all()
    assert not warped[32:].any()
    assert not warped[:, 32:].any()
    far = encode.resample(np.ones((64, 64), np.float32), old, View(Box(200, 200, 300, 300), 64))
    assert not far.any()


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("box", [Box(0, 0, 1, 1), Box(0, 0, 1, 50), Box(0, 0, 3, 2000)])
def test_resampling_of_degenerate_boxes_stays_finite(box, coordinates) -> None:
    old, new = View(box, 64, "letterbox", coordinates), View(box, 96, "letterbox", coordinates)
    width, height = old.valid_size
    warped = encode.resample(np.ones((height, width), np.float32), old, new)
    assert warped.shape == new.valid_size[::-1]
    assert np.isfinite(warped).all()
    assert (warped == 1).all()
