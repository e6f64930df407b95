"""What needs float32 has it under autocast: logits of which bfloat16 keeps the size and loses the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from clickmask_models.feature_diffusion import FeatureDiffusion, FeatureDiffusionConfig
from clickmask_models.ocr import gather
from clickmask_models.sparse_propagation import SparseAttention, SparsePropagationConfig, click_cells

CHANNELS, HEIGHT, WIDTH = 4, 5, 7


def features() -> torch.Tensor:
    """Exact in bfloat16. Products of two positions are 256 and a little, where its step is 2."""
    x = torch.randint(-6, 7, (1, CHANNELS, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(0)) / 8
    x[:, 0] = 16.0
    return x


def identity(*convolutions: torch.nn.Conv2d) -> None:
    for convolution in convolutions:
        torch.nn.init.dirac_(convolution.weight)
        if convolution.bias is not None:
            torch.nn.init.zeros_(convolution.bias)


def diffused(x: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """Feature Diffusion from everywhere, of sources that differ by less than bfloat16's step."""
    module = FeatureDiffusion(CHANNELS, FeatureDiffusionConfig("source2full")).eval()
    identity(module.theta, module.phi, module.g, *(project[0] for project in module.project))
    sources = torch.full((1, 2, HEIGHT, WIDTH), 0.7) + torch.linspace(0, 0.01, HEIGHT * WIDTH).view(
        HEIGHT, WIDTH
    )
    tokens, weights = x[0].flatten(1).double().numpy(), sources[0, 0].flatten().double().numpy()
    message = tokens @ softmax(weights * (tokens.T @ tokens), axis=1).T
    expected = (tokens + 2 * message).reshape(CHANNELS, HEIGHT, WIDTH)
    # The first channel, of 16 each, is rounded when it is sent.
    return module(x, sources).features[0, 1:], expected[1:]


def propagated(x: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """SGM's and HSGM's share of each of three clicks at each position."""
    head = SparseAttention(CHANNELS, SparsePropagationConfig())
    identity(head.query_conv, head.key_conv)
    cells = click_cells(torch.tensor([[[0.0, 3.0, 1], [2.0, 1.0, 0], [6.0, 4.0, 1]]]), HEIGHT, WIDTH, 1)
    tokens = x[0].flatten(1).double().numpy()
    return head.weights(x, cells)[0], softmax(tokens[:, cells.index[0]].T @ tokens, axis=0)


def object_context(x: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """OCR's mean of pixels, whose bfloat16 would have lost what is left of 256."""
    auxiliary = x[:, :1] + x[:, 1:2]
    weights = softmax(auxiliary.double().numpy().ravel())
    expected = x[0].flatten(1).double().numpy() @ weights
    return gather(x + 256, auxiliary).flatten() - 256, expected


@pytest.mark.parametrize("case", [diffused, propagated, object_context])
def test_logits_and_their_softmax_are_float32_under_autocast(case) -> None:  # type: ignore[no-untyped-def]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        got, expected = case(features())
    assert np.ptp(expected) > 0.2
    np.testing.assert_allclose(got.float(), expected, rtol=0, atol=0.02)
