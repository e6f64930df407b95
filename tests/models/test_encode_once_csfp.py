"""Encode-once CSFP: sparse propagation on cached features, against its equations position by position."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference_sparse_propagation import clicked_cells, messages

from clickmask_models.encode_once_csfp import EncodeOnceCSFP, EncodeOnceCSFPConfig
from clickmask_models.presets import build_network, pipeline, preset

HEIGHT, WIDTH = 64, 96
# The first cell, two clicks in one cell, an absent one, one outside.
CLICKS = torch.tensor(
    [[[0.0, 3.0, 0.0], [20.0, 30.0, 1.0], [22.0, 31.0, 0.0], [-1.0, -1.0, -1.0], [200.0, 9.0, 1.0]]]
)
NOBODY = torch.full((1, 2, 3), -1.0)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    config = EncodeOnceCSFPConfig(widths=(8, 12, 16, 20), click_widths=(4, 4, 4, 4))
    network = EncodeOnceCSFP(config).eval()
    with torch.no_grad():
        for layer in network.lateral:  # random backbone weights shrink the image to nothing
            layer.weight.mul_(5.0)
        for head in (network.decoder.sgm.heads[0], network.decoder.hsgm.attention):
            head.query_conv.weight.mul_(4.0)  # so that positions differ in whom they listen to
    return network


@pytest.fixture(scope="module")
def cached(network):
    """Features of one encoding, and a previous mask."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, HEIGHT, WIDTH, generator=generator)
    with torch.no_grad():
        return network.encode(image), torch.rand(1, 1, HEIGHT, WIDTH, generator=generator)


def seen(module, network, cached, clicks):
    """Inputs and output of one module during a decoding."""
    found = []
    handle = module.register_forward_hook(lambda _, given, output: found.append((*given, output)))
    with torch.no_grad():
        network.decode(cached[0], clicks, cached[1])
    handle.remove()
    return found[0]


def array(tensor):
    return tensor[0].double().numpy()


def test_sgm_propagates_the_clicks_cells_of_the_cached_map(network, cached):
    features, _, output = seen(network.decoder.sgm, network, cached, CLICKS)
    assert features.shape[2:] == (HEIGHT // 16, WIDTH // 16)
    cells = clicked_cells(CLICKS[0].tolist(), HEIGHT // 16, WIDTH // 16, 16)
    assert cells == [(0, 0), (1, 1), (1, 1)]
    given = array(features)
    expected = given + messages(network.decoder.sgm.heads[0], given, given, cells, 1.0)
    np.testing.assert_allclose(array(output), expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected - given).max() > 0.01


def test_hsgm_sends_fused_features_at_stride_4(network, cached):
    compared, sent, _, message = seen(network.decoder.hsgm.attention, network, cached, CLICKS)
    assert sent.shape[2:] == (HEIGHT // 4, WIDTH // 4)
    cells = clicked_cells(CLICKS[0].tolist(), HEIGHT // 4, WIDTH // 4, 4)
    assert cells == [(0, 0), (7, 5), (7, 5)]
    expected = messages(network.decoder.hsgm.attention, array(compared), array(sent), cells, 1.0)
    np.testing.assert_allclose(array(message), expected, atol=1e-4 * np.abs(expected).max())


def test_without_clicks_nothing_is_propagated(network, cached):
    features, _, output = seen(network.decoder.sgm, network, cached, NOBODY)
    assert torch.equal(output, features)


def test_one_encoding_serves_all_clicks(network, cached):
    features, previous = cached
    copies = [feature.clone() for feature in features]
    with torch.no_grad():
        expected = network.decode(features, CLICKS, previous)
        torch.testing.assert_close(network.decode(features, CLICKS.flip(1), previous), expected)
        assert not torch.allclose(network.decode(features, CLICKS[:, :1], previous), expected)
    assert all(torch.equal(a, b) for a, b in zip(features, copies, strict=True))
    assert expected.shape == (1, 1, HEIGHT, WIDTH)


@pytest.mark.parametrize("parts", [{}, {"sgm": False}, {"hsgm": False}, {"sgm": False, "hsgm": False}])
def test_every_parameter_gets_a_gradient(parts):
    network = EncodeOnceCSFP(EncodeOnceCSFPConfig(**parts)).train()
    names = {name.split(".")[1] for name, _ in network.named_parameters()}
    assert {part for part in ("sgm", "hsgm") if part in names} == {"sgm", "hsgm"} - parts.keys()
    clicks = CLICKS[:, 1:3].repeat(2, 1, 1)
    output = network.forward_with_auxiliary(torch.rand(2, 3, 64, 64), clicks, torch.zeros(2, 1, 64, 64))
    assert output.auxiliary is None
    output.logits.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_the_preset_is_used_as_the_default_is():
    assert isinstance(build_network(preset("encode_once_csfp")), EncodeOnceCSFP)
    assert pipeline("encode_once_csfp") == pipeline("encode_once_mobilenet_v2")


def test_widths_are_four_positive_numbers():
    with pytest.raises(ValueError, match=r"^widths must be four"):
        EncodeOnceCSFPConfig(widths=(8, 8, 8))
