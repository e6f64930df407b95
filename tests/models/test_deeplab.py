"""DeepLabV3+ parts: ASPP's branches, the decoder's resize, and how new layers start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from clickmask_models.deeplab import ASPP, Decoder, SeparableConv, SeparableHead, initialise, resize


def test_aspp_branches_reach_as_far_as_their_rates():
    aspp = ASPP(4, 8, (2, 3, 5), 0.0).eval()
    x = torch.zeros(1, 4, 21, 21)
    x[0, :, 10, 10] = 1.0
    for branch, rate in zip(aspp.branches[1:], (2, 3, 5), strict=True):
        with torch.no_grad():
            response = branch[0](x)[0].abs().sum(dim=0)
        rows, columns = response.nonzero().T
        assert set(rows.tolist()) == set(columns.tolist()) == {10 - rate, 10, 10 + rate}


def test_aspp_pools_the_whole_image():
    aspp = ASPP(4, 8, (2,), 0.0).eval()
    seen = []
    aspp.pooling.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    x = torch.rand(2, 4, 6, 7)
    with torch.no_grad():
        assert aspp(x).shape == (2, 8, 6, 7)
    torch.testing.assert_close(seen[0][..., 0, 0], x.flatten(2).mean(dim=2))


def test_decoder_works_at_the_early_features_size():
    decoder = Decoder(8, 24, align_corners=True).eval()
    with torch.no_grad():
        assert decoder(torch.rand(1, 8, 5, 6), torch.rand(1, 24, 9, 12)).shape == (1, 8, 9, 12)


@pytest.mark.parametrize(
    ("align_corners", "middle"), [(True, [0.0, 1 / 3, 2 / 3, 1.0]), (False, [0.0, 0.25, 0.75, 1.0])]
)
def test_resize_aligns_corners_or_pixel_edges(align_corners, middle):
    row = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    torch.testing.assert_close(resize(row, (1, 4), align_corners).ravel(), torch.tensor(middle))


def test_separable_convolution_has_one_norm():
    kinds = [type(layer) for layer in SeparableConv(4, 6)]
    assert kinds == [nn.Conv2d, nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_head_halves_the_width():
    head = SeparableHead(8).eval()
    with torch.no_grad():
        assert head(torch.rand(1, 8, 5, 5)).shape == (1, 1, 5, 5)
    assert head[-1].in_channels == 4


def test_new_layers_start_as_gaussian_xavier_of_magnitude_two():
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 128, 3)
    initialise(nn.Sequential(layer))
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * (64 + 128) / 2)), rel=0.02)
    assert not layer.bias.any()
