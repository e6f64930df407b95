"""Batch norms folded into the linear layers before them, where no runtime does it: for inference.

A runtime folds a norm into the one convolution before it. Where sources are summed before they are
normalised, the norm's scale goes into each of them and its shift into one. That a source is enlarged after
its convolution does not matter: a scale may come before or after what is linear.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from clickmask_models.encode_once import EncodeOnce
from clickmask_models.feature_diffusion import FeatureDiffusion


def fold_norms(network: nn.Module) -> nn.Module:
    """A copy of a network in eval mode that computes the same, to rounding, with fewer layers.

    It can be neither trained nor saved as a checkpoint of its kind. Networks with nothing to fold are copied.
    """
    if network.training:
        raise ValueError("batch norms fold in eval mode only: call network.eval() first")
    folded = copy.deepcopy(network)
    with torch.no_grad():
        for module in folded.modules():
            if isinstance(module, EncodeOnce):
                _fold_sums(module)
            elif isinstance(module, FeatureDiffusion) and not module.sparse:  # which folds its own
                _join_projections(module)
    return folded


def _fold_sums(network: EncodeOnce) -> None:
    decoder = network.decoder
    # A runtime that blocks channels adds to what a convolution gives, and not to an input of the graph. So
    # the coarse features, which come as wide as they are used, are scaled by a convolution of their own.
    width = network.config.widths[3]
    network.coarse = nn.Conv2d(width, width, 1, groups=width, dtype=network.lateral[3].weight.dtype)
    network.coarse.weight.fill_(1.0)
    network.coarse.bias.zero_()
    for level, norm in enumerate(decoder.fuse):
        scale, shift = _scale_and_shift(norm)
        feature = network.lateral[level] if level < 3 else network.coarse
        for source in (feature, decoder.click_lateral[level], decoder.reduction(level)):
            if source is not None:
                _multiply(source, scale)
        feature.bias.add_(shift)
        decoder.fuse[level] = nn.Identity()


def _join_projections(diffusion: FeatureDiffusion) -> None:
    """The projections of both branches as one convolution of their channels side by side."""
    parts = []
    for conv, norm in getattr(diffusion, "project", ()):
        scale, shift = _scale_and_shift(norm)
        _multiply(conv, scale)
        parts.append((conv.weight, shift))
    if parts:
        weight = torch.cat([weight for weight, _ in parts], dim=1)
        joined = nn.Conv2d(weight.shape[1], weight.shape[0], 1, dtype=weight.dtype)
        joined.weight.copy_(weight)
        joined.bias.copy_(sum(shift for _, shift in parts))
        diffusion.project = nn.ModuleList([joined])


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a norm multiplies by and adds, (C,) each."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def _multiply(conv: nn.Conv2d, scale: Tensor) -> None:
    conv.weight.mul_(scale.view(-1, 1, 1, 1))
    if conv.bias is not None:
        conv.bias.mul_(scale)
