"""Devices and number formats: where a run happens and in which precision its forward passes are."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from clickmask_training.checks import ConfigError

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose_device(wanted: str) -> torch.device:
    """The device of this process.

    Args:
        wanted: "auto", "cpu", "cuda" or "cuda:N". Under torchrun "cuda" is this process's own card.

    Raises:
        ConfigError: an unknown name, or no such card.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ConfigError(f"--device: expected auto, cpu, cuda or cuda:N, got {wanted!r}") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise ConfigError(f"--device: expected auto, cpu, cuda or cuda:N, got {wanted!r}")
    index = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise ConfigError(
            f"--device: expected a CUDA card number {index}, but torch sees {torch.cuda.device_count()}"
        )
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of forward passes: ``bf16``, ``fp16`` or ``fp32``."""
    dtype = _DTYPES[precision]
    if dtype is torch.float32:
        return torch.autocast(device.type, enabled=False)
    # No cache: in older torch, weights cast without gradients (for corrective clicks) would not learn.
    return torch.autocast(device.type, dtype, cache_enabled=False)


def scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Scales losses so that half-precision gradients do not vanish; does nothing for other formats.

    Raises:
        ConfigError: FP16 on a CPU, which has no fast path for it.
    """
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError("precision: expected 'bf16' or 'fp32' on a CPU, got 'fp16'")
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


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
