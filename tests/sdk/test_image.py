"""as_rgb: every accepted form, every refusal, and when it copies."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sessions import make_image

from clickmask.errors import InvalidInputError
from clickmask.image import as_rgb, image_sha256, image_size


def test_contiguous_rgb_is_not_copied() -> None:
    image = make_image(7, 5)
    assert np.shares_memory(as_rgb(image), image)


def test_read_only_rgb_is_accepted_and_not_copied() -> None:
    image = make_image(7, 5)
    image.setflags(write=False)
    assert np.shares_memory(as_rgb(image), image)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::-1],
        lambda a: a[:, ::-1],
        lambda a: a[..., ::-1],
        lambda a: a[::2, 1::3],
        lambda a: np.asfortranarray(a),
        lambda a: a.transpose(1, 0, 2),
        lambda a: a[1:4, 2:6],
    ],
    ids=[
        "rows reversed",
        "columns reversed",
        "channels reversed",
        "steps",
        "fortran",
        "transposed",
        "cut out",
    ],
)
def test_any_strides_give_the_same_pixels_contiguously(view) -> None:
    image = view(make_image(9, 6))
    rgb = as_rgb(image)
    assert rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, image)


def test_alpha_is_dropped() -> None:
    rgba = np.dstack([make_image(4, 3), np.zeros((3, 4), np.uint8)])
    np.testing.assert_array_equal(as_rgb(rgba), rgba[..., :3])


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a,
        lambda a: a[::-1],
        lambda a: a[2:5, 1:4],
        lambda a: a[::2, ::2],
        lambda a: a[:1, :1],
        lambda a: a[..., 2::-1],
        lambda a: a[1:4, 2:6, :3][..., ::-1],
    ],
    ids=["whole", "rows reversed", "cut out", "steps", "one pixel", "colours reversed", "cut out, reversed"],
)
def test_four_channels_of_any_strides_give_the_same_pixels(view) -> None:
    pixels = view(np.dstack([make_image(9, 6), make_image(9, 6, seed=1)[..., :1]]))
    rgb = as_rgb(pixels)
    assert rgb.flags.c_contiguous
    assert not np.shares_memory(rgb, pixels)
    np.testing.assert_array_equal(rgb, pixels[..., :3])


@pytest.mark.parametrize("rows", [slice(None), slice(2, 5), slice(None, None, -1)])
def test_bgr_read_backwards_gives_the_same_pixels(rows) -> None:
    bgr = make_image(9, 6)
    rgb = as_rgb(bgr[rows, 1:7, ::-1])
    assert rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, bgr[rows, 1:7][..., [2, 1, 0]])


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1)])
def test_grey_is_repeated(shape) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(shape)
    rgb = as_rgb(grey[::-1])
    np.testing.assert_array_equal(rgb, np.dstack([grey.reshape(3, 4)[::-1]] * 3))


def test_one_pixel() -> None:
    assert as_rgb(np.uint8([[7]])).tolist() == [[[7, 7, 7]]]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ([[1, 2], [3, 4]], "builtins.list"),
        (None, "NoneType"),
        (np.zeros((2, 2, 3), np.float32), r"\* 255"),
        (np.zeros((2, 2, 3), np.uint16), "numpy.interp"),
        (np.zeros((2, 2, 3), np.int64), r"astype\(numpy.uint8\)"),
        (np.zeros((2, 2), bool), r"\* 255"),
        (np.zeros((1, 2, 2, 3), np.uint8), r"batch\[0\]"),
        (np.zeros((3, 8, 9), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((8, 9, 2), np.uint8), "last of two or three"),
        (np.zeros(8, np.uint8), r"shape \(8,\)"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
        (np.zeros((4, 0), np.uint8), "at least one pixel"),
        (np.zeros((1, (1 << 20) + 1), np.uint8), "at most 1048576 pixels a side"),
        (np.zeros((), np.uint8), r"shape \(\)"),
    ],
)
def test_refusals_name_the_conversion(image, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        as_rgb(image)


def test_size_is_width_then_height() -> None:
    assert image_size(make_image(7, 5)) == (7, 5)


def test_hash_is_of_the_pixels_in_rows() -> None:
    image = make_image(7, 5)
    assert image_sha256(image) == hashlib.sha256(image.tobytes()).hexdigest()
