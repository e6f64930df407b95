"""Named configurations: what they hold, and that each can be built and described in JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from clickmask_models.config_json import config_from_json, config_to_json
from clickmask_models.presets import DEFAULT, PRESETS, build_network, pipeline, preset
from clickmask_models.sparse_propagation import SparsePropagationConfig


@pytest.mark.parametrize("name", PRESETS)
def test_configuration_survives_json(name):
    assert config_from_json(json.loads(json.dumps(config_to_json(preset(name))))) == preset(name)


@pytest.mark.parametrize("name", [DEFAULT, "official", "csfp_official", "ritm_hrnet18s", "fbrs_resnet34"])
def test_network_can_be_built_and_run(name):
    network = build_network(preset(name)).eval()
    clicks = torch.tensor([[[10.0, 20.0, 1.0]]])
    with torch.no_grad():
        logits = network(torch.rand(1, 3, 64, 64), clicks, torch.zeros(1, 1, 64, 64))
    assert logits.shape == (1, 1, 64, 64)
    assert network.config == preset(name)


def test_paper_follows_the_paper():
    config = preset("paper")
    assert (config.backbone, config.fusion, config.previous_mask) == ("resnet50", "map_fusion", False)
    assert (config.click_map.kind, config.click_map.size) == ("gaussian", 10.0)
    assert (config.feature_diffusion.variant, config.feature_diffusion.source_kind) == ("fdm", "gaussian")
    pixel = config.pixel_diffusion
    assert (pixel.iterations, pixel.amplitude, pixel.cutoff, pixel.affinity) == (10, 1.0, None, "paper")
    crop = pipeline("paper").crop
    assert (crop.kind, crop.start_click, crop.hysteresis_iou) == ("fbrs", 3, 0.5)


def test_official_follows_the_public_code():
    config = preset("official")
    assert (config.backbone, config.fusion, config.channels) == ("resnet34", "conv1s", 128)
    assert (config.click_map.kind, config.click_map.size) == ("disk", 5.0)
    assert (config.feature_diffusion.variant, config.feature_diffusion.source_kind) == ("v3", "disk_24px")
    pixel = config.pixel_diffusion
    assert (pixel.iterations, pixel.amplitude, pixel.cutoff, pixel.affinity) == (5, 10.0, 0.25, "official")
    around = pipeline("official")
    assert (around.sizes, around.fit, around.coordinates) == ((384,), "squash", "public")
    assert (around.crop.kind, around.crop.start_click, around.crop.min_size) == ("paper", 2, 10)
    assert around.flip_averaging


@pytest.mark.parametrize(
    ("name", "backbone", "channels"),
    [("ritm_hrnet18s", "hrnet18s", 48), ("ritm_hrnet18", "hrnet18", 64), ("ritm_hrnet32", "hrnet32", 128)],
)
def test_ritm_follows_its_public_code(name, backbone, channels):
    config = preset(name)
    assert (config.backbone, config.ocr_channels, config.previous_mask) == (backbone, channels, True)
    assert (config.click_map.kind, config.click_map.size) == ("disk", 5.0)
    assert config.pixel_diffusion is None


@pytest.mark.parametrize(
    ("name", "stem", "channels", "dropout"),
    [
        ("fbrs_resnet34", "v1b", 128, 0.2),
        ("fbrs_resnet50", "v1s", 128, 0.2),
        ("fbrs_resnet101", "v1s", 256, 0.5),
    ],
)
def test_fbrs_follows_its_public_code(name, stem, channels, dropout):
    config = preset(name)
    assert (config.backbone, config.stem) == (name.removeprefix("fbrs_"), stem)
    assert (config.channels, config.dropout) == (channels, dropout)
    assert (config.fusion, config.previous_mask) == ("map_fusion", False)
    assert (config.click_map.kind, config.click_map.size) == ("distance", 260.0)
    assert config.feature_diffusion is config.pixel_diffusion is None


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("csfp_paper")])
def test_csfp_paper_follows_the_paper(name):
    config = preset(name)
    assert config.propagation == SparsePropagationConfig(heads=1, key_reduction=1, scaled=False, gamma=False)
    assert config.previous_mask
    assert (config.click_map.kind, config.click_map.size) == ("disk", 5.0)
    crop = pipeline(name).crop
    assert (crop.kind, crop.start_click, crop.min_size) == ("global_to_local", 1, 1)
    assert (crop.expansion, crop.small_object_expansion) == (1.4, 1.0)


def test_csfp_official_follows_the_public_code():
    config = preset("csfp_official")
    assert (config.backbone, config.channels, config.dropout) == ("hrnet18", 64, 0.05)
    assert config.previous_mask
    propagation = config.propagation
    assert (propagation.heads, propagation.key_reduction) == (3, 3)
    assert propagation.scaled
    assert propagation.gamma
    assert propagation.drops_first_cell
    around = pipeline("csfp_official")
    assert (around.threshold, around.flip_averaging) == (0.49, True)
    crop = around.crop
    assert (crop.kind, crop.start_click, crop.min_size) == ("global_to_local", 1, 1)
    assert (crop.expansion, crop.small_object_expansion) == (1.4, 2.5)


@pytest.mark.parametrize("name", ["ritm_hrnet18", "ritm_resnet34", "fbrs_resnet50"])
def test_zoom_in_is_that_of_fbrs(name):
    around = pipeline(name)
    assert (around.fit, around.coordinates, around.flip_averaging) == ("letterbox", "public", True)
    assert around.threshold == 0.49
    crop = around.crop
    assert (crop.kind, crop.start_click, crop.min_size) == ("fbrs", 2, 200)
    assert (crop.expansion, crop.hysteresis_iou, crop.small_object_expansion) == (1.4, 0.5, 1.0)


@pytest.mark.parametrize("name", [DEFAULT, "encode_once_csfp"])
def test_what_encodes_once_keeps_its_crop_for_as_long_as_it_can(name):
    """The numbers that docs/decisions/0023 chose; the session's own ``stable`` has the same."""
    crop = pipeline(name).crop
    assert (crop.kind, crop.start_click, crop.min_size) == ("stable", 2, 64)
    assert (crop.expansion, crop.min_fraction, crop.hysteresis_iou) == (1.3, 0.35, 0.3)
    assert crop.close_above == 1.25
    assert pipeline(name).momentum == 0.25  # docs/decisions/0034
    policies = pytest.importorskip("clickmask.crop")
    assert policies.CropPolicy(**dataclasses.asdict(crop)) == policies.CropPolicy.named("stable")


