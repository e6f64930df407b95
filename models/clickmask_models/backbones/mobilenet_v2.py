"""MobileNetV2 1.0 at output stride 16, batch norms folded into biases.

The layout follows the published TensorFlow weights: RGB scaled to [-1, 1], ReLU6, and "SAME" padding,
which at stride 2 pads an even input on the right and at the bottom only. Module names follow
torchvision's (``features.k.conv...``), as the weight files do.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (expansion, output channels, stride, dilation) of features.1 to features.17; the last stage keeps
# stride 16 and dilates instead, as in DeepLabV3.
_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 24, 1, 1),
    (6, 32, 2, 1),
    *((6, 32, 1, 1),) * 2,
    (6, 64, 2, 1),
    *((6, 64, 1, 1),) * 3,
    *((6, 96, 1, 1),) * 3,
    (6, 160, 1, 1),
    *((6, 160, 1, 2),) * 2,
    (6, 320, 1, 2),
)

MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)


class Pyramid(NamedTuple):
    """Features at four strides: 16, 24, 32 and 320 channels at stride 2, 4, 8 and 16."""

    s2: Tensor
    s4: Tensor
    s8: Tensor
    s16: Tensor


class MobileNetV2(nn.Module):
    """The backbone; input (B, 3, H, W) already scaled to [-1, 1], H and W multiples of 16."""

    channels = (16, 24, 32, 320)

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Sequential(_SameConv2d(3, 32, 3, stride=2), nn.ReLU6(inplace=True))]
        channels = 32
        for expansion, out_channels, stride, dilation in _BLOCKS:
            blocks.append(_Block(channels, out_channels, expansion, stride, dilation))
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
        self, in_channels: int, out_channels: int, expansion: int, stride: int, dilation: int
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers.append(nn.Sequential(nn.Conv2d(in_channels, hidden, 1), nn.ReLU6(inplace=True)))
        layers.append(
            nn.Sequential(
                _SameConv2d(hidden, hidden, 3, stride=stride, dilation=dilation, groups=hidden),
                nn.ReLU6(inplace=True),
            )
        )
        layers.append(nn.Conv2d(hidden, out_channels, 1))
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)
