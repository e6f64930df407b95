"""What every network with clicks at the stem does, whatever follows the stem."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from clickmask_models.cdnet import CDNetConfig
from clickmask_models.csfp import CSFPConfig
from clickmask_models.feature_diffusion import FeatureDiffusionConfig
from clickmask_models.fusion import Conv1S, MapFusion
from clickmask_models.presets import build_network
from clickmask_models.ritm import RITMConfig

CLICKS = torch.tensor([[[20.0, 30.0, 1.0], [60.0, 10.0, 0.0], [-1.0, -1.0, -1.0]]])
CDNET = CDNetConfig("resnet18", "v1b", channels=32)
CONFIGS = {
    "cdnet, paper": CDNET,
    "cdnet, public code": replace(
        CDNET, fusion="conv1s", feature_diffusion=FeatureDiffusionConfig("v3", source_kind="disk_24px")
    ),
    "cdnet, baseline": replace(CDNET, feature_diffusion=None),
    "csfp, hrnet": CSFPConfig("hrnet18s", channels=16),
    "csfp, deeplab": CSFPConfig("resnet34", channels=16, dropout=0.2),
    "ritm": RITMConfig(),
}
# Stride of the auxiliary logits.
AUXILIARY = {"cdnet, paper": 8, "cdnet, public code": 8, "csfp, hrnet": 4, "ritm": 4}


@pytest.fixture(scope="module", params=CONFIGS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name):
    torch.manual_seed(0)
    network = build_network(replace(CONFIGS[name], previous_mask=True)).eval()
    if isinstance(network.fusion, Conv1S):
        with torch.no_grad():
            network.fusion.scale.fill_(1.0)  # untrained, clicks would hardly be seen
    return network


def inputs(height=64, width=96, batch=1):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(batch, 3, height, width, generator=generator)
    return image, CLICKS.repeat(batch, 1, 1), torch.zeros(batch, 1, height, width)


def test_logits_have_the_size_of_the_image_even_one_divisible_by_nothing(name, network):
    with torch.no_grad():
        logits, auxiliary = network.forward_with_auxiliary(*inputs(53, 71, batch=2))
    assert logits.shape == (2, 1, 53, 71)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    stride = AUXILIARY.get(name)
    expected = stride and (2, 1, -(-53 // stride), -(-71 // stride))
    assert (None if auxiliary is None else auxiliary.shape) == expected


def test_clicks_change_the_logits_but_not_by_order_or_padding(network):
    image, clicks, mask = inputs()
    with torch.no_grad():
        expected = network(image, clicks, mask)
        torch.testing.assert_close(network(image, clicks.flip(1), mask), expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(network(image, clicks[:, :2], mask), expected, rtol=0, atol=1e-4)
        assert (network(image, clicks[:, :1], mask) - expected).abs().max() > 1e-3
        assert torch.isfinite(network(image, clicks[:, 2:], mask)).all()


def test_previous_mask_changes_the_logits_and_is_asked_for(network):
    assert network.takes_previous_mask
    image, clicks, mask = inputs()
    with torch.no_grad():
        assert not torch.allclose(network(image, clicks, mask + 1), network(image, clicks, mask))
    with pytest.raises(ValueError, match="takes a previous mask"):
        network(image, clicks)


def test_network_without_previous_mask_ignores_one(name):
    network = build_network(replace(CONFIGS[name], previous_mask=False)).eval()
    assert not network.takes_previous_mask
    image, clicks, mask = inputs(32, 32)
    with torch.no_grad():
        assert torch.equal(network(image, clicks, mask + 1), network(image, clicks))


def test_normalises_inside(network):
    """An image of the mean colour reaches the first layer that sees it as zeros."""
    seen = []
    first = next(layer for layer in network.backbone.modules() if isinstance(layer, nn.Conv2d))
    hook = (network.fusion if isinstance(network.fusion, MapFusion) else first).register_forward_hook(
        lambda _module, inputs, _output: seen.append(inputs[0])
    )
    _, clicks, mask = inputs(32, 32)
    with torch.no_grad():
        network(torch.tensor(network.mean).view(1, 3, 1, 1).expand(1, 3, 32, 32), clicks, mask)
    hook.remove()
    assert seen[0].shape == (1, 3, 32, 32)
    assert seen[0].abs().max() < 1e-6


def test_every_parameter_gets_a_gradient(name):
    network = build_network(CONFIGS[name]).train()
    logits, auxiliary = network.forward_with_auxiliary(*inputs(batch=2))
    loss = logits.square().mean()
    (loss if auxiliary is None else loss + auxiliary.square().mean()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_half_precision_body_gives_float32_logits(name):
    network = build_network(CONFIGS[name]).half().eval()
    image, clicks, mask = inputs(32, 32)
    with torch.no_grad():
        logits = network(image.half(), clicks, mask)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
