"""Click maps against loops over pixels and clicks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clickmask_models.click_maps import ClickMapConfig, click_maps, click_planes, squared_distances

CLICKS = [(4.0, 3.0, 1.0), (9.5, 7.25, 1.0), (0.0, 0.0, 0.0), (15.0, 11.0, 0.0), (-1.0, -1.0, -1.0)]


def reference(clicks, height, width, kind, size, stride=1):
    """(2, height, width): maximum over the clicks of one label, distance taken in cells."""
    out = np.zeros((2, height, width))
    for x, y, label in clicks:
        if label < 0:
            continue
        # Cell i covers pixels i * stride to (i + 1) * stride - 1; its centre is their mean.
        for row in range(height):
            for column in range(width):
                dy = (row * stride + (stride - 1) / 2 - y) / stride
                dx = (column * stride + (stride - 1) / 2 - x) / stride
                squared = dx * dx + dy * dy
                value = (
                    float(squared <= size * size) if kind == "disk" else np.exp(-squared / (2 * size * size))
                )
                channel = 0 if label == 1 else 1
                out[channel, row, column] = max(out[channel, row, column], value)
    return out


def draw(clicks, height, width, kind, size, stride=1):
    return click_maps(torch.tensor([clicks]), height, width, ClickMapConfig(kind, size), stride)[0].numpy()


@pytest.mark.parametrize(
    ("kind", "size"), [("disk", 5.0), ("disk", 2.5), ("gaussian", 10.0), ("gaussian", 1.0)]
)
@pytest.mark.parametrize("stride", [1, 8])
def test_agrees_with_loops(kind, size, stride):
    clicks = [(x * stride, y * stride, label) if label >= 0 else (x, y, label) for x, y, label in CLICKS]
    got = draw(clicks, 12, 16, kind, size, stride)
    np.testing.assert_allclose(got, reference(clicks, 12, 16, kind, size, stride), atol=1e-6)


def test_distance_is_that_of_the_nearest_click_as_in_fbrs():
    maps = draw([(3.0, 4.0, 1.0), (9.0, 4.0, 1.0), (0.0, 0.0, -1.0)], 12, 16, "distance", 260.0)
    assert maps[0, 4, 3] == 0.0
    for row, column, distance in ((4, 5, 2.0), (4, 8, 1.0), (0, 0, 5.0)):
        np.testing.assert_allclose(maps[0, row, column], np.tanh(2 * distance / 260), rtol=1e-6)
    assert (maps[1] == 1.0).all()  # no negative click


def test_disk_includes_pixels_at_exactly_the_radius():
    positive = draw([(10.0, 10.0, 1.0)], 21, 21, "disk", 5.0)[0]
    assert (positive[10, 15], positive[13, 14]) == (1, 1)  # distances 5 = sqrt(3^2 + 4^2)
    assert (positive[10, 16], positive[14, 14]) == (0, 0)
    assert positive.sum() == 81


def test_overlapping_gaussians_take_the_maximum_and_stay_below_one():
    one = draw([(5.0, 5.0, 1.0)], 12, 12, "gaussian", 3.0)[0]
    two = draw([(5.0, 5.0, 1.0), (7.0, 5.0, 1.0)], 12, 12, "gaussian", 3.0)[0]
    assert two.max() == 1.0
    assert (two >= one).all()


@pytest.mark.parametrize("size", [1.0, 3.0])
def test_gaussians_are_exact_down_to_where_they_end_and_never_subnormal(size):
    clicks = [(20.2, 21.7, 1.0), (3.0, 60.0, 0.0)]
    maps = draw(clicks, 64, 64, "gaussian", size)
    rows, columns = np.mgrid[:64, :64].astype(np.float64)
    for found, (x, y, _) in zip(maps, clicks, strict=True):
        exact = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * size**2))
        assert ((exact > 0) & (exact < np.finfo(np.float32).tiny)).any()
        np.testing.assert_allclose(found, exact, rtol=2e-5, atol=1.1e-30)
    assert not ((maps > 0) & (maps < 1e-31)).any()


def test_same_click_of_both_labels_shows_in_both_maps():
    maps = draw([(5.0, 5.0, 1.0), (5.0, 5.0, 0.0)], 12, 12, "disk", 2.0)
    np.testing.assert_array_equal(maps[0], maps[1])


@pytest.mark.parametrize("kind", ["disk", "gaussian"])
def test_absent_clicks_are_dropped_by_label_wherever_they_point(kind):
    assert not draw([(5.0, 5.0, -1.0), (0.0, 0.0, -1.0)], 12, 12, kind, 5.0).any()


@pytest.mark.parametrize("kind", ["disk", "gaussian"])
def test_click_in_the_top_left_pixel_counts(kind):
    assert draw([(0.0, 0.0, 1.0)], 12, 12, kind, 5.0)[0, 0, 0] == 1.0


def test_click_outside_reaches_in_over_the_border():
    maps = draw([(-2.0, 6.0, 1.0)], 12, 12, "disk", 5.0)
    assert maps[0, 6].tolist() == [1, 1, 1, 1, *[0] * 8]
    corner = draw([(-2.0, -2.0, 1.0)], 12, 12, "disk", 5.0)  # which the public code takes for absent
    assert corner[0, 0].tolist() == [1, 1, 1, *[0] * 9]


@pytest.mark.parametrize("kind", ["disk", "gaussian"])
def test_order_and_padding_do_not_matter(kind):
    expected = draw(CLICKS, 12, 16, kind, 3.0)
    np.testing.assert_array_equal(draw(CLICKS[::-1], 12, 16, kind, 3.0), expected)
    np.testing.assert_array_equal(draw(CLICKS + [(-1.0, -1.0, -1.0)] * 5, 12, 16, kind, 3.0), expected)


@pytest.mark.parametrize("kind", ["disk", "gaussian"])
def test_half_precision_clicks_and_large_images_stay_finite(kind):
    clicks = torch.tensor([[[1900.0, 1000.0, 1.0]]]).half()
    maps = click_maps(clicks, 64, 2048, ClickMapConfig(kind, 5.0))
    assert maps.dtype == torch.float32
    assert torch.isfinite(maps).all()


def test_distances_without_a_click_are_beyond_any_image():
    distances = squared_distances(torch.tensor([[[3.0, 4.0, 1.0]]]), 8, 8)
    assert distances[0, 0, 0, 0] == 25.0
    assert distances[0, 1].min() >= 2e9


def scattered(count, width, height, stride, seed):
    """Clicks in and around a map: anywhere, on whole and half pixels, and a rounding error beside those."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, 2, generator=generator) * torch.tensor([width + 40, height + 40]) - 20
    kind = torch.arange(count) % 5
    near = (torch.rand(count, 2, generator=generator) - 0.5) * 2e-6
    places = torch.where((kind > 0)[:, None], (places * 2).round() / 2, places)
    places = torch.where((kind > 2)[:, None], places.round(), places)
    places = torch.where((kind % 2 == 0)[:, None], places + near, places)
    label = torch.randint(-1, 2, (count, 1), generator=generator)
    return torch.cat([places * stride, label], dim=1)[None]


