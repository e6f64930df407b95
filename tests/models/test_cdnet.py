"""CDNet's variants: shapes, what clicks do, and what the configuration refuses."""

from __future__ import annotations

import dataclasses
import io

import pytest
import torch

from clickmask_models.cdnet import CDNet, CDNetConfig
from clickmask_models.feature_diffusion import FeatureDiffusionConfig
from clickmask_models.fusion import Conv1S, MapFusion
from clickmask_models.presets import preset

SMALL = CDNetConfig(backbone="resnet18", stem="v1b", channels=32)
CLICKS = torch.tensor([[[20.0, 30.0, 1.0], [60.0, 10.0, 0.0], [-1.0, -1.0, -1.0]]])


def build(**options) -> CDNet:
    torch.manual_seed(0)
    return CDNet(dataclasses.replace(SMALL, **options)).eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fusion": "conv1s"},
        {"backbone": "resnet34"},
        {"backbone": "resnet50", "stem": "v1s", "fusion": "conv1s"},
        {"backbone": "mobilenet_v2", "rates": (6, 12, 18), "align_corners": False},
        {"backbone": "mobilenet_v2", "fusion": "conv1s", "align_corners": False},
        {"feature_diffusion": None},
        {"feature_diffusion": FeatureDiffusionConfig("v3", source_kind="disk_24px")},
    ],
    ids=str,
)
def test_logits_have_the_size_of_the_image(options):
    with torch.no_grad():
        logits, auxiliary = build(**options).forward_with_auxiliary(
            torch.rand(2, 3, 64, 96), CLICKS.repeat(2, 1, 1)
        )
    assert logits.shape == (2, 1, 64, 96)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    stride = 16 if options.get("backbone") == "mobilenet_v2" else 8
    expected = None if options.get("feature_diffusion", True) is None else (2, 1, 64 // stride, 96 // stride)
    assert (None if auxiliary is None else auxiliary.shape) == expected


def test_sizes_divisible_by_nothing_work_with_resnets():
    with torch.no_grad():
        assert build()(torch.rand(1, 3, 53, 71), CLICKS).shape == (1, 1, 53, 71)


@pytest.mark.parametrize("fusion", ["map_fusion", "conv1s"])
def test_clicks_change_the_logits_but_not_by_order_or_padding(fusion):
    network = build(fusion=fusion)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = network(image, CLICKS)
        assert torch.equal(network(image, CLICKS.flip(1)), expected)
        assert torch.equal(network(image, CLICKS[:, :2]), expected)
        assert not torch.allclose(network(image, CLICKS[:, :1]), expected)
        assert torch.isfinite(network(image, CLICKS[:, 2:])).all()


def test_gaussian_source_peaks_at_the_cell_that_sees_the_click():
    network = build()
    clicks = torch.tensor([[[40.0, 24.0, 1.0]]])  # cell (5, 3) of a ResNet looks at pixel (40, 24)
    sources = network._sources(clicks, network.config.feature_diffusion, (64, 96), (8, 12))
    assert sources[0, 0, 3, 5] == 1.0
    assert sources[0, 0, 3, 6] == pytest.approx(0.6065, abs=1e-4)
    assert not sources[0, 1].any()


def test_previous_mask_is_used_where_configured_and_asked_for():
    network = build(previous_mask=True)
    assert network.takes_previous_mask
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        empty = network(image, CLICKS, torch.zeros(1, 1, 64, 96))
        assert not torch.allclose(network(image, CLICKS, torch.ones(1, 1, 64, 96)), empty)
    with pytest.raises(ValueError, match="previous mask"):
        network(image, CLICKS)


def test_every_parameter_of_the_paper_s_network_gets_a_gradient():
    network = CDNet(SMALL).train()
    logits, auxiliary = network.forward_with_auxiliary(torch.rand(2, 3, 64, 64), CLICKS.repeat(2, 1, 1))
    (logits.square().mean() + auxiliary.square().mean()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_half_precision_body_gives_float32_logits():
    network = build().half()
    with torch.no_grad():
        logits = network(torch.rand(1, 3, 64, 64).half(), CLICKS)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


def test_normalises_inside():
    """An image of the mean colour reaches Map Fusion as zeros."""
    network = build()
    seen = {}
    network.fusion.register_forward_hook(lambda _module, inputs, _output: seen.update(image=inputs[0]))
    with torch.no_grad():
        network(torch.tensor(network.mean).view(1, 3, 1, 1).expand(1, 3, 64, 64), CLICKS)
    assert seen["image"].abs().max() < 1e-6


def test_published_parameter_count_of_the_official_network():
    """23,465,815 recorded, less the training head (14,532) that inference drops."""
    training_head = 128 * 9 + 128 * 64 + 2 * 64 + 64 * 9 + 64 * 64 + 2 * 64 + 4 * 64 + 4
    assert sum(p.numel() for p in CDNet(preset("official")).parameters()) == 23_465_815 - training_head


def test_state_dict_round_trip_is_strict():
    network = build()
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    other = CDNet(SMALL).eval()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(other(image, CLICKS), network(image, CLICKS))


def test_map_fusion_makes_three_channels_and_conv1s_halves():
    image, maps = torch.rand(1, 3, 33, 40), torch.rand(1, 2, 33, 40)
    assert MapFusion(2)(image, maps).shape == (1, 3, 33, 40)
    fusion = Conv1S(2)
    assert fusion(maps).shape == (1, 64, 17, 20)
    assert fusion.scale.item() == pytest.approx(0.05)
    with torch.no_grad():
        expected = fusion(maps)
        fusion.scale.neg_()
        assert torch.equal(fusion(maps), expected)


@pytest.mark.parametrize(
    ("name", "value"), [("backbone", "resnet20"), ("fusion", "sum"), ("channels", 33), ("stem", "v9")]
)
def test_bad_option_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        CDNet(dataclasses.replace(SMALL, **{name: value}))
