"""Opening the networks of a bundle: one checkpoint or two that fit together, and the sparse form."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch

from clickmask.crop import CropPolicy
from clickmask_export.errors import BuildError, RecipeError
from clickmask_export.networks import check_strategy, open_networks, with_sparse_keys
from clickmask_export.progress import Progress
from clickmask_export.recipes import Overrides, make_recipe
from clickmask_models.cdnet import CDNet, CDNetConfig
from clickmask_models.checkpoints import save_checkpoint
from clickmask_models.click_maps import ClickMapConfig
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_models.feature_diffusion import FeatureDiffusion, FeatureDiffusionConfig

TINY = CDNetConfig(backbone="mobilenet_v2", channels=4)
TINY_ENCODE_ONCE = EncodeOnceConfig(widths=(4, 4, 4, 4), click_widths=(4, 4, 4, 4))


def write(folder, name, network):
    path = folder / f"{name}.safetensors"
    save_checkpoint(path, network)
    return path


@pytest.fixture(scope="module")
def cdnet(tmp_path_factory):
    torch.manual_seed(0)
    return write(tmp_path_factory.mktemp("networks"), "cdnet", CDNet(TINY))


def progress():
    return Progress(io.StringIO())


def test_what_was_recognised_is_said(cdnet):
    stream = io.StringIO()
    networks = open_networks(cdnet, None, None, Progress(stream))
    assert list(networks) == ["network"]
    assert networks["network"].config == TINY
    assert not networks["network"].training
    assert "load cdnet.safetensors" in stream.getvalue()
    assert "clickmask checkpoint, cdnet" in stream.getvalue()


def test_two_checkpoints_of_one_architecture_make_a_pair(cdnet, tmp_path):
    torch.manual_seed(1)
    fine = write(tmp_path, "fine", CDNet(TINY))
    networks = open_networks(cdnet, None, fine, progress())
    assert list(networks) == ["network", "local_network"]
    weights = [network.head[-1].weight for network in networks.values()]
    assert not torch.equal(*weights)


def test_a_second_network_of_another_architecture_is_refused_by_field(cdnet, tmp_path):
    fine = write(tmp_path, "fine", CDNet(replace(TINY, channels=6, click_map=ClickMapConfig("disk", 5.0))))
    with pytest.raises(RecipeError, match="one that differs in channels, click_map"):
        open_networks(cdnet, None, fine, progress())


def test_a_second_network_of_another_family_is_refused(cdnet, tmp_path):
    fine = write(tmp_path, "fine", EncodeOnceCDNet(TINY_ENCODE_ONCE))
    with pytest.raises(RecipeError, match=r"same family .* CDNetConfig, got EncodeOnceConfig"):
        open_networks(cdnet, None, fine, progress())


def test_a_second_network_beside_an_encoder_is_refused(tmp_path):
    path = write(tmp_path, "own", EncodeOnceCDNet(TINY_ENCODE_ONCE))
    with pytest.raises(RecipeError, match="without a click-independent encoder"):
        open_networks(path, None, path, progress())


def test_a_file_that_is_no_checkpoint_is_a_failed_build(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"nothing")
    with pytest.raises(BuildError, match=r"x\.pth"):
        open_networks(tmp_path / "x.pth", None, None, progress())


def test_a_second_network_needs_a_policy_that_runs_it(cdnet):
    networks = open_networks(cdnet, None, cdnet, progress())
    recipe = make_recipe(networks["network"], Overrides(preset="paper"))
    with pytest.raises(RecipeError, match="preset 'paper' has the policy 'fbrs'"):
        check_strategy(networks, recipe)
    check_strategy(networks, replace(recipe, crop=CropPolicy.named("global_to_local")))
    check_strategy({"network": networks["network"]}, recipe)


def test_the_sparse_form_is_a_copy():
    network = CDNet(TINY).eval()
    body = with_sparse_keys(network)
    assert body is not network
    x, sources = torch.rand(1, 4, 8, 8), torch.zeros(1, 2, 8, 8)
    network.feature_diffusion(x, sources)
    with pytest.raises(ValueError, match="needs the clicks"):
        body.feature_diffusion(x, sources)
    assert all(torch.equal(*pair) for pair in zip(network.parameters(), body.parameters(), strict=True))


def test_the_sparse_form_of_a_network_without_feature_diffusion_is_refused():
    with pytest.raises(RecipeError, match="no Feature Diffusion; leave the option out"):
        with_sparse_keys(CDNet(replace(TINY, feature_diffusion=None)))


def test_the_sparse_form_of_another_variant_is_refused_with_the_reason():
    network = CDNet(replace(TINY, feature_diffusion=FeatureDiffusionConfig("v3")))
    assert any(isinstance(module, FeatureDiffusion) for module in network.modules())
    with pytest.raises(RecipeError, match=r"'v3' has sources everywhere.*: use --fdm dense"):
        with_sparse_keys(network)
