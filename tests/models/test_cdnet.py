"""CDNet's variants: shapes, sources, and what the configuration refuses (see also ``test_click_network``)."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from clickmask_models.cdnet import CDNet, CDNetConfig
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
        {"backbone": "resnet34"},
        {"backbone": "resnet50", "stem": "v1s", "fusion": "conv1s"},
        {"backbone": "mobilenet_v2", "rates": (6, 12, 18), "align_corners": False},
        {"backbone": "mobilenet_v2", "fusion": "conv1s", "align_corners": False},
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
    stride = 16 if options["backbone"] == "mobilenet_v2" else 8
    assert auxiliary.shape == (2, 1, 64 // stride, 96 // stride)


def test_gaussian_source_peaks_at_the_cell_that_sees_the_click():
    network = build()
    clicks = torch.tensor([[[40.0, 24.0, 1.0]]])  # cell (5, 3) of a ResNet looks at pixel (40, 24)
    sources = network._sources(clicks, network.config.feature_diffusion, (64, 96), (8, 12))
    assert sources[0, 0, 3, 5] == 1.0
    assert sources[0, 0, 3, 6] == pytest.approx(0.6065, abs=1e-4)
    assert not sources[0, 1].any()


def test_published_parameter_count_of_the_official_network():
    """23,465,815 recorded, less the training head (14,532) that inference drops."""
    training_head = 128 * 9 + 128 * 64 + 2 * 64 + 64 * 9 + 64 * 64 + 2 * 64 + 4 * 64 + 4
    with torch.device("meta"):
        network = CDNet(preset("official"))
    assert sum(p.numel() for p in network.parameters()) == 23_465_815 - training_head


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
