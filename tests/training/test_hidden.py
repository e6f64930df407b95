"""Fewer hidden channels in the backbone: what the others make up for goes, and the features stay."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from clickmask_models.backbones.mobilenet_v2 import HIDDEN
from clickmask_models.encode_once import EncodeOnceCDNet
from clickmask_models.presets import build_network, preset
from clickmask_training.checks import ConfigError
from clickmask_training.hidden import cut_hidden, keep_channels

HALF = tuple(count // 2 for count in HIDDEN)


def least_squares_loss(x: np.ndarray, y: np.ndarray) -> float:
    with_constant = np.column_stack([x, np.ones(len(x))])
    solution = np.linalg.lstsq(with_constant, y, rcond=None)[0]
    return float(((with_constant @ solution - y) ** 2).mean())


def test_the_first_channel_to_go_is_the_one_that_costs_least() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6)) + 1
    y = x @ rng.normal(size=(6, 3)) + rng.normal(size=(400, 3))
    kept, weight, bias = keep_channels(torch.tensor(x).float(), torch.tensor(y).float(), 5)
    losses = [least_squares_loss(np.delete(x, gone, axis=1), y) for gone in range(6)]
    assert kept.tolist() == [index for index in range(6) if index != int(np.argmin(losses))]
    fitted = x[:, kept.numpy()] @ weight.numpy().T + bias.numpy()
    assert ((fitted - y) ** 2).mean() == pytest.approx(min(losses), rel=1e-3)


def test_channels_that_others_make_up_for_go() -> None:
    rng = np.random.default_rng(1)
    free = rng.normal(size=(500, 4))
    x = np.column_stack([free, free @ rng.normal(size=(4, 4)) + 2])  # 8 channels, 4 directions and a constant
    y = x @ rng.normal(size=(8, 5)) + rng.normal(size=5)
    kept, weight, bias = keep_channels(torch.tensor(x).float(), torch.tensor(y).float(), 4)
    fitted = x[:, kept.numpy()] @ weight.numpy().T + bias.numpy()
    np.testing.assert_allclose(fitted, y, atol=0.02 * y.std())  # the ridge costs a little
    assert all(  # none of the four is to spare
        least_squares_loss(x[:, list(three)], y) > 1e-3 * y.var()
        for three in itertools.combinations(range(8), 3)
    )


@torch.no_grad()
def redundant_network() -> EncodeOnceCDNet:
    """Every second hidden channel of each block is the one before it once more."""
    torch.manual_seed(0)
    network = build_network(preset("encode_once_mobilenet_v2")).eval()
    features = network.backbone.features
    for index in range(1, len(features)):
        convolutions = [
            features[index].conv[-2][0],
            features[0][0] if index == 1 else features[index].conv[0][0],
        ]
        for convolution in convolutions:
            convolution.weight[1::2] = convolution.weight[::2]
            convolution.bias[1::2] = convolution.bias[::2]
    return network


@pytest.fixture(scope="module")
def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = [torch.rand(16, 3, 8, 8, generator=generator) for _ in range(2)]
    return [
        torch.nn.functional.interpolate(each, scale_factor=8, mode="bicubic").clamp(0, 1) for each in coarse
    ]


def test_a_backbone_that_says_all_twice_loses_nothing(images: list[torch.Tensor]) -> None:
    network = redundant_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    half = cut_hidden(network, HALF, images)
    assert half.config.hidden == HALF
    assert half.backbone.features[17].conv[0][0].weight.shape == (480, 160, 1, 1)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    with torch.no_grad():
        for whole, cut in zip(network.encode(images[0]), half.encode(images[0]), strict=True):
            assert ((whole - cut).square().mean() / whole.var()).sqrt() < 0.05


def test_blocks_before_the_first_cut_stay_to_the_bit(images: list[torch.Tensor]) -> None:
    torch.manual_seed(1)
    network = build_network(preset("encode_once_mobilenet_v2")).eval()
    cut = cut_hidden(network, (*HIDDEN[:9], 192, *HIDDEN[10:]), images)
    whole, kept = network.backbone.features, cut.backbone.features
    torch.testing.assert_close(kept[:10].state_dict(), whole[:10].state_dict(), rtol=0, atol=0)
    assert kept[10].conv[0][0].weight.shape[0] == 192
    assert not torch.equal(kept[11].conv[-1].weight, whole[11].conv[-1].weight)  # makes up for block 10


def test_what_it_does_not_have_is_refused(images: list[torch.Tensor]) -> None:
    network = build_network(preset("encode_once_mobilenet_v2")).eval()
    with pytest.raises(ConfigError, match="--hidden: expected 17 numbers from 1 to"):
        cut_hidden(network, HALF[:-1], images)
    with pytest.raises(ConfigError, match="--hidden: expected 17 numbers from 1 to"):
        cut_hidden(network, (*HALF[:-1], 961), images)
    with pytest.raises(ConfigError, match="expected an encode-once network, got CDNet"):
        cut_hidden(build_network(preset("official")), HALF, images)
