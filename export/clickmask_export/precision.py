"""Half precision, written into the network: no converter and no builder flag can then drop it silently.

TensorRT 11 has no FP16 flag: an engine computes in the dtypes of the graph. Convolutions, linear layers and
norms become half; what has no weights computes in the dtype that reaches it. Float32 islands are

- click maps and coordinates: clicks enter as float32 (squared distances leave half's range beyond 256 px);
- Feature Diffusion's logits and softmax, which the module itself keeps in float32 (its logits are not
scaled);
- Pixel Diffusion, which is no part of the body (0/0 on flat areas otherwise);
- inputs and outputs of every graph.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from clickmask_export.errors import LintError

_HALF_MAX = torch.finfo(torch.float16).max


def in_half(network: nn.Module) -> nn.Module:
    """A copy of a network whose weights are half, and whose weighted layers cast what they are given.

    Raises:
        LintError: a weight leaves half's range, or a tensor would become all zeros.
    """
    for name, tensor in network.state_dict().items():
        _check_range(name, tensor)
    body = copy.deepcopy(network).half()
    for layer in body.modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and weight.dtype == torch.float16:
            layer.register_forward_pre_hook(_cast_to_weight)
    return body


def _cast_to_weight(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.to(layer.weight.dtype) if value.is_floating_point() else value for value in inputs)


def _check_range(name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return
    largest = tensor.abs().max().item()
    if not largest <= _HALF_MAX:  # also true for NaN
        raise LintError(
            f"{name} reaches {largest:.3g}, beyond half precision's {_HALF_MAX:.0f}: it would become inf or "
            "NaN; build with --precision fp32, or train on with weight decay"
        )
    # Matrices only: a norm's statistics or a bias that small are as good as zero.
    if tensor.ndim > 1 and largest > 0 and not tensor.half().any():
        raise LintError(
            f"{name} is at most {largest:.3g}, below half precision's smallest step 6e-8: it would become "
            "all zeros; build with --precision fp32, or keep that value out of the half-precision body"
        )
