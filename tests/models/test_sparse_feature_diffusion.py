"""Feature Diffusion's sparse form against the explicit N x N form in float64, S cut off at the windows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_feature_diffusion import build, explicit, largest_allocation

from clickmask_models.click_maps import ClickMapConfig, cell_clicks, click_maps
from clickmask_models.click_windows import window_keys
from clickmask_models.feature_diffusion import VARIANTS, FeatureDiffusion, FeatureDiffusionConfig

CHANNELS, HEIGHT, WIDTH = 12, 21, 26
COMPACT = ("fdm", "source2full", "source2des_unsupervised")


def random_clicks(count: int) -> list[tuple]:
    places = np.random.default_rng(count).uniform(-0.5, (WIDTH - 0.51, HEIGHT - 0.51), (count, 2))
    return [(x, y, index % 2) for index, (x, y) in enumerate(places.tolist())]


CLICKS = {
    "none": [],
    "absent rows": [(-1, -1, -1)] * 4,
    "all in one place": [(12.3, 8.2, index % 2) for index in range(20)],
    "overlapping": [(12, 8, 1), (13.4, 8.6, 1), (15, 9, 0), (-1, -1, -1), (12, 8, 0)],
    "borders": [(-0.5, -0.5, 1), (WIDTH - 0.51, -0.5, 0), (-0.5, HEIGHT - 0.51, 0), (3, HEIGHT - 0.51, 1)],
    "one label": [(5.0, 5.0, 0), (9.0, 15.0, 0), (20.5, 3.5, 0)],
    "beyond the map": [(-2.0, 5.0, 1), (WIDTH + 2.0, 9.0, 0), (4.0, -90.0, 1)],
    "every cell": [(x, y, 1) for x in range(2, WIDTH, 4) for y in range(2, HEIGHT, 4)],
    **{f"{count} random": random_clicks(count) for count in range(1, 21)},
}


def by_label(clicks: list[tuple]) -> torch.Tensor:
    """(1, 2 M, 3): rows of the positive clicks, padded, then those of the negative ones."""
    sides = [[click for click in clicks if click[2] == label] for label in (1, 0)]
    count = max(map(len, sides))
    padded = [side + [(-1, -1, -1)] * (count - len(side)) for side in sides]
    return torch.tensor(padded, dtype=torch.float32).reshape(1, -1, 3)


def inputs(clicks: list[tuple], sigma: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, the Gaussian sources of clicks given in cells, and those clicks by label."""
    centres = by_label(clicks)
    if centres.shape[1] == 0:
        sources = torch.zeros(1, 2, HEIGHT, WIDTH)
    else:
        sources = click_maps(centres, HEIGHT, WIDTH, ClickMapConfig("gaussian", sigma))
    x = torch.randn(1, CHANNELS, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(7))
    return x, sources, centres


def beyond_windows(centres: torch.Tensor) -> torch.Tensor:
    """(1, 2, h, w): whether a cell is more than 4 cells, along an axis, from each click of a label."""
    far = torch.ones(1, 2, HEIGHT, WIDTH)
    for x, y, label in centres[0].tolist():
        if label in (0, 1):
            column, row = math.floor(x + 0.5), math.floor(y + 0.5)
            rows, columns = (slice(max(0, cell - 4), max(0, cell + 5)) for cell in (row, column))
            far[0, int(label == 0), rows, columns] = 0
    return far


def run(module, *arguments) -> np.ndarray:
    with torch.no_grad():
        return module(*arguments).features[0].numpy()


def sparse(variant: str = "fdm") -> FeatureDiffusion:
    module = build(variant)
    module.use_sparse_keys()
    return module


def message(result: np.ndarray, x: torch.Tensor) -> np.ndarray:
    """What Feature Diffusion adds: errors are to be small beside that."""
    return result - x[0].numpy()


@pytest.mark.parametrize("variant", COMPACT)
@pytest.mark.parametrize("name", CLICKS)
def test_sparse_equals_the_explicit_matrices_of_a_truncated_source(name, variant):
    x, sources, centres = inputs(CLICKS[name])
    expected = explicit(build(variant), variant, x, sources * (1 - beyond_windows(centres)))
    got = message(run(sparse(variant), x, sources, centres), x)
    size = np.abs(message(expected, x)).max()
    assert np.abs(got - message(expected, x)).max() < 5e-6 * size


