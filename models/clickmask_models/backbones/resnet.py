"""ResNet-18/34/50/101 dilated to output stride 8.

Two stems: ``v1b`` is the usual 7x7 stride-2 convolution to 64 channels; ``v1s`` three 3x3 convolutions
(64, 64, 128; the first strided). The last two stages trade their stride for dilations 2 and 4. Module
names follow torchvision's, whose v1b weights load as they are (without ``fc``). Strided bottlenecks stride
in the 3x3 convolution.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

Depth = Literal[18, 34, 50, 101]
Stem = Literal["v1b", "v1s"]

_BLOCKS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}
# (width, stride, dilation of the first block's first 3x3, dilation of all others) of each stage: the first
# block still reads features that the previous stage's dilation made.
_STAGES = ((64, 1, 1, 1), (128, 2, 1, 1), (256, 1, 1, 2), (512, 1, 2, 4))

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class ResNetFeatures(NamedTuple):
    """``s2`` (stem, after any addition) at stride 2, ``s4`` (stage 1) at stride 4 and ``s8`` (stage 4) at
    stride 8; odd sizes round up.
    """

    s2: Tensor
    s4: Tensor
    s8: Tensor


class ResNet(nn.Module):
    """The backbone; input (B, 3, H, W) normalised by ``MEAN`` and ``STD``."""

    def __init__(self, depth: Depth, stem: Stem = "v1b") -> None:
        super().__init__()
        if depth not in _BLOCKS or stem not in ("v1b", "v1s"):
            raise ValueError(
                f"ResNet depth must be one of {', '.join(map(str, _BLOCKS))} and stem 'v1b' or 'v1s', "
                f"got {depth!r} and {stem!r}"
            )
        block = BasicBlock if depth < 50 else Bottleneck
        self.stem_channels = 64 if stem == "v1b" else 128
        self.channels = (64 * block.expansion, 512 * block.expansion)
        self.conv1 = _seven_by_seven() if stem == "v1b" else _deep_stem()
        self.bn1 = nn.BatchNorm2d(self.stem_channels)
        channels = self.stem_channels
        stages = []
        for count, (width, stride, first, dilation) in zip(_BLOCKS[depth], _STAGES, strict=True):
            blocks = []
            for index in range(count):
                if index == 0:
                    blocks.append(block(channels, width, stride, (first, dilation)))
                else:
                    blocks.append(block(channels, width, 1, (dilation, dilation)))
                channels = width * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, x: Tensor, stem_addition: Tensor | None = None) -> ResNetFeatures:
        """Computes features at strides 2, 4 and 8.

        Args:
            x: (B, 3, H, W) normalised image.
            stem_addition: (B, C, H/2, W/2), C up to ``stem_channels``, added to the stem's output after its
                ReLU; missing channels count as zero.
        """
        s2 = F.relu(self.bn1(self.conv1(x)))
        if stem_addition is not None:
            missing = self.stem_channels - stem_addition.shape[1]
            s2 = s2 + (F.pad(stem_addition, (0, 0, 0, 0, 0, missing)) if missing else stem_addition)
        s4 = self.layer1(F.max_pool2d(s2, 3, stride=2, padding=1))
        return ResNetFeatures(s2, s4, self.layer4(self.layer3(self.layer2(s4))))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, with one dilation each."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = _conv3(in_channels, width, stride, dilations[0])
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3(width, width, 1, dilations[1])
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; there is but one 3x3, which takes the first dilation."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3(width, width, stride, dilations[0])
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(in_channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


def _seven_by_seven() -> nn.Module:
    return nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)


def _deep_stem() -> nn.Module:
    """All of the deep stem but its last batch norm, which is ``bn1`` in both forms."""
    return nn.Sequential(
        _conv3(3, 64, 2, 1),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        _conv3(64, 64, 1, 1),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        _conv3(64, 128, 1, 1),
    )


def _conv3(in_channels: int, out_channels: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )
