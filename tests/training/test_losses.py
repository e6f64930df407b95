"""Losses against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clickmask_training.losses import auxiliary_bce, bce_dice, mean_iou


def reference_bce_dice(logits: np.ndarray, mask: np.ndarray) -> float:
    losses = []
    for z, m in zip(logits[:, 0], mask[:, 0], strict=True):
        valid = m != 255
        p = 1 / (1 + np.exp(-z[valid]))
        t = m[valid] == 1
        bce = -(np.log(p[t]).sum() + np.log(1 - p[~t]).sum()) / valid.sum()
        dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
        losses.append(bce + dice)
    return float(np.mean(losses))


def random_case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 2, (3, 1, 8, 8)), rng.choice([0, 1, 255], (3, 1, 8, 8)).astype(np.uint8)


def test_bce_dice_equals_its_definition() -> None:
    logits, mask = random_case()
    got = bce_dice(torch.from_numpy(logits), torch.from_numpy(mask))
    assert float(got) == pytest.approx(reference_bce_dice(logits, mask), rel=1e-6)


def test_ignored_pixels_have_no_gradient() -> None:
    logits, mask = random_case()
    z = torch.from_numpy(logits).requires_grad_()
    bce_dice(z, torch.from_numpy(mask)).backward()
    assert z.grad is not None
    assert (z.grad.numpy()[mask == 255] == 0).all()
    assert (z.grad.numpy()[mask != 255] != 0).all()


def test_the_auxiliary_target_is_the_share_of_object_in_a_cell() -> None:
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    mask[..., :2, :2] = 1  # cell (0, 0) is object
    mask[..., 0, 2] = 1  # one pixel in four of cell (0, 1)
    mask[..., 2:, 2:] = 255  # cell (1, 1) has no truth
    z = torch.tensor([[[[0.5, -1.0], [2.0, 3.0]]]])
    p = torch.sigmoid(z)[0, 0]
    expected = -(torch.log(p[0, 0]) + 0.25 * torch.log(p[0, 1]) + 0.75 * torch.log(1 - p[0, 1]))
    expected = (expected - torch.log(1 - p[1, 0])) / 3
    assert float(auxiliary_bce(z, mask)) == pytest.approx(float(expected), rel=1e-6)


def test_mean_iou_counts_valid_pixels_only() -> None:
    mask = torch.tensor([[[[1, 1, 0, 255]]]], dtype=torch.uint8)
    assert mean_iou(torch.tensor([[[[1.0, -1.0, 1.0, 1.0]]]]), mask) == pytest.approx(1 / 3)
