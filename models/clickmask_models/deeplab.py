"""DeepLabV3+ as f-BRS, RITM and CDNet build it: ASPP, decoder and a separable head.

Every bilinear resize of that family aligns corners; ``align_corners=False`` is for backbones of our own.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickmask_models.layers import conv_norm_act


class SeparableConv(nn.Sequential):
    """Depthwise 3x3, pointwise 1x1, one batch norm, ReLU (``layers.separable`` has a norm after each)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
            *conv_norm_act(in_channels, out_channels, 1),
        )


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, three dilated 3x3 and the image's mean, projected by a 1x1."""

    def __init__(self, in_channels: int, channels: int, rates: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_norm_act(in_channels, channels, 1)])
        self.branches.extend(conv_norm_act(in_channels, channels, 3, dilation=rate) for rate in rates)
        self.pooling = conv_norm_act(in_channels, channels, 1)
        self.project = conv_norm_act((2 + len(rates)) * channels, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, channels, h, w)."""
        # Batch norm cannot train on one value per channel: a batch of one image needs eval mode here.
        pooled = self.pooling(x.mean(dim=(2, 3), keepdim=True, dtype=torch.float32).to(x.dtype)).expand(
            -1, -1, *x.shape[-2:]
        )
        local = [branch(x) for branch in self.branches]
        return self.dropout(self.project(torch.cat([*local, pooled], dim=1)))


class Decoder(nn.Module):
    """Joins deep features with early ones at stride 4."""

    def __init__(self, channels: int, skip_channels: int, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.skip = conv_norm_act(skip_channels, 32, 1)
        self.block = nn.Sequential(
            SeparableConv(channels + 32, channels),
            SeparableConv(channels, channels),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, deep: Tensor, early: Tensor) -> Tensor:
        """(B, channels, h, w), (B, skip_channels, h4, w4) -> (B, channels, h4, w4)."""
        deep = resize(deep, early.shape[-2:], self.align_corners)
        return self.block(torch.cat([deep, self.skip(early)], dim=1))


class SeparableHead(nn.Sequential):
    """Two separable convolutions at half width, then a 1x1 to one logit."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            SeparableConv(channels, channels // 2),
            SeparableConv(channels // 2, channels // 2),
            nn.Conv2d(channels // 2, 1, 1),
        )


def resize(x: Tensor, size: tuple[int, ...], align_corners: bool) -> Tensor:
    """Bilinear resize of (B, C, h, w) to ``size`` (rows, columns)."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)


def initialise(module: nn.Module) -> None:
    """The family's start for layers without pretrained weights: Xavier, Gaussian, magnitude 2."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            # Gluon's magnitude is a variance: std = sqrt(2 / mean of fan-in and fan-out).
            nn.init.xavier_normal_(layer.weight, gain=math.sqrt(2.0))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
