"""SGM and HSGM equal their equations, whatever the clicks; without any they send exactly nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference_sparse_propagation import clicked_cells, messages

from clickmask_models.deeplab import resize
from clickmask_models.sparse_propagation import (
    HSGM,
    SGM,
    SparseAttention,
    SparsePropagationConfig,
    click_cells,
)

PAPER = SparsePropagationConfig()
OFFICIAL = SparsePropagationConfig(heads=3, key_reduction=3, scaled=True, gamma=True, drops_first_cell=True)
STRIDE, HEIGHT, WIDTH, CHANNELS = 4, 5, 7, 6
# The first and the last cell, two clicks in one cell, one beyond the map, one absent.
CLICKS = torch.tensor(
    [[[0.0, 3.0, 1], [26.5, 19.0, 0], [9.0, 6.0, 1], [11.9, 4.0, 0], [28.0, 5.0, 1], [5.0, 5.0, -1]]]
)
NONE = torch.tensor([[[5.0, 5.0, -1.0], [-2.0, 3.0, 1.0], [3.0, 20.0, 0.0]]])


def randomised(module):
    """Float64, in eval mode, and nothing left at a start of 0 or 1."""
    torch.manual_seed(0)
    module = module.double().eval()
    with torch.no_grad():
        for tensor in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
            tensor += 0.3 * torch.rand_like(tensor)
    return module


def features(channels=CHANNELS, height=HEIGHT, width=WIDTH, batch=1):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)


def cells_of(clicks, height=HEIGHT, width=WIDTH, stride=STRIDE):
    return click_cells(clicks, height, width, stride)


def cell(x, y, label=1.0, **options):
    index, valid = click_cells(torch.tensor([[[x, y, label]]]), HEIGHT, WIDTH, STRIDE, **options)
    return (divmod(index.item(), WIDTH), valid.item())


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (0.0, 0.0, (0, 0)),
        (3.9, 3.9, (0, 0)),
        (4.0, 3.0, (0, 1)),
        (27.9, 19.9, (4, 6)),
        (-0.5, 7.9, (1, 0)),  # the outer half of the first pixel
    ],
)
def test_cell_is_the_floor_of_the_click_over_the_stride(x, y, expected):
    assert cell(x, y) == (expected, True)
    assert cell(x, y, label=0.0) == (expected, True)


@pytest.mark.parametrize(
    ("x", "y", "label"),
    [
        (28.0, 5.0, 1.0),
        (5.0, 20.0, 0.0),
        (-0.6, 5.0, 1.0),
        (5.0, -1.0, 1.0),
        (5.0, 5.0, -1.0),
        (1e9, 5.0, 1.0),
    ],
)
def test_click_that_is_absent_or_outside_the_map_is_not_valid(x, y, label):
    (row, column), valid = cell(x, y, label)
    assert not valid
    assert 0 <= row < HEIGHT  # still a cell that can be read
    assert 0 <= column < WIDTH


def test_first_cell_is_dropped_on_request_only():
    assert cell(2.0, 3.0) == ((0, 0), True)
    assert cell(2.0, 3.0, drops_first_cell=True) == ((0, 0), False)
    assert cell(4.0, 3.0, drops_first_cell=True) == ((0, 1), True)


def test_cells_do_not_depend_on_the_precision_of_the_network():
    """Half precision would round 2047.5 up, into a cell that the map does not have."""
    clicks = torch.tensor([[[2047.5, 0.0, 1.0]]])
    assert click_cells(clicks, 1, 512, 4).index.item() == 511


@pytest.mark.parametrize("config", [PAPER, OFFICIAL], ids=["paper", "official"])
@pytest.mark.parametrize("clicks", [CLICKS, CLICKS[:, 2:3], NONE], ids=["several", "one", "none"])
def test_messages_are_those_of_the_equation(config, clicks):
    head, x, sent = randomised(SparseAttention(CHANNELS, config)), features(), features().flip(1)
    with torch.no_grad():
        got = head(x, sent, cells_of(clicks))[0].numpy()
    cells = clicked_cells(clicks[0].tolist(), HEIGHT, WIDTH, STRIDE)
    scale = (CHANNELS // 3) ** -0.5 if config.scaled else 1.0
    expected = messages(head, x[0].numpy(), sent[0].numpy(), cells, scale)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)  # the softmax is float32


def test_weights_are_shares_of_the_clicks_that_are_there():
    head = randomised(SparseAttention(CHANNELS, PAPER))
    cells = cells_of(CLICKS)
    with torch.no_grad():
        weights = head.weights(features(), cells)
    assert weights.shape == (1, CLICKS.shape[1], HEIGHT * WIDTH)
    assert cells.valid.tolist() == [[True, True, True, True, False, False]]
    assert torch.equal(weights[0, 4:], torch.zeros(2, HEIGHT * WIDTH))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(1, HEIGHT * WIDTH))
    assert torch.equal(weights[0, 2], weights[0, 3])  # two clicks in one cell count twice


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_without_a_valid_click_the_message_is_exactly_zero(dtype):
    head = randomised(SparseAttention(CHANNELS, PAPER)).to(dtype)
    x = features().to(dtype)
    with torch.no_grad():
        message = head(x, x, cells_of(NONE))
    assert message.dtype == dtype
    assert torch.equal(message, torch.zeros_like(x))


@pytest.mark.parametrize("config", [PAPER, OFFICIAL], ids=["paper", "official"])
def test_items_of_a_batch_and_padding_do_not_meet(config):
    sgm = randomised(SGM(CHANNELS, config))
    x = features(batch=2)
    with torch.no_grad():
        both = sgm(x, cells_of(torch.cat([CLICKS[:, :3], NONE])))
        first = sgm(x[:1], cells_of(torch.cat([CLICKS[:, :3], NONE], dim=1)))
        second = sgm(x[1:], cells_of(NONE[:, :1]))
    torch.testing.assert_close(both, torch.cat([first, second]), rtol=0, atol=1e-6)


def test_sgm_of_the_paper_adds_the_message():
    sgm, x, cells = randomised(SGM(CHANNELS, PAPER)), features(), cells_of(CLICKS)
    with torch.no_grad():
        assert torch.equal(sgm(x, cells), x + sgm.heads[0](x, x, cells))
        assert torch.equal(sgm(x, cells_of(NONE)), x)


def test_sgm_of_the_public_code_projects_the_mean_of_its_heads():
    sgm, x, cells = randomised(SGM(CHANNELS, OFFICIAL)), features(), cells_of(CLICKS)
    with torch.no_grad():
        heads = torch.stack([x + head(x, x, cells) for head in sgm.heads])
        torch.testing.assert_close(sgm(x, cells), sgm.projection(heads.mean(dim=0)))


def test_hsgm_compares_coarse_features_and_sends_fused_ones():
    hsgm, coarse, low = randomised(HSGM(CHANNELS, 4, PAPER)), features(), features(4, 9, 14)
    fine = cells_of(CLICKS, 9, 14, stride=2)
    enlarged = resize(coarse, (9, 14), align_corners=True)
    with torch.no_grad():
        fused = hsgm.fusion(torch.cat([enlarged, low], dim=1))
        assert torch.equal(hsgm(coarse, low, fine), fused + hsgm.attention(enlarged, fused, fine))
    assert hsgm.channels == CHANNELS


def test_reducing_before_enlarging_is_reducing_after_it():
    narrow = SparsePropagationConfig(reduced_channels=3)
    hsgm, coarse, low = randomised(HSGM(CHANNELS, 4, narrow)), features(), features(4, 9, 14)
    fine = cells_of(CLICKS, 9, 14, stride=2)
    with torch.no_grad():
        enlarged = hsgm.reduction(resize(coarse, (9, 14), align_corners=True))
        fused = hsgm.fusion(torch.cat([enlarged, low], dim=1))
        expected = fused + hsgm.attention(enlarged, fused, fine)
        torch.testing.assert_close(hsgm(coarse, low, fine), expected, rtol=0, atol=1e-6)
    assert hsgm.channels == expected.shape[1] == 3


def test_gamma_starts_at_zero_and_is_learned():
    x, cells = features().float(), cells_of(CLICKS)
    head = SparseAttention(CHANNELS, OFFICIAL)
    message = head(x, x, cells)
    assert torch.equal(message, torch.zeros_like(x))
    message.sum().backward()
    assert head.gamma.grad.abs() > 0


def identities(sign):
    """A head of two channels in half precision, whose queries are features, and keys too but for the sign."""
    head = SparseAttention(2, PAPER).half()
    with torch.no_grad():
        for convolution in (head.query_conv, head.key_conv, head.value_conv):
            convolution.weight.copy_(torch.eye(2)[..., None, None])
            convolution.bias.zero_()
        head.key_conv.weight *= sign
    return head


def test_large_logits_do_not_overflow_half_precision():
    """A product of 1e6 is beyond its range; the click that is most alike takes all."""
    x = torch.zeros(1, 2, 1, 2, dtype=torch.float16)
    x[0, 0, 0, 0] = x[0, 1, 0, 1] = 1000.0
    cells = click_cells(torch.tensor([[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]), 1, 2, 1)
    with torch.no_grad():
        assert torch.equal(identities(1.0)(x, x, cells), x)


def test_absent_click_does_not_outweigh_one_that_is_as_unlike_as_can_be():
    x = torch.full((1, 2, 1, 2), 1000.0, dtype=torch.float16)
    cells = click_cells(torch.tensor([[[0.0, 0.0, 1.0], [1.0, 0.0, -1.0]]]), 1, 2, 1)
    with torch.no_grad():
        assert torch.equal(identities(-1.0)(x, x, cells), x)


@pytest.mark.parametrize(
    ("name", "value"), [("heads", 0), ("key_reduction", 0), ("reduced_channels", 1), ("reduced_channels", 0)]
)
def test_bad_option_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        SparsePropagationConfig(**{name: value})
