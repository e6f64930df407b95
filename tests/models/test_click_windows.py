"""The list of cells near clicks, against sets of cells written out one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clickmask_models.click_maps import cell_clicks
from clickmask_models.click_windows import window_keys

HEIGHT, WIDTH = 11, 14

CLICKS = {
    "one": [(6.2, 4.9, 1)],
    "none": [],
    "absent": [(-1, -1, -1), (-1, -1, -1)],
    "three in one cell": [(6.2, 4.9, 1), (6.4, 5.1, 0), (6.0, 5.0, 1)],
    "overlapping": [(3, 3, 1), (5, 4, 0), (-1, -1, -1), (8, 3, 1)],
    "corners": [(-0.5, -0.5, 1), (WIDTH - 0.51, -0.5, 0), (WIDTH - 0.51, HEIGHT - 0.51, 1)],
    "beyond the map": [(-3.0, 4.0, 1), (WIDTH + 1.0, HEIGHT + 30.0, 0)],
    "everywhere": [(x, y, 1) for x in range(0, WIDTH, 3) for y in range(0, HEIGHT, 3)],
}


def rows(clicks: list[tuple]) -> torch.Tensor:
    return torch.tensor(clicks, dtype=torch.float32).reshape(1, -1, 3)


def keys_of(clicks: torch.Tensor, radius: int):
    return window_keys(clicks[..., :2], clicks[..., 2] >= 0, HEIGHT, WIDTH, radius)


def cells(clicks: list[tuple], radius: int) -> dict[int, int]:
    """Flat cell -> in how many windows it is."""
    found: dict[int, int] = {}
    for x, y, label in clicks:
        column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
        for r in range(row - radius, row + radius + 1):
            for c in range(column - radius, column + radius + 1):
                if label >= 0 and 0 <= r < HEIGHT and 0 <= c < WIDTH:
                    found[r * WIDTH + c] = found.get(r * WIDTH + c, 0) + 1
    return found


@pytest.mark.parametrize("radius", [0, 2, 4])
@pytest.mark.parametrize("name", CLICKS)
def test_every_cell_counts_once_in_all(name, radius):
    expected = cells(CLICKS[name], radius)
    keys = keys_of(rows(CLICKS[name]), radius)
    index, bias = keys.index[0].numpy(), keys.bias[0].double().numpy()
    assert len(index) == len(CLICKS[name]) * (2 * radius + 1) ** 2
    assert len(index) == 0 or (index.min() >= 0 and index.max() < HEIGHT * WIDTH)
    weight = np.zeros(HEIGHT * WIDTH)
    np.add.at(weight, index, np.exp(bias[:-1]))
    np.testing.assert_allclose(weight, [cell in expected for cell in range(HEIGHT * WIDTH)], atol=1e-6)
    entries = np.bincount(index[bias[:-1] > -1e6], minlength=HEIGHT * WIDTH)
    np.testing.assert_array_equal(entries, [expected.get(cell, 0) for cell in range(HEIGHT * WIDTH)])
    np.testing.assert_array_equal(keys.rest[0], weight < 0.5)
    rest = HEIGHT * WIDTH - len(expected)
    assert np.exp(bias[-1]) == pytest.approx(rest, rel=1e-6)


def test_everywhere_leaves_no_rest():
    assert len(cells(CLICKS["everywhere"], 4)) == HEIGHT * WIDTH
    assert keys_of(rows(CLICKS["everywhere"]), 4).bias[0, -1] == -1e9


def test_images_of_a_batch_do_not_mix():
    batch = torch.cat([rows(CLICKS["overlapping"]), rows([*CLICKS["corners"], (-1, -1, -1)])])
    together = keys_of(batch, 4)
    for index in range(2):
        alone = keys_of(batch[index : index + 1], 4)
        for ours, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[index : index + 1], expected, rtol=0, atol=0)


def test_images_and_labels_may_both_lead():
    """(B, 2, M, 2) places are 2 B lists of M."""
    lists = torch.cat([rows(CLICKS[name])[:, :3] for name in ("overlapping", "corners")] * 2)
    nested = keys_of(lists.reshape(2, 2, 3, 3), 2)
    for ours, expected in zip(nested, keys_of(lists, 2), strict=True):
        torch.testing.assert_close(ours.flatten(0, 1), expected, rtol=0, atol=0)


def test_clicks_in_cells():
    """The middle of a cell's pixels, and the pixel that an aligned cell looks at, are its centre."""
    clicks = torch.tensor([[[8 * 3 + 3.5, 8 * 2 + 3.5, 0.0]]])
    torch.testing.assert_close(cell_clicks(clicks, 8), torch.tensor([[[3.0, 2.0, 0.0]]]))
    clicks = torch.tensor([[[8 * 3.0, 8 * 2.0, 1.0]]])
    torch.testing.assert_close(cell_clicks(clicks, 8, align_corners=True), torch.tensor([[[3.0, 2.0, 1.0]]]))
