"""RITM's networks: sizes, what clicks and the previous mask do, and what the configuration refuses."""

from __future__ import annotations

import pytest
import torch

from clickmask_models.presets import preset
from clickmask_models.ritm import RITM, RITMConfig

CLICKS = torch.tensor([[[20.0, 30.0, 1.0], [60.0, 10.0, 0.0], [-1.0, -1.0, -1.0]]])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return RITM(RITMConfig()).eval()


@pytest.mark.parametrize(
    ("name", "channels", "published"),
    [
        ("ritm_hrnet18s", 48, 4_220_047),
        ("ritm_hrnet18", 64, 10_032_019),
        ("ritm_hrnet32", 128, 30_951_363),
    ],
)
def test_parameters_are_the_published_ones_less_ocr_s_queries_and_keys(name, channels, published):
    """4.22, 10.03 and 30.95 million; see ``ocr`` for the two pairs of layers that have no effect."""
    query = 2 * channels * channels + 2 * channels + channels * channels + 2 * channels
    assert sum(p.numel() for p in RITM(preset(name)).parameters()) == published - 2 * query


@pytest.mark.parametrize(("height", "width"), [(64, 96), (53, 71)])
def test_logits_have_the_size_of_the_image(network, height, width):
    with torch.no_grad():
        logits, auxiliary = network.forward_with_auxiliary(
            torch.rand(2, 3, height, width), CLICKS.repeat(2, 1, 1), torch.zeros(2, 1, height, width)
        )
    assert logits.shape == (2, 1, height, width)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert auxiliary.shape == (2, 1, -(-height // 4), -(-width // 4))


def test_clicks_change_the_logits_but_not_by_order_or_padding(network):
    image, mask = torch.rand(1, 3, 64, 96), torch.zeros(1, 1, 64, 96)
    with torch.no_grad():
        expected = network(image, CLICKS, mask)
        assert torch.equal(network(image, CLICKS.flip(1), mask), expected)
        assert torch.equal(network(image, CLICKS[:, :2], mask), expected)
        assert not torch.allclose(network(image, CLICKS[:, :1], mask), expected)
        assert torch.isfinite(network(image, CLICKS[:, 2:], mask)).all()


def test_previous_mask_changes_the_logits_and_is_asked_for(network):
    image, mask = torch.rand(1, 3, 64, 96), torch.zeros(1, 1, 64, 96)
    with torch.no_grad():
        assert not torch.allclose(network(image, CLICKS, mask + 1), network(image, CLICKS, mask))
    with pytest.raises(ValueError, match="takes a previous mask"):
        network(image, CLICKS)


def test_network_without_previous_mask_ignores_one():
    network = RITM(RITMConfig(previous_mask=False)).eval()
    assert not network.takes_previous_mask
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(network(image, CLICKS, torch.ones(1, 1, 64, 96)), network(image, CLICKS))


def test_every_parameter_gets_a_gradient():
    network = RITM(RITMConfig()).train()
    logits, _ = network.forward_with_auxiliary(
        torch.rand(2, 3, 64, 64), CLICKS.repeat(2, 1, 1), torch.rand(2, 1, 64, 64)
    )
    logits.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_half_precision_body_gives_float32_logits():
    network = RITM(RITMConfig()).half().eval()
    with torch.no_grad():
        logits = network(torch.rand(1, 3, 64, 64).half(), CLICKS, torch.zeros(1, 1, 64, 64))
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("name", "value"), [("backbone", "hrnet64"), ("ocr_channels", 0), ("dropout", 1.0), ("dropout", -0.1)]
)
def test_bad_option_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        RITMConfig(**{name: value})
