"""How a network will be used: presets, and what a user may change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clickmask.crop import CropPolicy
from clickmask_export.errors import RecipeError
from clickmask_export.recipes import Overrides, describe_diffusion, make_recipe
from clickmask_models.backbones.mobilenet_v2 import HIDDEN
from clickmask_models.cdnet import CDNet, CDNetConfig
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_models.pixel_diffusion import PixelDiffusionConfig
from clickmask_models.presets import preset


@pytest.fixture(scope="module")
def encode_once():
    return EncodeOnceCDNet()


@pytest.fixture(scope="module")
def cdnet():
    """The public code's configuration on a smaller backbone, which no preset has."""
    return CDNet(replace(preset("official"), backbone="resnet18"))


def test_the_preset_is_the_one_whose_network_the_checkpoint_has(encode_once):
    recipe = make_recipe(encode_once, Overrides())
    assert (recipe.family, recipe.preset) == ("encode_once_cdnet", "encode_once_mobilenet_v2")
    assert recipe.input.sizes == (384, 512, 608)
    assert recipe.input.previous_mask
    assert not recipe.flip
    assert recipe.crop == CropPolicy.named("stable")
    assert recipe.pixel_diffusion == encode_once.config.pixel_diffusion

    assert recipe.departures == ()


def test_a_network_of_no_preset_needs_one_named_where_several_fit(cdnet):
    """The first of the family, silently, squashed crops where the network wants them letterboxed."""
    with pytest.raises(RecipeError, match=r"none of paper, .*, official, .*: name .* with --preset"):
        make_recipe(cdnet, Overrides())


def test_a_network_of_no_preset_takes_the_only_one_of_its_family_and_says_how_it_differs():
    own = EncodeOnceConfig(widths=(8, 16, 24, 32), click_widths=(8, 8, 8, 8))  # as examples/03
    recipe = make_recipe(EncodeOnceCDNet(own), Overrides())
    assert recipe.preset == "encode_once_mobilenet_v2"
    assert recipe.departures == ("widths", "click_widths")


def test_a_backbone_with_fewer_hidden_channels_is_the_presets_all_the_same():
    cut = EncodeOnceConfig(hidden=(*HIDDEN[:16], 192))
    assert make_recipe(EncodeOnceCDNet(cut), Overrides()).departures == ()


def test_a_preset_of_choice_sets_everything_around_the_network(cdnet):
    recipe = make_recipe(cdnet, Overrides(preset="official"))
    assert recipe.input.sizes == (384,)
    assert (recipe.input.fit, recipe.input.coordinates) == ("squash", "public")
    assert (recipe.crop.kind, recipe.crop.start_click, recipe.crop.min_size) == ("paper", 2, 10)
    assert recipe.flip
    assert recipe.departures == ("backbone",)
    assert recipe.input.pad == pytest.approx((0.485, 0.456, 0.406))


def test_a_preset_of_choice_leaves_the_network_its_own_diffusion(cdnet):
    for name in ("paper", "official"):
        recipe = make_recipe(cdnet, Overrides(preset=name))
        assert recipe.pixel_diffusion == cdnet.config.pixel_diffusion != PixelDiffusionConfig()


def test_overrides_override_the_preset(cdnet):
    overrides = Overrides(preset="official", sizes=[512, 256, 512], iterations=3, flip=False)
    recipe = make_recipe(cdnet, overrides)
    assert recipe.input.sizes == (256, 512)
    assert recipe.pixel_diffusion.iterations == 3
    assert recipe.pixel_diffusion.amplitude == 10
    assert not recipe.flip
    assert make_recipe(cdnet, Overrides(preset="official", diffuse=False)).pixel_diffusion is None


def test_diffusion_can_be_asked_for_where_the_configuration_has_none():
    network = CDNet(CDNetConfig(backbone="resnet18", stem="v1b", channels=8, pixel_diffusion=None))
    assert make_recipe(network, Overrides(preset="paper")).pixel_diffusion is None
    diffused = make_recipe(network, Overrides(preset="paper", diffuse=True))
    assert diffused.pixel_diffusion == PixelDiffusionConfig()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (Overrides(preset="oficial"), "expected one of .*official.*got 'oficial'"),
        (Overrides(preset="official"), "another family.*encode_once_cdnet: choose one of"),
        (Overrides(sizes=[300, 384]), "multiples of 32 from 64 to 2048, got 300; nearest: 288"),
        (Overrides(sizes=[32, 4096]), "got 32, 4096; nearest: 64, 2048"),
        (Overrides(sizes=[]), "got none"),
        (Overrides(diffuse=False, iterations=5), "--pdm none"),
        (Overrides(iterations=0), "iterations must be at least 1"),
        (Overrides(iterations=1001), "at most 1000, got 1001"),
    ],
)
def test_overrides_that_make_no_sense_say_why(encode_once, overrides, message):
    with pytest.raises(RecipeError, match=message):
        make_recipe(encode_once, overrides)


def test_diffusion_is_described_for_the_reader_of_a_manifest():
    spec = describe_diffusion(preset("official").pixel_diffusion)
    assert (spec.iterations, spec.amplitude, spec.dilations) == (5, 10.0, (1, 2, 4, 8))
    assert spec.options["cutoff"] == 0.25
    assert spec.options["click_map"] == "disk"
    assert "cutoff" not in describe_diffusion(PixelDiffusionConfig()).options
    assert describe_diffusion(None) is None