@pytest.mark.parametrize("name", CLICKS)
def test_what_the_windows_cut_off_is_lost_in_rounding(name):
    x, sources, centres = inputs(CLICKS[name])
    dense = run(build("fdm"), x, sources)
    difference = np.abs(run(sparse(), x, sources, centres) - dense).max()
    assert difference < 2e-5 * np.abs(message(dense, x)).max()


def test_windows_follow_sigma():
    config = FeatureDiffusionConfig(source_size=2.0)
    torch.manual_seed(0)
    dense = FeatureDiffusion(CHANNELS, config).eval()
    x, sources, centres = inputs(CLICKS["overlapping"], sigma=2.0)
    expected = run(dense, x, sources)
    dense.use_sparse_keys()
    np.testing.assert_allclose(run(dense, x, sources, centres), expected, atol=1e-5)


def test_affinities_of_hundreds_neither_overflow_nor_vanish():
    """exp(300) is beyond float32, and so is exp(-300): the largest key of each row must be taken out."""
    module, x = sparse(), inputs([])[0]
    _, sources, centres = inputs(CLICKS["every cell"])
    for scale in (20.0, -20.0):
        with torch.no_grad():
            module.theta.weight.mul_(np.sign(scale))
        dense = build("fdm")
        dense.load_state_dict(module.state_dict())
        expected = run(dense, abs(scale) * x, sources)
        got = run(module, abs(scale) * x, sources, centres)
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got, expected, atol=1e-3 * np.abs(expected).max())


def test_a_batch_is_its_images():
    x, sources, centres = inputs(CLICKS["5 random"])
    turned = centres.clone()
    turned[..., 0] = WIDTH - 1 - turned[..., 0]
    both = run_batch(torch.cat([x, x.flip(3)]), torch.cat([sources, sources.flip(3)]), centres, turned)
    np.testing.assert_allclose(both[0], run(sparse(), x, sources, centres), atol=1e-5)
    np.testing.assert_allclose(both[1], run(sparse(), x.flip(3), sources.flip(3), turned), atol=1e-5)


def run_batch(x, sources, first, second) -> np.ndarray:
    with torch.no_grad():
        return sparse()(x, sources, torch.cat([first, second])).features.numpy()


def test_fewer_keys_are_held_than_cells_squared():
    module = FeatureDiffusion(8, FeatureDiffusionConfig()).eval()
    module.use_sparse_keys()
    x, sources = torch.randn(1, 8, 128, 128), torch.rand(1, 2, 128, 128)
    centres = torch.tensor([[[60.0, 60.0, 1.0], [20.0, 90.0, 0.0]]])
    assert largest_allocation(lambda: module(x, sources, centres)) < 4 * (128 * 128) ** 2 / 50


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in COMPACT])
def test_sources_everywhere_are_refused(variant):
    with pytest.raises(ValueError, match=f"'{variant}' has sources everywhere"):
        FeatureDiffusion(4, FeatureDiffusionConfig(variant)).use_sparse_keys()


def test_resized_disks_are_refused():
    module = FeatureDiffusion(4, FeatureDiffusionConfig("fdm", source_kind="disk_24px"))
    with pytest.raises(ValueError, match="disk_24px"):
        module.use_sparse_keys()


def test_clicks_that_are_missing_are_asked_for():
    x, sources, _ = inputs([])
    with pytest.raises(ValueError, match="needs the clicks in cells"):
        sparse()(x, sources)


def test_networks_hand_over_clicks_where_their_sources_peak():
    """The window's middle cell is where S is largest, for cells that look at their first or middle pixel."""
    clicks = torch.tensor([[[83.0, 41.0, 1.0]]])
    for aligned in (True, False):
        centres = cell_clicks(clicks, 8, align_corners=aligned)
        peak = click_maps(centres, HEIGHT, WIDTH, ClickMapConfig("gaussian", 1.0))[0, 0].argmax()
        present = torch.ones(1, 1, dtype=torch.bool)
        middle = window_keys(centres[..., :2], present, HEIGHT, WIDTH, radius=4).index[0, 40]
        assert peak == middle
