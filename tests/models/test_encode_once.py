"""The encode-once network: two halves that make a whole, features that do not know the clicks."""

from __future__ import annotations

import pytest
import torch

from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_models.presets import DEFAULT, preset

CLICKS = torch.tensor([[[20.0, 30.0, 1.0], [60.0, 10.0, 0.0], [-1.0, -1.0, -1.0]]])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = EncodeOnceCDNet(preset(DEFAULT)).eval()
    with torch.no_grad():
        # Random backbone weights shrink the image to nothing: give clicks and image comparable weight.
        for layer in network.lateral:
            layer.weight.mul_(5.0)
    return network


@pytest.fixture(scope="module")
def scene():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(1, 3, 64, 96, generator=generator), torch.rand(1, 1, 64, 96, generator=generator)


def test_encode_then_decode_is_forward(network, scene):
    image, previous = scene
    with torch.no_grad():
        features = network.encode(image)
        expected = network(image, CLICKS, previous)
        assert torch.equal(network.decode(features, CLICKS, previous), expected)
    assert expected.shape == (1, 1, 64, 96)
    assert expected.dtype == torch.float32


def test_features_are_at_strides_2_to_16(network, scene):
    with torch.no_grad():
        features = network.encode(scene[0])
    # The fine ones with the backbone's channels, as what is kept of each crop should be small.
    widths = (16, 24, 32, network.config.widths[3])
    assert [tuple(f.shape[1:]) for f in features] == [
        (width, 64 // stride, 96 // stride) for width, stride in zip(widths, (2, 4, 8, 16), strict=True)
    ]


def test_decoding_leaves_the_features_as_they_are(network, scene):
    image, previous = scene
    with torch.no_grad():
        features = network.encode(image)
        copies = [f.clone() for f in features]
        network.decode(features, CLICKS, previous)
    assert all(torch.equal(a, b) for a, b in zip(features, copies, strict=True))


def test_clicks_and_previous_mask_matter_but_order_and_padding_do_not(network, scene):
    image, previous = scene
    with torch.no_grad():
        features = network.encode(image)
        expected = network.decode(features, CLICKS, previous)
        torch.testing.assert_close(network.decode(features, CLICKS.flip(1), previous), expected)
        torch.testing.assert_close(network.decode(features, CLICKS[:, :2], previous), expected)
        assert not torch.allclose(network.decode(features, CLICKS[:, :1], previous), expected)
        assert not torch.allclose(network.decode(features, CLICKS, 1 - previous), expected)
        assert torch.isfinite(network.decode(features, CLICKS[:, 2:], previous)).all()


def test_batch_rows_are_independent(network, scene):
    image, previous = scene
    images, masks = torch.cat([image, image.flip(3)]), torch.cat([previous, previous.flip(3)])
    clicks = torch.cat([CLICKS, CLICKS.flip(1)])
    with torch.no_grad():
        both = network(images, clicks, masks)
        for index in range(2):
            one = network(images[index : index + 1], clicks[index : index + 1], masks[index : index + 1])
            torch.testing.assert_close(both[index : index + 1], one, rtol=1e-4, atol=1e-4)


def test_auxiliary_logits_are_at_stride_16(network, scene):
    image, previous = scene
    with torch.no_grad():
        auxiliary = network.forward_with_auxiliary(image, CLICKS, previous).auxiliary
    assert auxiliary.shape == (1, 1, 4, 6)


def test_every_parameter_gets_a_gradient():
    network = EncodeOnceCDNet(preset(DEFAULT)).train()
    output = network.forward_with_auxiliary(
        torch.rand(2, 3, 64, 64), CLICKS.repeat(2, 1, 1), torch.zeros(2, 1, 64, 64)
    )
    (output.logits.square().mean() + output.auxiliary.square().mean()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["widths", "click_widths"])
@pytest.mark.parametrize("value", [(16, 24, 32), (16, 24, 32, 64, 64), (16, 0, 32, 64)])
def test_widths_are_four_positive_numbers(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be four"):
        EncodeOnceConfig(**{name: value})
