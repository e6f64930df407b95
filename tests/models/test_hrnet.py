"""HRNet and OCR: the published names and shapes, sizes, and what OCR computes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from clickmask_models.backbones.hrnet import HRNet
from clickmask_models.ocr import OCR, gather


def published_backbone(shared, stem):
    """Name -> shape of the backbone's tensors in a public checkpoint."""
    keys = json.loads((shared / "golden" / f"{stem}.keys.json").read_text())["state_dict"]
    shapes = {entry["name"].removeprefix("feature_extractor."): tuple(entry["shape"]) for entry in keys}
    parts = ("conv1.", "bn1.", "conv2.", "bn2.", "layer1.", "transition", "stage")
    return {name: shape for name, shape in shapes.items() if name.startswith(parts)}


@pytest.mark.parametrize(("stem", "small"), [("ritm_hrnet18s", True), ("csfpn_hrnet18_coarse", False)])
def test_names_and_shapes_are_the_published_ones(shared, stem, small):
    ours = {name: tuple(value.shape) for name, value in HRNet(18, small).state_dict().items()}
    assert ours == published_backbone(shared, stem)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (53, 71), (33, 34)])
def test_sizes_round_up_at_every_stride(height, width):
    hrnet = HRNet(4, small=True).eval()
    half = (-(-height // 2), -(-width // 2))
    with torch.no_grad():
        stem = hrnet.stem(torch.rand(2, 3, height, width), torch.zeros(2, 64, *half))
        features = hrnet(stem)
    assert stem.shape == (2, 64, *half)
    assert hrnet.channels == 60
    assert features.shape == (2, 60, -(-height // 4), -(-width // 4))


def test_addition_enters_after_the_stem_s_relu():
    hrnet = HRNet(4, small=True).eval()
    image, addition = torch.rand(1, 3, 32, 32), torch.full((1, 64, 16, 16), -2.0)
    with torch.no_grad():
        plain = hrnet.stem(image, torch.zeros_like(addition))
        assert plain.min() == 0.0
        assert torch.equal(hrnet.stem(image, addition), plain - 2.0)


def test_width_that_is_none_is_refused():
    with pytest.raises(ValueError, match="width must be at least 1 channel, got 0"):
        HRNet(0)


def small_ocr():
    torch.manual_seed(0)
    return OCR(in_channels=10, channels=16, dropout=0.05).eval()


def test_context_is_the_mean_of_pixels_weighted_by_a_softmax_over_positions():
    random = np.random.default_rng(0)
    pixels, auxiliary = random.normal(size=(2, 5, 6, 7)), 4.0 * random.normal(size=(2, 1, 6, 7))
    weights = np.exp(auxiliary)
    expected = (weights * pixels).sum(axis=(2, 3)) / weights.sum(axis=(2, 3))
    got = gather(torch.from_numpy(pixels).float(), torch.from_numpy(auxiliary).float())
    assert got.shape == (2, 5, 1, 1)
    np.testing.assert_allclose(got[:, :, 0, 0], expected, rtol=1e-5, atol=1e-6)


def test_context_of_a_large_half_precision_map_is_not_lost():
    """256 x 256 equal weights: each is 1.5e-5, below half precision's smallest normal number."""
    pixels = torch.full((1, 4, 256, 256), 3.0, dtype=torch.float16)
    context = gather(pixels, torch.zeros(1, 1, 256, 256, dtype=torch.float16))
    assert context.dtype == torch.float16
    assert torch.equal(context, torch.full((1, 4, 1, 1), 3.0, dtype=torch.float16))


def test_attention_over_one_class_ignores_its_queries_and_keys():
    """Why OCR has none: the published form, Eq. 3 and 4, with any queries and keys."""
    value = torch.randn(2, 3, 1)  # (B, channels, classes)
    query, key = torch.randn(2, 3, 42), torch.randn(2, 3, 1)
    attention = torch.softmax(query.mT @ key * 3**-0.5, dim=2)  # (B, positions, classes)
    assert torch.equal(value @ attention.mT, value.expand(2, 3, 42))


def test_auxiliary_logits_choose_the_pixels_that_make_the_context():
    """The context is the only way by which one pixel reaches another beyond the 3x3 convolution."""
    ocr, features = small_ocr(), torch.randn(1, 10, 16, 16)
    changed = features.clone()
    changed[..., 12:, 12:] = torch.randn(10, 4, 4)
    elsewhere, there = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    elsewhere[..., 0, 0], there[..., 15, 15] = 200.0, 200.0
    with torch.no_grad():
        far = [ocr(x, elsewhere)[..., :8, :8] for x in (features, changed)]
        assert torch.equal(*far)
        near = [ocr(x, there)[..., :8, :8] for x in (features, changed)]
        assert (near[0] - near[1]).abs().max() > 1e-3


def test_shapes_and_gradients():
    ocr = small_ocr().train()
    features = torch.randn(2, 10, 5, 7)
    auxiliary = ocr.aux_head(features)
    logits = ocr(features, auxiliary)
    assert auxiliary.shape == logits.shape == (2, 1, 5, 7)
    logits.square().mean().backward()
    assert [name for name, p in ocr.named_parameters() if p.grad is None] == []