@pytest.mark.parametrize("radius", [0.4, 0.5, 1.0, 2.5, 4.3, 5.0, 5.5, 24.0])
@pytest.mark.parametrize("stride", [1, 8])
def test_disks_are_exactly_where_the_distance_to_a_click_is_within_the_radius(radius, stride):
    for count, seed in ((1, 1), (3, 2), (7, 3), (128, 4)):
        clicks = scattered(count, 57, 40, stride, seed)
        maps = click_maps(clicks, 40, 57, ClickMapConfig("disk", radius), stride)
        dense = (squared_distances(clicks, 40, 57, stride) <= radius**2).float()
        np.testing.assert_array_equal(maps.numpy(), dense.numpy())
    assert dense.any()


def test_disks_of_clicks_far_away_or_not_there_are_not_drawn():
    far = [(1e30, 5.0, 1.0), (5.0, -1e30, 0.0), (float("inf"), 5.0, 1.0), (float("nan"), 5.0, 0.0)]
    assert not draw([*far, (5.0, 5.0, -1.0)], 12, 12, "disk", 5.0).any()
    np.testing.assert_array_equal(
        draw([*far, *CLICKS], 12, 16, "disk", 3.0), draw(CLICKS, 12, 16, "disk", 3.0)
    )


@pytest.mark.parametrize("kind", ["disk", "gaussian"])
@pytest.mark.parametrize("clicks", [CLICKS, [(15.0, 11.0, 1.0), (-9.0, 3.0, 0.0)], [(-1.0, -1.0, -1.0)]])
def test_planes_are_the_maps_and_the_previous_mask_untouched(kind, clicks):
    config = ClickMapConfig(kind, 3.0)
    clicks = torch.tensor([clicks, clicks[::-1]])
    mask = torch.rand(2, 1, 12, 16, generator=torch.Generator().manual_seed(0))
    planes = click_planes(clicks, mask, config)
    np.testing.assert_array_equal(planes[:, :2], click_maps(clicks, 12, 16, config))
    np.testing.assert_array_equal(planes[:, 2:], mask)


@pytest.mark.parametrize(("kind", "size", "name"), [("square", 5.0, "kind"), ("disk", 0.0, "size")])
def test_bad_configuration_is_named(kind, size, name):
    with pytest.raises(ValueError, match=name):
        ClickMapConfig(kind, size)
