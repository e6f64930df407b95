"""Optimiser, learning rates and which parts learn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from clickmask_models.backbones.mobilenet_v2 import MobileNetV2
from clickmask_training.checks import ConfigError
from clickmask_training.config import TrainingConfig

_PRETRAINED = ("backbone.", "context.")


def make_optimizer(modules: Sequence[nn.Module], config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser of some modules' parameters, in groups with their peak rates.

    Pretrained parts learn slowly; norms and biases carry no weight decay.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for module in modules:
        for name, parameter in module.named_parameters():
            key = (name.startswith(_PRETRAINED), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(
        [
            {
                "params": parameters,
                "peak": config.backbone_rate if pretrained else config.learning_rate,
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
            for (pretrained, decayed), parameters in groups.items()
        ],
        fused=True,
    )


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then a cosine to zero, a tenth at each drop, or no change."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule != "cosine":  # a constant rate has no drops
        return 0.1 ** sum(step >= drop for drop in config.drops)
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def backbone_blocks(network: nn.Module, config: TrainingConfig) -> list[nn.Module]:
    """The parts of the backbone that learn from ``backbone_from`` on; earlier blocks are frozen for good.

    Raises:
        ConfigError: frozen blocks of a backbone that has none.
    """
    backbone = network.backbone
    if isinstance(backbone, MobileNetV2):
        backbone.features[: config.frozen_blocks].requires_grad_(False)
        return list(backbone.features[config.frozen_blocks :])
    if config.frozen_blocks:
        raise ConfigError(
            f"frozen_blocks: expected 0 with a {type(backbone).__name__} backbone, got "
            f"{config.frozen_blocks}: only MobileNetV2's blocks can be frozen"
        )
    return [backbone]
