"""Bfloat16 on CPUs, less the convolutions that are slower in it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def float32_depthwise(network: nn.Module) -> None:
    """Runs strided, dilated and 5x5 depthwise convolutions in float32 under autocast.

    Their bfloat16 backward pass takes a slow path on CPUs, 3 to 6 times the float32 time; the results
    agree to rounding.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and _is_slow(module):
            module.forward = _in_float32(module.forward)  # type: ignore[method-assign]


def _is_slow(layer: nn.Conv2d) -> bool:
    depthwise = layer.groups == layer.in_channels > 1
    plain = layer.stride == (1, 1) and layer.dilation == (1, 1) and layer.kernel_size == (3, 3)
    return depthwise and not plain


def _in_float32(forward):  # type: ignore[no-untyped-def]
    def run(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float()).to(x.dtype)

    return run
