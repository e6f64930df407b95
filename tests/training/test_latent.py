"""Diversified Training against plain NumPy (CDNet, Eq. 9-11)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clickmask_models.encode_once import EncodeOnceCDNet
from clickmask_training.latent import LatentHeads, latent_losses
from clickmask_training.losses import normalised_focal
from clickmask_training.settings import LossSettings


def cross_entropy(z: np.ndarray, target: np.ndarray) -> np.ndarray:
    p = 1 / (1 + np.exp(-z))
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


def case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    latent = rng.normal(0, 2, (3, 4, 12, 16))
    mask = rng.choice([0, 1, 1, 255], (3, 1, 12, 16)).astype(np.uint8)
    clicks = np.array([[[3, 4, 1], [9, 2, 0]], [[15, 11, 1], [-1, -1, -1]], [[0, 0, 0], [7, 7, 1]]], float)
    return latent, mask, clicks


def near(clicks: np.ndarray, disk: bool) -> np.ndarray:
    rows, columns = np.mgrid[:12, :16]
    out = np.zeros((12, 16))
    for x, y, label in clicks:
        if label >= 0:
            squared = (columns - x) ** 2 + (rows - y) ** 2
            out = np.maximum(out, squared <= 25 if disk else np.exp(-squared / 200))
    return 0.99 * out + 0.01 if disk else out


@pytest.mark.parametrize("click_map", ["gaussian", "disk"])
def test_losses_equal_the_papers_equations(click_map: str) -> None:
    latent, mask, clicks = case()
    diverse, around, weights = [], [], []
    for z, m, c in zip(latent, mask[:, 0], clicks, strict=True):
        valid, target = m != 255, (m == 1).astype(float)
        losses = cross_entropy(z, target[None])
        diverse.append(min(loss[valid].mean() for loss in losses))
        weight = near(c, click_map == "disk") * valid
        around.append((losses * weight).sum())
        weights.append(weight.sum())
    expected = np.mean(np.array(around) / weights) if click_map == "gaussian" else sum(around) / sum(weights)
    got = latent_losses(
        torch.from_numpy(latent),
        torch.from_numpy(mask),
        torch.from_numpy(clicks),
        LossSettings(latent_heads=4, click_map=click_map),
        align_corners=True,
    )
    assert float(got[0]) == pytest.approx(np.mean(diverse), rel=1e-5)
    assert float(got[1]) == pytest.approx(expected, rel=1e-5)


def test_the_public_codes_kind_is_the_focal_loss_of_each_head() -> None:
    latent, mask, clicks = (torch.from_numpy(part) for part in case())
    settings = LossSettings(bce=0.0, dice=0.0, nfl=1.0, latent_heads=4)
    diverse, _ = latent_losses(latent, mask, clicks, settings, align_corners=True)
    heads = torch.stack([normalised_focal(latent[:, [head]], mask) for head in range(4)])
    assert float(diverse) == pytest.approx(float(heads.amin(dim=0).mean()), rel=1e-5)


def test_only_the_best_head_of_a_sample_learns_from_the_truth() -> None:
    latent, mask, clicks = (torch.from_numpy(part) for part in case())
    latent.requires_grad_()
    diverse, _ = latent_losses(latent, mask, clicks, LossSettings(latent_heads=4), align_corners=True)
    diverse.backward()
    assert latent.grad is not None
    assert ((latent.grad != 0).any(dim=3).any(dim=2).sum(dim=1) == 1).all()


def test_the_whole_network_learns_from_the_latent_heads() -> None:
    torch.manual_seed(0)
    network = EncodeOnceCDNet()
    heads = LatentHeads(network, 2)
    image, clicks = torch.rand(2, 3, 64, 64), torch.tensor([[[20.0, 30.0, 1.0]]]).expand(2, -1, -1)
    network(image, clicks, torch.zeros(2, 1, 64, 64))
    heads().square().mean().backward()
    for part in (
        network.decoder.fuse,
        network.backbone.features[0],
    ):  # the last and the first of all
        gradient = next(part.parameters()).grad
        assert gradient is not None
        assert gradient.abs().sum() > 0
