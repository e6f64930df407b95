"""Whole files in the public layouts, from bytes to logits, recorded ones where there are any."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from golden import Recording, close
from public_files import (
    conv1s_shapes,
    deeplab_shapes,
    map_fusion_shapes,
    random_tensors,
    stored_config,
    write_public,
)
from safetensors.torch import save_file

from clickmask_models.cdnet import CDNet, CDNetConfig
from clickmask_models.checkpoints import CheckpointError, save_checkpoint
from clickmask_models.presets import preset
from clickmask_models.public_checkpoints import open_checkpoint

ODD_SIZES = 3  # the recorded case whose grids all round up

ONE_CLASS = (
    "Dropped feature_extractor.ocr_distri_head.object_context_block.f_pixel.* (12): "
    "queries of a softmax over one class, which is 1. "
    "Dropped feature_extractor.ocr_distri_head.object_context_block.f_object.* (12): "
    "keys of a softmax over one class, which is 1."
)


@pytest.fixture(scope="module")
def cdnet(shared):
    return Recording(shared, "cdnet_res34")


@pytest.fixture(scope="module")
def small():
    """Tensors of a small RITM DeepLabV3+."""
    return random_tensors(deeplab_shapes(18, 16) | conv1s_shapes())


def opened(path, contents):
    torch.save(contents, path)
    return open_checkpoint(path)


def refusal(path, contents) -> str:
    with pytest.raises(CheckpointError) as caught:
        opened(path, contents)
    return str(caught.value)


@pytest.mark.parametrize(
    ("stem", "description"),
    [
        (
            "cdnet_res34",
            "ClickSEG CDNet, ResNet-34, 128 channels, disks of 5 px, no previous mask. "
            "Dropped latent_head.* (16): for the training loss only. "
            "Dropped PDM.* (3): constant kernels, which are built from the configuration.",
        ),
        (
            "ritm_hrnet18s",
            "RITM HRNet-18s, OCR 48, disks of 5 px, a previous mask. " + ONE_CLASS,
        ),
        (
            "csfpn_hrnet18_coarse",
            "CSFPN HRNet-18, OCR 64, disks of 5 px, a previous mask. " + ONE_CLASS,
        ),
    ],
)
def test_recorded_network_is_described(shared, tmp_path, stem, description):
    """That it is its preset's and computes what was recorded, tests/models/test_*_official.py show."""
    write_public(tmp_path / "a.pth", Recording(shared, stem))
    network, said = open_checkpoint(tmp_path / "a.pth")
    assert said == description
    assert not network.training


def test_file_without_settings_is_read_as_released_and_says_so(cdnet, tmp_path):
    write_public(tmp_path / "a.pth", cdnet, config=False)
    network, said = open_checkpoint(tmp_path / "a.pth")
    assert network.config == preset("official")
    assert "assumed to be as released" in said


def test_deeplab_of_ritm_is_cdnet_without_diffusion(cdnet, tmp_path):
    """The recorded network, cut down to RITM's: up to Feature Diffusion the two are the same."""
    extra = ("latent_head.", "PDM.", "feature_extractor.FDM.")
    tensors = {name: value for name, value in cdnet.state_dict().items() if not name.startswith(extra)}
    network, said = opened(
        tmp_path / "a.pth", {"state_dict": tensors, "config": cdnet.keys["checkpoint"]["config"]}
    )
    assert said == "RITM DeepLabV3+, ResNet-34, 128 channels, disks of 5 px, no previous mask."
    assert network.config == preset("ritm_resnet34")
    outputs = {}
    for part in (network.aspp, network.decoder.skip):
        part.register_forward_hook(lambda module, _, output: outputs.update({module: output[0]}))
    with torch.no_grad():
        network(cdnet.image(ODD_SIZES), cdnet.clicks(ODD_SIZES))
    close(outputs[network.aspp][::32], cdnet(ODD_SIZES, "aspp"))
    close(outputs[network.decoder.skip][::8, ::4, ::4], cdnet(ODD_SIZES, "skip_project"))


def test_fbrs_has_no_settings_and_may_lack_counters(tmp_path):
    """As its converter from MXNet writes it: a bare state dict, without counters and with a note."""
    tensors = random_tensors(deeplab_shapes(18, 16) | map_fusion_shapes())
    tensors = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    network, said = opened(tmp_path / "a.pth", tensors | {"aspp_dropout": torch.tensor(0.2)})
    assert said == (
        "f-BRS DeepLabV3+, ResNet-18, 16 channels, distance maps of 260 px, no previous mask. "
        "Settings that the file does not store (how clicks are drawn, activations, normalisation) are "
        "assumed to be as released. "
        "Dropped aspp_dropout* (1): a note for training."
    )
    weights, norm = tensors["rgb_conv.0.weight"], "rgb_conv.2.running_var"
    assert torch.equal(network.fusion.layers[0].weight, weights)
    assert torch.equal(network.fusion.layers[2].running_var, tensors[norm])
    # Far from the only click both maps are 1: three channels of an image of the mean colour follow by hand.
    inside = {}
    network.fusion.register_forward_hook(lambda _module, _inputs, output: inside.update(image=output[0]))
    image = torch.tensor(network.mean).view(1, 3, 1, 1).expand(1, 3, 8, 2048)
    with torch.no_grad():
        network(image, torch.tensor([[[0.0, 0.0, 1.0]]]))
    x = weights[:, 3:].sum(dim=(1, 2, 3)) + tensors["rgb_conv.0.bias"]
    mean, variance = tensors["rgb_conv.2.running_mean"], tensors[norm]
    x = (x - mean) / torch.sqrt(variance + 1e-5) * tensors["rgb_conv.2.weight"] + tensors["rgb_conv.2.bias"]
    x = tensors["rgb_conv.3.weight"][:, :, 0, 0] @ x + tensors["rgb_conv.3.bias"]
    torch.testing.assert_close(inside["image"][:, 4, -1], x)


