"""What a teacher makes of a batch, and what it must have in common with the network that learns from it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clickmask_models.encode_once import EncodeOnce
from clickmask_training import passes
from clickmask_training.checks import ConfigError
from clickmask_training.objective import Taught
from clickmask_training.settings import LossSettings


def check_teacher(network: nn.Module, teacher: nn.Module | None, loss: LossSettings) -> None:
    """Raises ConfigError unless there is a teacher exactly where a loss needs one, and one that fits it."""
    if bool(loss.distillation or loss.features) != (teacher is not None):
        weight = "a weight above 0 of loss.distillation or loss.features"
        needed = "a teacher (--teacher FILE)" if teacher is None else weight
        raise ConfigError(f"teacher: expected {needed} beside what was given")
    if not loss.features:
        return
    for who, each in (("the network", network), ("the teacher", teacher)):
        if not isinstance(each, EncodeOnce):
            raise ConfigError(
                f"loss.features: expected an encode-once network, got {type(each).__name__} for {who}"
            )
    if network.config.widths[3] != teacher.config.widths[3]:
        raise ConfigError(
            "loss.features: expected encoders that give the same features, got "
            f"{network.config.widths[3]} channels at stride 16 and the teacher's {teacher.config.widths[3]}; "
            "narrow the teacher with clickmask_training.narrow, or learn its probabilities alone"
        )


@torch.no_grad()
def taught(teacher: nn.Module, image: Tensor, prompts: passes.Prompts, loss: LossSettings) -> Taught:
    """What a teacher makes of (B, 3, H, W) images and of prompts about them, as far as a loss asks for it."""
    features = passes.encode(teacher, image)
    if not loss.distillation:
        return Taught(features, None)
    told = passes.told(features, prompts)
    return Taught(features, passes.decode(teacher, told, prompts.clicks, prompts.previous).logits)
