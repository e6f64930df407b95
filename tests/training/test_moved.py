"""Masks of another crop: coarser, and cut off around the object."""

from __future__ import annotations

import numpy as np
import torch

from clickmask_training.moved import as_moved


def test_a_share_is_coarser_and_keeps_its_mean() -> None:
    logits = torch.randn(200, 1, 48, 64, generator=torch.manual_seed(0))
    moved, shown = as_moved(logits, 0.3, np.random.default_rng(0))
    changed = (moved != logits).flatten(1).any(1)
    assert 0.2 < changed.float().mean() < 0.4
    assert torch.equal(moved[~changed], logits[~changed])
    assert shown[~changed].all()
    assert moved[changed].std() < 0.8 * logits[changed].std()
    torch.testing.assert_close(moved.mean((1, 2, 3)), logits.mean((1, 2, 3)), rtol=0, atol=0.05)


def test_what_is_smooth_stays_as_it_is() -> None:
    rows, columns = torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")
    plane = (0.1 * rows - 0.05 * columns + 1).expand(20, 1, 60, 80)
    moved, _ = as_moved(plane, 1.0, np.random.default_rng(1))
    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(moved[inner], plane[inner], rtol=0, atol=0.1)  # two thirds of a pixel


def test_half_of_them_show_a_rectangle_around_the_object() -> None:
    logits = torch.full((200, 1, 60, 80), -5.0)
    logits[:, :, 20:35, 30:60] = 5
    _, shown = as_moved(logits, 1.0, np.random.default_rng(2))
    assert shown[:, :, 21:34, 31:59].all()
    cut = ~shown.flatten(1).all(1)
    assert 0.4 < cut.float().mean() < 0.6
    rectangles = shown.any(3, keepdim=True) & shown.any(2, keepdim=True)
    assert torch.equal(rectangles, shown)
    assert as_moved(torch.full((50, 1, 9, 9), -1.0), 1.0, np.random.default_rng(0))[1].all()  # no object
