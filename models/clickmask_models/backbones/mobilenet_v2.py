"""MobileNetV2 1.0 at output stride 16, batch norms folded into biases.

The layout follows the published TensorFlow weights: RGB scaled to [-1, 1], ReLU6, and "SAME" padding,
which at stride 2 pads an even input on the right and at the bottom only. Module names follow
torchvision's (``features.k.conv...``), as the weight files do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (output channels, stride, dilation) of features.1 to features.17; the last stage keeps stride 16 and
# dilates instead, as in DeepLabV3.
_BLOCKS = (
    (16, 1, 1),
    (24, 2, 1),
    (24, 1, 1),
    (32, 2, 1),
    *((32, 1, 1),) * 2,
    (64, 2, 1),
    *((64, 1, 1),) * 3,
    *((96, 1, 1),) * 3,
    (160, 1, 1),
    *((160, 1, 2),) * 2,
    (320, 1, 2),
)

# Channels inside those blocks as published: the stem's, then six times a block's input.
HIDDEN = (32, 96, 144, 144, *(192,) * 3, *(384,) * 4, *(576,) * 3, *(960,) * 3)

MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)


class Pyramid(NamedTuple):
    """Features at four strides: 16, 24, 32 and 320 channels at stride 2, 4, 8 and 16."""

    s2: Tensor
    s4: Tensor
    s8: Tensor
    s16: Tensor


class MobileNetV2(nn.Module):
    """The backbone; input (B, 3, H, W) already scaled to [-1, 1], H and W multiples of 16.

    Args:
        hidden: channels inside the 17 blocks; the first are the stem's, which that block does not expand.

    Raises:
        ValueError: not 17 positive numbers.
    """

    channels = (16, 24, 32, 320)

    def __init__(self, hidden: Sequence[int] = HIDDEN) -> None:
        super().__init__()
        if len(hidden) != len(_BLOCKS) or min(hidden) < 1:
            raise ValueError(f"hidden must be {len(_BLOCKS)} positive numbers, one a block, got {hidden}")
        channels = hidden[0]
        stem = nn.Sequential(_SameConv2d(3, channels, 3, stride=2), nn.ReLU6(inplace=True))
        blocks: list[nn.Module] = [stem]
        for index, (out_channels, stride, dilation) in enumerate(_BLOCKS):
            blocks.append(_Block(channels, hidden[index], out_channels, stride, dilation, expands=index > 0))
            channels = out_channels
        self.features = nn.ModuleList(blocks)

    def forward(self, x: Tensor, stem_addition: Tensor | None = None) -> Pyramid:
        """Computes the pyramid; ``stem_addition`` (B, 32, H/2, W/2) is added after the first ReLU."""
        taps = []
        for index, block in enumerate(self.features):
            x = block(x)
            if index == 0 and stem_addition is not None:
                x = x + stem_addition
            if index in (1, 3, 6, 17):
                taps.append(x)
        return Pyramid(*taps)


class ContextHead(nn.Module):
    """DeepLabV3's mobile head: a 1x1 branch and an image-pooling branch, projected to 256 channels."""

    channels = 256

    def __init__(self) -> None:
        super().__init__()
        self.aspp0 = nn.Conv2d(320, 256, 1)
        self.image_pooling = nn.Conv2d(320, 256, 1)
        self.concat_projection = nn.Conv2d(512, 256, 1)

    def forward(self, x: Tensor) -> Tensor:
        # Summed in float32: half precision loses small values among many.
        mean = x.mean(dim=(2, 3), keepdim=True, dtype=torch.float32).to(x.dtype)
        pooled = F.relu(self.image_pooling(mean))
        local = F.relu(self.aspp0(x))
        return F.relu(self.concat_projection(torch.cat([pooled.expand_as(local), local], dim=1)))


class _SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding for even inputs."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        padding = 0 if stride == 2 else dilation * (kernel - 1) // 2
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)) if self.stride[0] == 2 else x)


class _Block(nn.Module):
    def __init__(
        self, in_channels: int, hidden: int, out_channels: int, stride: int, dilation: int, *, expands: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if expands:
            layers.append(nn.Sequential(nn.Conv2d(in_channels, hidden, 1), nn.ReLU6(inplace=True)))
        layers.append(
            nn.Sequential(
                _SameConv2d(hidden, hidden, 3, stride=stride, dilation=dilation, groups=hidden),
                nn.ReLU6(inplace=True),
            )
        )
        layers.append(nn.Conv2d(hidden, out_channels, 1))
        self.conv = nn.Sequential(*layers)
        self.residual = expands and stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)
