"""Losses against plain NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clickmask_models.outputs import Outputs
from clickmask_training.config import TrainingConfig
from clickmask_training.losses import (
    bce,
    cell_bce,
    dice,
    distillation,
    feature_distance,
    mean_iou,
    near_boundary,
    normalised_focal,
)
from clickmask_training.objective import Extras, Taught, objective
from clickmask_training.settings import LossSettings


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def cross_entropy(z: np.ndarray, target: np.ndarray) -> np.ndarray:
    p = sigmoid(z)
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


def reference_bce(z: np.ndarray, mask: np.ndarray) -> float:
    valid = mask != 255
    return float(cross_entropy(z[valid], mask[valid] == 1).mean())


def reference_dice(z: np.ndarray, mask: np.ndarray) -> float:
    valid = mask != 255
    p, t = sigmoid(z[valid]), mask[valid] == 1
    return float(1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))


def reference_focal(z: np.ndarray, mask: np.ndarray) -> float:
    """algorithms: p_t = 1 - |y - p|; w = (1 - p_t)^2, scaled to sum to N; -w log(p_t) / 2, mean."""
    valid = mask != 255
    right = 1 - np.abs((mask[valid] == 1) - sigmoid(z[valid]))
    weight = (1 - right) ** 2
    weight *= valid.sum() / weight.sum()
    return float((-0.5 * weight * np.log(right)).mean())


def random_case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 2, (3, 1, 8, 8)), rng.choice([0, 1, 255], (3, 1, 8, 8)).astype(np.uint8)


@pytest.mark.parametrize(
    ("loss", "reference"),
    [(bce, reference_bce), (dice, reference_dice), (normalised_focal, reference_focal)],
)
def test_losses_equal_their_definitions(loss, reference) -> None:  # type: ignore[no-untyped-def]
    logits, mask = random_case()
    got = loss(torch.from_numpy(logits), torch.from_numpy(mask))
    assert got.shape == (3,)
    expected = [reference(z[0], m[0]) for z, m in zip(logits, mask, strict=True)]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("loss", [bce, dice, normalised_focal])
def test_ignored_pixels_have_no_gradient(loss) -> None:  # type: ignore[no-untyped-def]
    logits, mask = random_case()
    z = torch.from_numpy(logits).requires_grad_()
    loss(z, torch.from_numpy(mask)).sum().backward()
    assert z.grad is not None
    assert (z.grad.numpy()[mask == 255] == 0).all()
    assert (z.grad.numpy()[mask != 255] != 0).all()


def test_the_focal_scale_carries_no_gradient_and_the_weights_do() -> None:
    logits, mask = random_case()
    z = torch.from_numpy(logits[:1]).requires_grad_()
    normalised_focal(z, torch.from_numpy(mask[:1])).sum().backward()
    assert z.grad is not None
    valid = mask[0, 0] != 255
    y, zs = (mask[0, 0] == 1)[valid].astype(float), logits[0, 0][valid]
    scale = valid.sum() / ((np.abs(y - sigmoid(zs))) ** 2).sum()

    def frozen(z: np.ndarray) -> float:
        right = 1 - np.abs(y - sigmoid(z))
        return float((-0.5 * scale * (1 - right) ** 2 * np.log(right)).mean())

    for index in range(0, len(zs), 7):
        step = np.zeros_like(zs)
        step[index] = 1e-5
        expected = (frozen(zs + step) - frozen(zs - step)) / 2e-5
        assert float(z.grad.numpy()[0, 0][valid][index]) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_the_focal_loss_of_a_perfect_or_an_empty_sample_is_finite() -> None:
    mask = torch.tensor([[[[1, 0]]], [[[255, 255]]]], dtype=torch.uint8)
    logits = torch.tensor([[[[200.0, -200.0]]], [[[3.0, -3.0]]]], requires_grad=True)
    loss = normalised_focal(logits, mask)
    loss.sum().backward()
    assert loss.tolist() == [0.0, 0.0]
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_auxiliary_target_is_the_share_of_object_in_a_cell() -> None:
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    mask[..., :2, :2] = 1  # cell (0, 0) is object
    mask[..., 0, 2] = 1  # one pixel in four of cell (0, 1)
    mask[..., 2:, 2:] = 255  # cell (1, 1) has no truth
    z = torch.tensor([[[[0.5, -1.0], [2.0, 3.0]]]])
    p = torch.sigmoid(z)[0, 0]
    expected = -(torch.log(p[0, 0]) + 0.25 * torch.log(p[0, 1]) + 0.75 * torch.log(1 - p[0, 1]))
    expected = (expected - torch.log(1 - p[1, 0])) / 3
    assert float(cell_bce(z, mask)) == pytest.approx(float(expected), rel=1e-6)


def test_distillation_is_least_at_the_teachers_logits() -> None:
    logits, mask = random_case()
    z, m = torch.from_numpy(logits), torch.from_numpy(mask)
    valid = mask[0] != 255
    got = distillation(z, 2 * z, m)[0]
    p, q = sigmoid(2 * logits[0][valid]), sigmoid(logits[0][valid])
    assert float(got) == pytest.approx(float(-(p * np.log(q) + (1 - p) * np.log(1 - q)).mean()), rel=1e-6)
    assert (distillation(z, z, m) < distillation(z + 0.3, z, m)).all()


def test_near_the_boundary_is_a_band_on_both_sides() -> None:
    mask = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    mask[..., :, 4:] = 1
    band = near_boundary(mask, 2)[0, 0]
    assert band[0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 0]
    assert near_boundary(torch.ones_like(mask), 2).sum() == 0
    mask[..., 6:] = 255  # what cuts the object off is no border of it
    assert near_boundary(mask, 2)[0, 0, 0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 0]


def test_feature_distance_is_in_units_of_the_teachers_variance() -> None:
    generator = np.random.default_rng(5)
    teacher = [generator.normal(3, scale, (2, 4, 6, 6)).astype(np.float32) for scale in (0.1, 10)]
    ours = [each + generator.normal(0, 1, each.shape).astype(np.float32) for each in teacher]
    expected = np.mean(
        [
            ((a - b) ** 2).mean() / np.mean([b[:, c].var(ddof=1) for c in range(4)])
            for a, b in zip(ours, teacher, strict=True)
        ]
    )
    tensors = [[torch.from_numpy(each) for each in maps] for maps in (ours, teacher)]
    assert float(feature_distance(*tensors)) == pytest.approx(expected, rel=1e-5)
    assert float(feature_distance(tensors[1], tensors[1])) == 0


@pytest.mark.parametrize("corners", [True, False])
def test_the_objective_is_the_weighted_sum_that_was_configured(corners: bool) -> None:
    logits, mask = random_case()
    z, m = torch.from_numpy(logits).float(), torch.from_numpy(mask)
    auxiliary = torch.from_numpy(logits[..., ::2, ::2].copy()).float()
    settings = LossSettings(bce=0.5, dice=0.25, nfl=2.0, auxiliary="nfl", distillation=0.75, features=0.3)
    config = TrainingConfig(mixture={"a": 1}, steps=1, loss=settings, auxiliary_weight=0.4)
    maps = (torch.randn(3, 4, 5, 5), torch.randn(3, 2, 3, 3))
    own = tuple(each + 1 for each in maps)
    extras = Extras(torch.zeros(3, 1, 3), None, own, Taught(maps, -z), align_corners=corners)
    got = objective(Outputs(z, auxiliary), m, extras, config)
    full = torch.nn.functional.interpolate(auxiliary, size=(8, 8), mode="bilinear", align_corners=corners)
    expected = 0.5 * bce(z, m) + 0.25 * dice(z, m) + 2 * normalised_focal(z, m)
    expected = expected + 0.4 * normalised_focal(full, m) + 0.75 * distillation(z, -z, m)
    apart = np.mean([1 / each.numpy().var(axis=(0, 2, 3), ddof=1).mean() for each in maps])
    assert float(got) == pytest.approx(float(expected.mean()) + 0.3 * apart, rel=1e-6)

    weighed = replace(config, loss=LossSettings(dice=0.0, boundary=3.0, boundary_width=1), auxiliary_weight=0)
    band = 1 + 3 * near_boundary(m, 1)
    got = objective(Outputs(z, auxiliary), m, Extras(extras.clicks), weighed)
    assert float(got) == pytest.approx(float(bce(z, m, band).mean()), rel=1e-6)

    clicked = (torch.rand(m.shape) < 0.2).float()
    weighed = replace(config, loss=LossSettings(dice=0.0, clicked=5.0), auxiliary_weight=0)
    got = objective(Outputs(z, auxiliary), m, Extras(extras.clicks, clicked=clicked), weighed)
    assert float(got) == pytest.approx(float(bce(z, m, 1 + 5 * clicked).mean()), rel=1e-6)


def test_mean_iou_counts_valid_pixels_only() -> None:
    mask = torch.tensor([[[[1, 1, 0, 255]]]], dtype=torch.uint8)
    assert mean_iou(torch.tensor([[[[1.0, -1.0, 1.0, 1.0]]]]), mask) == pytest.approx(1 / 3)
