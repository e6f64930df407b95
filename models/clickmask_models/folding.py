"""Linear layers folded into those beside them, where no runtime does it: for inference.

A runtime folds a norm into the one convolution before it. Where sources are summed before they are
normalised, the norm's scale goes into each of them and its shift into one. That a source is enlarged after
its convolution does not matter: a scale may come before or after what is linear.

In the encoder, the backbone's last projection goes into both branches of the context head: nothing else reads
it, and a mean is linear too.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickmask_models.backbones.mobilenet_v2 import ContextHead
from clickmask_models.encode_once import EncodeOnce
from clickmask_models.feature_diffusion import FeatureDiffusion


def fold_norms(network: nn.Module) -> nn.Module:
    """A copy of a network in eval mode that computes the same, to rounding, with fewer layers.

    It can be neither trained nor saved as a checkpoint of its kind. Networks with nothing to fold are copied.
    """
    if network.training:
        raise ValueError("layers fold in eval mode only: call network.eval() first")
    folded = copy.deepcopy(network)
    with torch.no_grad():
        for module in folded.modules():
            if isinstance(module, EncodeOnce):
                _fold_context(module)
                _fold_sums(module)
            elif isinstance(module, FeatureDiffusion) and not module.sparse:  # which folds its own
                _join_projections(module)
    return folded


class _FoldedContext(nn.Module):
    """``ContextHead`` over the map that the backbone's last projection reads, without that projection."""

    def __init__(self, head: ContextHead, projection: nn.Conv2d) -> None:
        super().__init__()
        self.aspp0 = _after(projection, head.aspp0)
        self.image_pooling = _after(projection, head.image_pooling)
        self.concat_projection = _Halves(head.concat_projection)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True, dtype=torch.float32).to(x.dtype)  # see ContextHead
        return F.relu(self.concat_projection(F.relu(self.image_pooling(mean)), F.relu(self.aspp0(x))))


class _Halves(nn.Module):
    """The head's own projection: its pooled half is computed once, not at every position."""

    def __init__(self, projection: nn.Conv2d) -> None:
        super().__init__()
        pooled, local = projection.weight.chunk(2, dim=1)
        self.pooled, self.local = nn.Parameter(pooled.clone()), nn.Parameter(local.clone())
        self.bias = nn.Parameter(projection.bias.clone())

    def forward(self, pooled: Tensor, local: Tensor) -> Tensor:
        return F.conv2d(local, self.local) + F.conv2d(pooled, self.pooled, self.bias)


def _fold_context(network: EncodeOnce) -> None:
    last = network.backbone.features[-1].conv
    network.context = _FoldedContext(network.context, last[-1])
    last[-1] = nn.Identity()


def _after(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Two 1x1 convolutions with nothing between as one."""
    matrix = second.weight.flatten(1).double()
    weight = matrix @ first.weight.flatten(1).double()
    bias = matrix @ first.bias.double() + second.bias
    return _pointwise(weight[..., None, None].to(second.weight.dtype), bias.to(second.weight.dtype))


def _pointwise(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A 1x1 convolution of a weight (C, C', 1, 1) and a bias (C,)."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, dtype=weight.dtype)
    conv.weight.copy_(weight)
    conv.bias.copy_(bias)
    return conv


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
        joined = torch.cat([weight for weight, _ in parts], dim=1)
        diffusion.project = nn.ModuleList([_pointwise(joined, sum(shift for _, shift in parts))])


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a norm multiplies by and adds, (C,) each."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def _multiply(conv: nn.Conv2d, scale: Tensor) -> None:
    conv.weight.mul_(scale.view(-1, 1, 1, 1))
    if conv.bias is not None:
        conv.bias.mul_(scale)