def equal_weights(network, tensors) -> bool:
    return torch.equal(
        network.backbone.conv1.weight, tensors["feature_extractor.backbone.conv1.weight"].float()
    )


@pytest.mark.parametrize("change", [lambda name: name, lambda name: f"module.{name}"])
def test_wrapper_of_data_parallel_is_taken_off(small, tmp_path, change):
    contents = {change(name): value for name, value in small.items()}
    assert equal_weights(opened(tmp_path / "a.pth", contents).network, small)


def test_same_tensors_in_safetensors_and_in_half_precision(small, tmp_path):
    halves = {name: value.half() if value.is_floating_point() else value for name, value in small.items()}
    save_file(halves, tmp_path / "a.safetensors")
    network = open_checkpoint(tmp_path / "a.safetensors").network
    assert network.backbone.conv1.weight.dtype == torch.float32
    assert equal_weights(network, halves)


def test_one_of_a_list(small, tmp_path):
    other = {name: value * 2 for name, value in small.items()}
    torch.save([{"state_dict": small}, {"state_dict": other}], tmp_path / "list.pth")
    assert equal_weights(open_checkpoint(tmp_path / "list.pth", 1).network, other)
    with pytest.raises(CheckpointError, match="--checkpoint-index"):
        open_checkpoint(tmp_path / "list.pth")


def test_our_own_file(tmp_path):
    config = CDNetConfig(backbone="resnet18", stem="v1b", channels=16)
    save_checkpoint(tmp_path / "mine.pth", CDNet(config))
    network, said = open_checkpoint(tmp_path / "mine.pth")
    assert network.config == config
    assert said == "clickmask checkpoint, cdnet."


def test_settings_are_compared_with_tensors(small, tmp_path):
    contents = {"state_dict": small, "config": stored_config(deeplab_ch=128, with_prev_mask=True)}
    said = refusal(tmp_path / "a.pth", contents)
    assert (
        "deeplab_ch=128, expected 16 by its tensors; with_prev_mask=True, expected False by its tensors"
        in said
    )
    assert str(tmp_path / "a.pth") in said


def test_settings_decide_how_clicks_are_drawn(small, tmp_path):
    config = stored_config(use_disks=True, norm_radius=3, use_leaky_relu=True)
    network, said = opened(tmp_path / "a.pth", {"state_dict": small, "config": config})
    assert "assumed" not in said
    assert network.config.click_map == replace(network.config.click_map, kind="disk", size=3.0)


def test_every_misfit_is_named_as_the_file_names_it(small, tmp_path):
    tensors = small | {
        "head.layers.2.bias": torch.zeros(2),
        "head.layers.3.bias": torch.zeros(1),
        "maps_transform.2.bias": torch.full((64,), torch.inf),
        "maps_transform.0.bias": torch.zeros(16, dtype=torch.int64),
    }
    del tensors["feature_extractor.skip_project.skip_project.1.running_mean"]
    said = refusal(tmp_path / "a.pth", tensors)
    assert "missing feature_extractor.skip_project.skip_project.1.running_mean" in said
    assert "unknown head.layers.3.bias" in said
    assert "head.layers.2.bias has shape (2,), expected (1,)" in said
    assert "maps_transform.2.bias has values that are not finite" in said
    assert "maps_transform.0.bias holds torch.int64" in said


def test_resnet50_of_clickseg_never_worked_and_is_refused(tmp_path):
    """Its ASPP and skip are made for ResNet-34 (see docs/checkpoints.md), so its first pass fails."""
    tensors = random_tensors(deeplab_shapes(50, 16) | conv1s_shapes())
    for name in tensors:
        if name.startswith("feature_extractor.aspp.concurent") and tensors[name].ndim == 4:
            tensors[name] = tensors[name][:, :512].clone()
    said = refusal(tmp_path / "a.pth", tensors)
    assert (
        "feature_extractor.aspp.concurent.0.0.weight has shape (16, 512, 1, 1), expected (16, 2048, 1, 1)"
        in said
    )


def test_relative_is_refused_by_its_name(small, tmp_path):
    said = refusal(tmp_path / "a.pth", small | {"refiner.conv1.weight": torch.zeros(1)})
    assert "FocalClick" in said
    assert str(tmp_path / "a.pth") in said
