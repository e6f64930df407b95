"""Dilated ResNets: sizes, published parameter counts, and dilation that equals striding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clickmask_models.backbones.resnet import ResNet


def randomised(network: nn.Module) -> nn.Module:
    """Batch norms that are not the identity."""
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    return network.eval()


@pytest.mark.parametrize(
    ("depth", "count"), [(18, 11_176_512), (34, 21_284_672), (50, 23_508_032), (101, 42_500_160)]
)
def test_parameter_count_is_the_classification_network_s_without_its_last_layer(depth, count):
    with torch.device("meta"):
        network = ResNet(depth)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(("depth", "stem"), [(18, "v1b"), (50, "v1s")])
def test_features_are_at_strides_2_4_and_8_rounded_up(depth, stem):
    network = ResNet(depth, stem).eval()
    with torch.no_grad():
        low, early, deep = network(torch.rand(1, 3, 67, 90))
    assert low.shape == (1, network.stem_channels, 34, 45)
    assert early.shape == (1, network.channels[0], 17, 23)
    assert deep.shape == (1, network.channels[1], 9, 12)


@pytest.mark.parametrize("depth", [18, 50])
def test_dilated_stages_sample_to_the_strided_network(depth):
    """Without dilation and with strides of 2 again, the same weights give every fourth cell of stage 4."""
    dilated, strided = ResNet(depth), ResNet(depth)
    strided.load_state_dict(dilated.state_dict())
    name = "conv1" if depth < 50 else "conv2"
    for stage in (strided.layer3, strided.layer4):
        for layer in stage.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
                layer.dilation = layer.padding = (1, 1)
        getattr(stage[0], name).stride = stage[0].downsample[0].stride = (2, 2)
    torch.manual_seed(0)
    image = torch.rand(1, 3, 128, 160)
    dilated, strided = randomised(dilated), randomised(strided)
    strided.load_state_dict(dilated.state_dict())
    with torch.no_grad():
        deep, reference = dilated(image).s8, strided(image).s8
    assert reference.shape[-2:] == (4, 5)
    torch.testing.assert_close(deep[..., ::4, ::4], reference, rtol=1e-4, atol=1e-4)


def test_narrow_stem_addition_fills_the_first_channels():
    network = randomised(ResNet(50, "v1s"))
    image, extra = torch.rand(1, 3, 64, 64), torch.rand(1, 64, 32, 32)
    padded = torch.cat([extra, torch.zeros(1, 64, 32, 32)], dim=1)
    with torch.no_grad():
        assert torch.equal(network(image, extra).s8, network(image, padded).s8)
        assert not torch.equal(network(image, extra).s8, network(image).s8)


def test_deep_stem_has_three_convolutions_of_64_64_128():
    convolutions = [layer for layer in ResNet(50, "v1s").conv1 if isinstance(layer, nn.Conv2d)]
    assert [(c.out_channels, c.stride[0]) for c in convolutions] == [(64, 2), (64, 1), (128, 1)]


@pytest.mark.parametrize(("depth", "stem"), [(20, "v1b"), (34, "v2")])
def test_unknown_form_is_refused(depth, stem):
    with pytest.raises(ValueError, match="ResNet depth"):
        ResNet(depth, stem)
