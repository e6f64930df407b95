"""Geometry of the crops."""

from __future__ import annotations

import numpy as np
import pytest

from clickmask_models.presets import DEFAULT, pipeline
from clickmask_training.augment import recolour, render
from clickmask_training.settings import ColourSettings, ViewSettings
from clickmask_training.views import Placement, choose_placement

RULE = pipeline(DEFAULT).crop


def marked() -> tuple[np.ndarray, np.ndarray]:
    image, mask = np.zeros((90, 130, 3), np.uint8), np.zeros((90, 130), np.uint8)
    image[40:46, 61:67], mask[40:46, 61:67] = 255, 1
    return image, mask


@pytest.mark.parametrize("kind", ["run_time", "scaled_crop", "random_box"])
@pytest.mark.parametrize("antialias", [True, False])
def test_image_and_mask_stay_together_in_every_view(kind: str, antialias: bool) -> None:
    image, mask = marked()
    settings = ViewSettings(kind=kind, rotated=0.5, rotation=45, scale=(0.4, 2.0), antialias=antialias)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(60):
        placement = choose_placement(mask, (96, 96), settings, RULE, rng)
        crop = render(image, mask, (96, 96), placement, antialias=antialias)
        weight = crop.image[..., 0].astype(float) * crop.inside
        border = np.pad(crop.inside[1:-1, 1:-1], 1)
        whole = (crop.mask == 1).sum() > 0.95 * 36 * abs(np.prod(placement.scale))
        if not whole or (weight[~border] > 0).any():
            continue  # the view cuts the mark
        centre = [(weight * axis).sum() / weight.sum() for axis in np.indices(weight.shape)]
        np.testing.assert_allclose(centre, np.argwhere(crop.mask == 1).mean(axis=0), atol=0.8)
        found += 1
    assert found > 15


def test_a_turned_view_keeps_its_middle() -> None:
    upright = Placement(10, 20, (2.0, 1.5), (60, 40))
    turned = upright._replace(angle=0.4)
    middle = np.array([10 + 15 - 0.5, 20 + 40 / 3 - 0.5, 1])  # in photo pixels
    for placement in (upright, turned):
        np.testing.assert_allclose(placement.matrix @ middle, [29.5, 19.5])
    right, below = turned.matrix[:, :2].T  # where a pixel's neighbours go
    np.testing.assert_allclose(right, [2 * np.cos(0.4), -1.5 * np.sin(0.4)])
    np.testing.assert_allclose(below, [2 * np.sin(0.4), 1.5 * np.cos(0.4)])


def test_turned_zoomed_views_keep_their_object() -> None:
    """About a corner a third of them lost more than a tenth of it."""
    mask = np.zeros((300, 400), np.uint8)
    mask[110:190, 150:250] = 1
    settings = ViewSettings(rotated=1.0, rotation=15, whole=0.0)
    rng, seen = np.random.default_rng(0), []
    for _ in range(200):
        placement = choose_placement(mask, (128, 128), settings, RULE, rng)
        if max(placement.shown) / max(placement.scale) < 100 * 2.1 and min(placement.shown) < 128:  # zoomed
            crop = render(np.zeros((300, 400, 3), np.uint8), mask, (128, 128), placement)
            seen.append((crop.mask == 1).sum() / np.prod(placement.scale) / (mask == 1).sum())
    assert len(seen) > 30
    assert np.mean(np.array(seen) > 0.9) > 0.95


def test_zoomed_boxes_are_the_objects_grown_as_asked() -> None:
    mask = np.zeros((900, 900), np.uint8)
    mask[300:600, 200:600] = 1
    settings = ViewSettings(rotated=0.0, whole=0.0, grown=(1.2, 1.4), scale=(0.2, 0.2))
    rng, seen = np.random.default_rng(0), []
    for _ in range(200):
        placement = choose_placement(mask, (128, 128), settings, RULE, rng)
        box = np.array(placement.shown) / placement.scale
        if placement.scale[0] != 0.2:  # of free windows
            seen.append(max(box / (400, 300)) if min(placement.shown) == 128 else box / (400, 300))
    boxes = np.array([box for box in seen if np.ndim(box)])
    assert len(boxes) > 30
    assert boxes.min() > 1.2 - 0.02
    assert boxes.max() < 1.4 + 0.02
    assert np.ptp(boxes) > 0.1


