"""The loss of a training step: what a configuration asks for, summed."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from clickmask_models.outputs import Outputs
from clickmask_training.config import TrainingConfig
from clickmask_training.latent import latent_losses
from clickmask_training.losses import (
    bce,
    cell_bce,
    dice,
    distillation,
    feature_distance,
    near_boundary,
    normalised_focal,
)
from clickmask_training.settings import LossSettings


class Taught(NamedTuple):
    """What a teacher makes of a batch.

    Attributes:
        features: of its encoder.
        logits: (B, 1, H, W), or None where its probabilities are not learnt.
    """

    features: tuple[Tensor, ...]
    logits: Tensor | None


class Extras(NamedTuple):
    """What some losses need beside the network's outputs.

    Attributes:
        clicks: (B, M, 3) that the network saw.
        latent: (B, K, h, w) logits of the latent heads, or None.
        features: of the network's encoder, for a teacher's to be set beside.
        teacher: see ``Taught``, or None.
        align_corners: of the network's resizes.
        clicked: (B, 1, H, W), 1 where the newest corrective click asks for another answer, or None.
    """

    clicks: Tensor
    latent: Tensor | None = None
    features: tuple[Tensor, ...] = ()
    teacher: Taught | None = None
    align_corners: bool = True
    clicked: Tensor | None = None


def objective(outputs: Outputs, mask: Tensor, extras: Extras, config: TrainingConfig) -> Tensor:
    """The loss of a batch, a float32 scalar; call it outside autocast.

    Args:
        outputs: of the network.
        mask: (B, 1, H, W) uint8 of 0, 1, 255.
        extras: see there.
        config: the run's.
    """
    settings = config.loss
    loss = _main(outputs.logits.float(), mask, extras.clicked, settings)
    if outputs.auxiliary is not None and config.auxiliary_weight:
        auxiliary = _auxiliary(outputs.auxiliary.float(), mask, settings, extras.align_corners)
        loss = loss + config.auxiliary_weight * auxiliary
    if extras.latent is not None:
        diverse, click = latent_losses(
            extras.latent, mask, extras.clicks, settings, align_corners=extras.align_corners
        )
        loss = loss + settings.latent * diverse + settings.click * click
    if settings.distillation:
        taught = extras.teacher.logits.float()
        per_sample = distillation(outputs.logits.float(), taught, mask)
        loss = loss + settings.distillation * per_sample.mean()
    if settings.features:
        loss = loss + settings.features * feature_distance(extras.features, extras.teacher.features)
    return loss


def _main(logits: Tensor, mask: Tensor, clicked: Tensor | None, settings: LossSettings) -> Tensor:
    """Of the network's logits: (), the mean over the samples."""
    total = logits.new_zeros(len(logits))
    if settings.bce:
        weight = None
        if settings.boundary:
            weight = 1 + settings.boundary * near_boundary(mask, settings.boundary_width)
        if clicked is not None:
            weight = (1 if weight is None else weight) + settings.clicked * clicked
        total = total + settings.bce * bce(logits, mask, weight)
    if settings.dice:
        total = total + settings.dice * dice(logits, mask)
    if settings.nfl:
        total = total + settings.nfl * normalised_focal(logits, mask)
    return total.mean()


def _auxiliary(logits: Tensor, mask: Tensor, settings: LossSettings, align_corners: bool) -> Tensor:
    if settings.auxiliary == "cell_bce":
        return cell_bce(logits, mask)
    full = F.interpolate(logits, size=mask.shape[-2:], mode="bilinear", align_corners=align_corners)
    kind = normalised_focal if settings.auxiliary == "nfl" else bce
    return kind(full, mask).mean()
