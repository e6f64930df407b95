"""Convolution blocks that the networks share."""

from __future__ import annotations

from torch import Tensor, nn


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
    activation: bool = True,
) -> nn.Sequential:
    """Convolution, batch norm and, unless switched off, ReLU; keeps the size at stride 1.

    The batch norm makes a bias redundant, but some published weights hold one.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=dilation * (kernel - 1) // 2,
            dilation=dilation,
            groups=groups,
            bias=bias,
        ),
        nn.BatchNorm2d(out_channels),
    ]
    if activation:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def separable(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """Depthwise then pointwise convolution, each with batch norm, ReLU at the end only."""
    return nn.Sequential(
        conv_norm_act(in_channels, in_channels, kernel, groups=in_channels, activation=False),
        conv_norm_act(in_channels, out_channels, 1),
    )


class InvertedResidual(nn.Module):
    """MobileNetV2's block at constant width: expand, depthwise, project, add."""

    def __init__(self, channels: int, kernel: int, *, expansion: int, dilation: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.body = nn.Sequential(
            conv_norm_act(channels, hidden, 1),
            conv_norm_act(hidden, hidden, kernel, dilation=dilation, groups=hidden),
            conv_norm_act(hidden, channels, 1, activation=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
