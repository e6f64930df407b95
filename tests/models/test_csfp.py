"""CSFP's networks: sizes, what feeds SGM and HSGM, what clicks and the previous mask do, and refusals."""

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


def inputs(height=64, width=96, batch=1):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(batch, 3, height, width, generator=generator)
    return image, CLICKS.repeat(batch, 1, 1), torch.zeros(batch, 1, height, width)


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
    count = sum(p.numel() for p in CSFP(preset("csfp_official")).parameters())
    assert count == 12_062_603 - 2 * query


@FORMS
@pytest.mark.parametrize(("height", "width"), [(64, 96), (53, 71)])
def test_logits_have_the_size_of_the_image(network, height, width):
    with torch.no_grad():
        logits, auxiliary = network.forward_with_auxiliary(*inputs(height, width, batch=2))
    assert logits.shape == (2, 1, height, width)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    if network.config is DEEPLAB:
        assert auxiliary is None
    else:
        assert auxiliary.shape == (2, 1, -(-height // 4), -(-width // 4))


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


@FORMS
def test_clicks_change_the_logits_but_not_by_order_or_padding(network):
    image, clicks, mask = inputs()
    with torch.no_grad():
        expected = network(image, clicks, mask)
        torch.testing.assert_close(network(image, clicks.flip(1), mask), expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(network(image, clicks[:, :2], mask), expected, rtol=0, atol=1e-4)
        assert (network(image, clicks[:, :1], mask) - expected).abs().max() > 1e-2
        assert torch.isfinite(network(image, clicks[:, 2:], mask)).all()


@FORMS
def test_previous_mask_changes_the_logits_and_is_asked_for(network):
    image, clicks, mask = inputs()
    with torch.no_grad():
        assert not torch.allclose(network(image, clicks, mask + 1), network(image, clicks, mask))
    with pytest.raises(ValueError, match="takes a previous mask"):
        network(image, clicks)


def test_network_without_previous_mask_ignores_one():
    network = CSFP(replace(SMALL, previous_mask=False)).eval()
    assert not network.takes_previous_mask
    image, clicks, mask = inputs()
    with torch.no_grad():
        assert torch.equal(network(image, clicks, mask), network(image, clicks))


@pytest.mark.parametrize("config", [SMALL, DEEPLAB], ids=["hrnet", "deeplab"])
@pytest.mark.parametrize("reduced", [None, 12])
def test_every_parameter_gets_a_gradient(config, reduced):
    propagation = SparsePropagationConfig(heads=2, gamma=True, reduced_channels=reduced)
    network = CSFP(replace(config, propagation=propagation)).train()
    logits, auxiliary = network.forward_with_auxiliary(*inputs(batch=2))
    loss = logits.square().mean()
    (loss if auxiliary is None else loss + auxiliary.square().mean()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("config", [SMALL, DEEPLAB], ids=["hrnet", "deeplab"])
def test_half_precision_body_gives_float32_logits(config):
    network = CSFP(config).half().eval()
    image, clicks, mask = inputs(32, 32)
    with torch.no_grad():
        logits = network(image.half(), clicks, mask)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("name", "value"), [("backbone", "resnet18"), ("channels", 1), ("dropout", 1.0), ("dropout", -0.1)]
)
def test_bad_option_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        CSFPConfig(**{name: value})
