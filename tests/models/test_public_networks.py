"""Recognition from names and shapes alone, against lists of tensors written out from the public code."""

from __future__ import annotations

import pytest
import torch
from public_files import conv1s_shapes, deeplab_shapes, map_fusion_shapes

from clickmask_models.cdnet import CDNetConfig
from clickmask_models.click_maps import ClickMapConfig
from clickmask_models.presets import build_network, preset
from clickmask_models.public_keys import DEEPLAB, public_names
from clickmask_models.public_networks import recognise


def without_diffusion(**changes) -> CDNetConfig:
    return CDNetConfig(feature_diffusion=None, pixel_diffusion=None, **changes)


RITM_34 = without_diffusion(
    backbone="resnet34", stem="v1b", click_map=ClickMapConfig("disk", 5.0), fusion="conv1s", channels=128
)


@pytest.mark.parametrize(
    ("depth", "channels", "fusion", "config"),
    [
        (34, 128, conv1s_shapes(), RITM_34),
        (
            18,
            64,
            conv1s_shapes(maps=3),
            without_diffusion(
                backbone="resnet18",
                stem="v1b",
                channels=64,
                click_map=ClickMapConfig("disk", 5.0),
                fusion="conv1s",
                previous_mask=True,
            ),
        ),
        (
            50,
            128,
            map_fusion_shapes(),
            without_diffusion(backbone="resnet50", click_map=ClickMapConfig("distance", 260.0)),
        ),
        (
            101,
            256,
            map_fusion_shapes(),
            without_diffusion(
                backbone="resnet101", channels=256, dropout=0.5, click_map=ClickMapConfig("distance", 260.0)
            ),
        ),
    ],
)
def test_deeplab_of_every_depth_is_told_and_mapped_whole(depth, channels, fusion, config):
    shapes = deeplab_shapes(depth, channels) | fusion
    public = recognise(shapes, {})
    assert public.config == config
    with torch.device("meta"):
        ours = build_network(public.config).state_dict()
    names = public_names(ours, public.names)
    assert {names[name]: tuple(value.shape) for name, value in ours.items()} == shapes


def test_title_names_owner_and_architecture():
    assert (
        recognise(deeplab_shapes(34, 128) | conv1s_shapes(), {}).title
        == "RITM DeepLabV3+, ResNet-34, 128 channels"
    )
    fbrs = recognise(deeplab_shapes(50, 128) | map_fusion_shapes(), {})
    assert fbrs.title == "f-BRS DeepLabV3+, ResNet-50, 128 channels"


def test_stored_settings_decide_what_tensors_do_not_show():
    shapes = deeplab_shapes(18, 16) | conv1s_shapes()
    config = recognise(shapes, {"use_disks": False, "norm_radius": 260, "aspp_dropout": 0.3}).config
    assert config.click_map == ClickMapConfig("distance", 260.0)
    assert config.dropout == 0.3


def changed(shapes, remove=(), **add):
    return {name: shape for name, shape in shapes.items() if name not in remove} | add


SHAPES = deeplab_shapes(18, 16) | conv1s_shapes()
# What tells one HRNet from another; the rest of its tensors is compared when they are loaded.
HRNET_48 = {
    "feature_extractor.stage4.0.branches.0.0.conv1.weight": (48, 48, 3, 3),
    "feature_extractor.ocr_distri_head.object_context_block.f_down.0.weight": (128, 256, 1, 1),
}


@pytest.mark.parametrize(
    ("shapes", "settings", "said"),
    [
        (SHAPES | {"refiner.trimap.0.weight": (1,)}, {}, "FocalClick"),
        ({"backbone.patch_embed.proj.weight": (768, 3, 16, 16)}, {}, "SimpleClick"),
        ({"image_encoder.pos_embed": (1, 64, 64, 768)}, {}, "Segment Anything"),
        ({"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 512)}, {}, r"conv1\.weight, fc\.weight"),
        (deeplab_shapes(152, 128) | conv1s_shapes(), {}, r"\(3, 8, 36, 3\) bottlenecks is none of resnet18"),
        (HRNET_48 | conv1s_shapes(), {}, "HRNet of width 48 is none of hrnet18s"),
        (HRNET_48 | map_fusion_shapes(), {}, r"HRNet that fuses maps with the image \(f-BRS\)"),
        (SHAPES | conv1s_shapes(maps=6), {}, "got 6 channels"),
        (deeplab_shapes(18, 16), {}, r"missing maps_transform\.0\.weight"),
        (SHAPES | {"maps_transform.0.weight": ()}, {}, "expected that of a convolution"),
        (
            SHAPES,
            {"use_disks": True, "norm_radius": "5"},
            "norm_radius: expected a number of pixels, got '5'",
        ),
        (SHAPES, {"use_disks": True, "norm_radius": 0}, "size must be positive"),
        (SHAPES, {"aspp_dropout": 1.5}, "aspp_dropout"),
        (
            deeplab_shapes(18, 16) | {"rgb_conv.0.weight": (8, 5, 1, 1), "rgb_conv.1.running_mean": (8,)},
            {},
            "in RITM's form",
        ),
        (
            SHAPES | {"feature_extractor.FDM.t.weight": (16, 16, 1, 1)},
            {"use_disks": True, "norm_radius": 3},
            "disks of 5 px whatever its settings say",
        ),
    ],
)
def test_what_is_not_built_here_is_refused_by_name(shapes, settings, said):
    with pytest.raises(ValueError, match=said):
        recognise(shapes, settings)


def test_table_that_does_not_cover_a_network_is_an_error():
    with pytest.raises(KeyError, match=r"fusion\.scale"):
        public_names(["backbone.conv1.weight", "fusion.scale"], DEEPLAB)


@pytest.mark.parametrize(
    ("name", "depth", "channels", "fusion"),
    [
        ("ritm_resnet34", 34, 128, conv1s_shapes()),
        ("fbrs_resnet34", 34, 128, map_fusion_shapes()),
        ("fbrs_resnet50", 50, 128, map_fusion_shapes()),
        ("fbrs_resnet101", 101, 256, map_fusion_shapes()),
    ],
)
def test_released_networks_have_presets(name, depth, channels, fusion):
    assert recognise(deeplab_shapes(depth, channels) | fusion, {}).config == preset(name)