def test_no_two_presets_have_the_same_network():
    """The export finds a checkpoint's preset by its configuration."""
    networks = [preset(name) for name in PRESETS]
    assert all(a != b for i, a in enumerate(networks) for b in networks[:i])


@pytest.mark.parametrize("name", PRESETS)
def test_pipeline_is_one_that_a_bundle_can_hold(name):
    crop = pytest.importorskip("clickmask.crop")
    around = pipeline(name)
    crop.CropPolicy(**dataclasses.asdict(around.crop))
    assert list(around.sizes) == sorted(around.sizes)
    assert all(size % 32 == 0 for size in around.sizes)


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match="official"):
        preset("offical")
    with pytest.raises(ValueError, match="official"):
        pipeline("offical")


def test_build_network_refuses_other_objects():
    with pytest.raises(TypeError, match="CDNetConfig"):
        build_network({"backbone": "resnet34"})


@pytest.mark.parametrize("name", ["paper", DEFAULT])
def test_missing_key_is_named_and_no_default_takes_its_place(name):
    document = json.loads(json.dumps(config_to_json(preset(name))))
    del document["config"]["feature_diffusion"]["inner_channels"]
    with pytest.raises(ValueError, match=r"feature_diffusion: missing keys inner_channels"):
        config_from_json(document)
    del document["config"]["click_map"], document["config"]["pixel_diffusion"]
    with pytest.raises(ValueError, match="missing keys click_map, pixel_diffusion"):
        config_from_json(document)
