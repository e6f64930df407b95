"""What artefacts are compared on covers what has gone wrong before."""

from __future__ import annotations

import builtins
from dataclasses import replace

import cv2
import numpy as np
import pytest

from clickmask.manifest import InputSpec
from clickmask_export.errors import BuildError
from clickmask_export.parity_cases import in_batches, load_photo, make_cases

SPEC = InputSpec(
    sizes=(64, 96),
    fit="letterbox",
    pad=(0.5, 0.4, 0.3),
    coordinates="half_pixel",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    previous_mask=True,
    max_clicks=20,
)
PHOTO = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
KINDS = ["textured", "flat", "saturated", "letterboxed", "one-pixel object", "noise", "photograph"]


@pytest.fixture(scope="module")
def cases():
    return list(make_cases(SPEC, PHOTO))


def shown(case):
    """Counts of clicks in each image of the batch."""
    return tuple((case.clicks[..., 2] >= 0).sum(1).tolist())


def test_every_kind_of_image_alone_and_as_a_batch_of_two(cases):
    small = [case for case in cases if case.image.shape[-1] == 64]
    assert [case.kind for case in small if shown(case) == (5, 4)] == KINDS
    assert [case.kind for case in small if shown(case) == (1,)] == KINDS
    assert [case.kind for case in small if shown(case) == (0,)] == ["flat", "photograph"]
    assert [case.kind for case in small if shown(case) == (20, 1)] == ["flat", "photograph"]


def test_a_larger_size_costs_one_image():
    """Every case runs the network in torch and in each backend: at 1024 px that is what a build waits for."""
    made = list(make_cases(replace(SPEC, sizes=(64, 96, 160)), PHOTO))
    larger = [case for case in made if case.image.shape[-1] > 64]
    assert [(case.kind, case.image.shape) for case in larger] == [
        ("collage, 96 px", (1, 3, 96, 96)),
        ("collage, 160 px", (1, 3, 160, 160)),
    ]
    for case in larger:
        size = case.image.shape[-1]
        assert shown(case) == (9,)
        assert (case.clicks[..., :2] == size - np.float32(0.51)).all(axis=2).any()  # at a corner
        assert case.previous_mask.any()
        assert case.label == f"collage, {size} px, clicks: mixed"


def test_a_collage_has_what_is_hard_of_the_other_images():
    *_, case = make_cases(replace(SPEC, sizes=(64, 128)), PHOTO)
    photograph, noise = case.image[0, :, :64, :64], case.image[0, :, :64, 64:]
    small = {made.kind: made.image[0] for made in make_cases(replace(SPEC, sizes=(64,)), PHOTO)}
    np.testing.assert_array_equal(photograph, small["photograph"])
    np.testing.assert_array_equal(noise, small["noise"])
    np.testing.assert_array_equal(case.image[0, :, 64:, :64], small["saturated"])
    np.testing.assert_array_equal(case.image[0, :, -1, -1], np.float32(SPEC.pad))


def test_both_batches_and_both_previous_masks(cases):
    assert {case.image.shape[0] for case in cases} == {1, 2}
    assert {bool(case.previous_mask.any()) for case in cases} == {True, False}
    pair = next(case.image for case in cases if case.kind == "noise" and len(case.image) == 2)
    assert not np.array_equal(pair[0], pair[1])


def test_click_sets_from_none_to_all_slots_and_at_the_corners(cases):
    counts = {int((row[:, 2] >= 0).sum()) for case in cases for row in case.clicks}
    assert {0, 1, 4, 5, 9, SPEC.max_clicks} == counts
    assert max(case.clicks.shape[1] for case in cases) == SPEC.max_clicks
    for case in cases:
        size, valid = case.image.shape[-1], case.clicks[case.clicks[..., 2] >= 0]
        assert ((valid[:, :2] >= -0.5) & (valid[:, :2] < size - 0.5)).all()
        assert (case.clicks[case.clicks[..., 2] < 0] == -1).all()
    corners = {tuple(row[:2]) for case in cases for clicks in case.clicks for row in clicks}
    assert (-0.5, -0.5) in corners


def test_arrays_are_what_a_backend_takes(cases):
    for case in cases:
        for array in (case.image, case.clicks, case.previous_mask):
            assert array.dtype == np.float32
            assert array.flags.c_contiguous
        assert case.image.min() >= 0
        assert case.image.max() <= 1


def test_flat_is_flat_and_the_letterbox_is_padded(cases):
    flat = next(case.image[0] for case in cases if case.kind == "flat")
    assert (flat.std(axis=(1, 2)) == 0).all()
    boxed = next(case.image[0] for case in cases if case.kind == "letterboxed")
    np.testing.assert_array_equal(boxed[:, -1, 0], np.float32(SPEC.pad))
    photograph = next(case.image[0] for case in cases if case.kind == "photograph")
    np.testing.assert_array_equal(
        photograph[:, 40:, :], np.broadcast_to(photograph[:, 40:41, :1], (3, 24, 64))
    )


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_batch_is_split_into_calls_that_fit(cases, most):
    for case in cases:
        logits = np.arange(len(case.image), dtype=np.float32).reshape(-1, 1, 1, 1)
        calls = list(in_batches(case, logits, most))
        assert all(len(part.image) <= most for part, _ in calls)
        for name in ("image", "clicks", "previous_mask"):
            joined = np.concatenate([getattr(part, name) for part, _ in calls])
            np.testing.assert_array_equal(joined, getattr(case, name))
        np.testing.assert_array_equal(np.concatenate([right for _, right in calls]), logits)


def test_a_network_without_previous_mask_gets_none():
    assert all(case.previous_mask is None for case in make_cases(replace(SPEC, previous_mask=False), PHOTO))


def test_cases_are_the_same_each_time(cases):
    for one, other in zip(cases, make_cases(SPEC, PHOTO), strict=True):
        assert one.label == other.label
        np.testing.assert_array_equal(one.image, other.image)


def test_a_photograph_of_choice_is_read_as_rgb(tmp_path):
    path = tmp_path / "red.png"
    cv2.imwrite(str(path), np.full((4, 5, 3), (0, 0, 255), np.uint8))
    assert load_photo(path).tolist()[0][0] == [255, 0, 0]


@pytest.mark.parametrize("content", [None, b"not an image"])
def test_a_photograph_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "photo.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BuildError, match=r"expected a photograph to compare on: .*photo\.jpg"):
        load_photo(path)


def test_without_any_photograph_the_message_says_how_to_get_one(monkeypatch):
    real = builtins.__import__

    def without_skimage(name, *args, **kwargs):
        if name.startswith("skimage"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_skimage)
    with pytest.raises(BuildError, match=r'pip install "clickmask\[examples\]", or .* --parity-image'):
        load_photo(None)
