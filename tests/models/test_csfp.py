"""CSFP's networks: what feeds SGM and HSGM, and refusals (``test_click_network`` has the rest)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from clickmask_models.csfp import CSFP, CSFPConfig
from clickmask_models.presets import preset
from clickmask_models.sparse_propagation import SparsePropagationConfig

CLICKS = torch.tensor([[[20.0, 30.0, 1.0], [60.0, 10.0, 0.0], [-1.0, -1.0, -1.0]]])
SMALL = CSFPConfig("hrnet18s", channels=16)
DEEPLAB = CSFPConfig("resnet34", channels=16, dropout=0.2)
FORMS = pytest.mark.parametrize("network", ["hrnet", "deeplab"], indirect=True)


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return {"hrnet": CSFP(SMALL).eval(), "deeplab": CSFP(DEEPLAB).eval()}


@pytest.fixture
def network(request, networks):
    return networks[request.param]


def inputs(batch=1):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(batch, 3, 64, 96, generator=generator)
    return image, CLICKS.repeat(batch, 1, 1), torch.zeros(batch, 1, 64, 96)


def seen(network, *names):
    """All inputs and the output of submodules, during one run."""
    kept = {}
    modules = {name: network.get_submodule(name) for name in names}
    hooks = [
        module.register_forward_hook(lambda _, args, output, name=name: kept.update({name: (*args, output)}))
        for name, module in modules.items()
    ]
    with torch.no_grad():
        network(*inputs())
    for hook in hooks:
        hook.remove()
    return kept


def test_parameters_are_the_published_ones_less_ocr_s_queries_and_keys():
    """12.06 million; see ``ocr`` for the two pairs of layers that have no effect."""
    query = 2 * 64 * 64 + 2 * 64 + 64 * 64 + 2 * 64
    with torch.device("meta"):
        network = CSFP(preset("csfp_official"))
    assert sum(p.numel() for p in network.parameters()) == 12_062_603 - 2 * query


@FORMS
def test_sgm_works_at_stride_4_and_hsgm_at_stride_2(network):
    kept = seen(network, "sgm", "hsgm")
    features, cells, coarse = kept["sgm"]
    assert features.shape[-2:] == (16, 24)
    assert cells.index[cells.valid].tolist() == [30 // 4 * 24 + 20 // 4, 10 // 4 * 24 + 60 // 4]
    received, low, cells, propagated = kept["hsgm"]
    assert received is coarse
    assert low.shape[-2:] == propagated.shape[-2:] == (32, 48)
    assert cells.index[cells.valid].tolist() == [30 // 2 * 48 + 20 // 2, 10 // 2 * 48 + 60 // 2]


def test_deeplab_s_low_level_features_are_its_stem_with_the_clicks(networks):
    kept = seen(networks["deeplab"], "backbone.bn1", "fusion", "decoder", "sgm", "hsgm", "head")
    stem = F.relu(kept["backbone.bn1"][-1]) + kept["fusion"][-1]
    assert torch.equal(kept["hsgm"][1], stem)
    assert kept["sgm"][0] is kept["decoder"][-1]
    assert kept["head"][0] is kept["hsgm"][-1]


def test_ocr_s_auxiliary_head_sees_the_features_before_sgm(networks):
    kept = seen(networks["hrnet"], "backbone", "ocr.aux_head", "sgm", "hsgm", "ocr")
    assert kept["ocr.aux_head"][0] is kept["sgm"][0] is kept["backbone"][-1]
    assert kept["ocr"][0] is kept["hsgm"][-1]


@pytest.mark.parametrize("config", [SMALL, DEEPLAB], ids=["hrnet", "deeplab"])
def test_every_parameter_of_the_options_gets_a_gradient(config):
    propagation = SparsePropagationConfig(heads=2, gamma=True, reduced_channels=12)
    network = CSFP(replace(config, propagation=propagation)).train()
    logits, auxiliary = network.forward_with_auxiliary(*inputs(batch=2))
    loss = logits.square().mean()
    (loss if auxiliary is None else loss + auxiliary.square().mean()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("name", "value"), [("backbone", "resnet18"), ("channels", 1), ("dropout", 1.0), ("dropout", -0.1)]
)
def test_bad_option_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        CSFPConfig(**{name: value})