def test_a_share_of_the_views_is_what_a_sessions_first_click_sees() -> None:
    mask = np.ones((60, 90), np.uint8)
    first = Placement(0, 0, (128 / 90, 85 / 60), (128, 85))
    rng = np.random.default_rng(0)
    settings = ViewSettings(whole=0.25, rotated=1.0)
    found = [choose_placement(mask, (128, 128), settings, RULE, rng) == first for _ in range(400)]
    assert 0.2 < np.mean(found) < 0.3


def test_shrinking_averages_areas_or_takes_the_nearest_pixels() -> None:
    image = np.zeros((128, 128, 3), np.uint8)
    image[::4, ::4] = 255  # one pixel in sixteen
    mask = np.ones((128, 128), np.uint8)
    placement = Placement(0, 0, (0.25, 0.25), (32, 32))
    averaged = render(image, mask, (32, 32), placement).image
    assert set(np.unique(averaged)) <= {15, 16}
    plain = render(image, mask, (32, 32), placement, antialias=False).image
    assert plain.max() == 0  # between pixels that are all dark


def test_zoomed_boxes_keep_the_run_times_least_side() -> None:
    mask = np.zeros((300, 400), np.uint8)
    mask[2:12, 380:398] = 1  # small, in a corner
    rng = np.random.default_rng(0)
    least = np.ceil(max(RULE.min_size, RULE.min_fraction * 300))
    sides = []
    for _ in range(200):
        placement = choose_placement(mask, (256, 256), ViewSettings(rotated=0.0), RULE, rng)
        if placement.scale[0] > 2:  # zoomed: free views enlarge by 1.6 at most
            box = np.array(placement.shown) / placement.scale
            sides.append(box.min())
            assert 0 <= placement.left <= 400 - box[0] + 1e-6 or placement.shown == (256, 256)
    assert len(sides) > 50
    assert min(sides) >= least - 1e-6


def test_random_boxes_have_sides_and_places_of_their_own() -> None:
    mask = np.ones((100, 200), np.uint8)
    rng = np.random.default_rng(0)
    settings = ViewSettings(kind="random_box", rotated=0.0)
    boxes = [choose_placement(mask, (64, 96), settings, RULE, rng) for _ in range(400)]
    widths = np.array([96 / placement.scale[0] / 200 for placement in boxes])
    heights = np.array([64 / placement.scale[1] / 100 for placement in boxes])
    for sides in (widths, heights):
        assert 0.3 <= sides.min() < 0.35
        assert 1.25 < sides.max() <= 1.3
        assert 0.74 < sides.mean() < 0.84  # of a normal around 0.8, cut unevenly
    assert abs(np.corrcoef(widths, heights)[0, 1]) < 0.15
    beyond = [p for p, width in zip(boxes, widths, strict=True) if width > 1]
    assert all(p.left <= 0 for p in beyond)


def test_scaled_crops_put_a_small_image_in_the_middle() -> None:
    mask = np.ones((40, 50), np.uint8)
    settings = ViewSettings(kind="scaled_crop", rotated=0.0, scale=(1.0, 1.0))
    placement = choose_placement(mask, (64, 96), settings, RULE, np.random.default_rng(0))
    crop = render(np.zeros((40, 50, 3), np.uint8), mask, (64, 96), placement)
    rows, columns = np.nonzero(crop.inside)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 51, 23, 72)


def test_colours_change_as_far_as_configured() -> None:
    image = np.full((4, 4, 3), 127, np.uint8)
    rng = np.random.default_rng(0)
    plain = ColourSettings(contrast=(0, 0), brightness=0.1, shift=0, grey=0, blur=0, noise=0)
    levels = [int(recolour(image, plain, rng)[0, 0, 0]) for _ in range(300)]
    assert 101 <= min(levels) < 105
    assert 149 < max(levels) <= 153
    assert (recolour(image, ColourSettings(chance=0.0), rng) == image).all()
    grey = recolour(rng.integers(0, 255, (8, 8, 3), np.uint8), ColourSettings(grey=1.0, noise=0.0), rng)
    assert (grey[..., 0] == grey[..., 1]).all()
