"""Losses over (B, 1, H, W) logits and (B, 1, H, W) masks of 0, 1 and 255 (ignored)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clickmask.evaluation.datasets import IGNORED


def bce_dice(logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice, each averaged per sample over its valid pixels."""
    valid, target = _valid_and_target(mask)
    count = valid.sum(dim=(1, 2, 3)).clamp(min=1)
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    bce = (bce * valid).sum(dim=(1, 2, 3)) / count
    probability = torch.sigmoid(logits) * valid
    overlap = (probability * target).sum(dim=(1, 2, 3))
    dice = 1 - (2 * overlap + 1) / ((probability + target * valid).sum(dim=(1, 2, 3)) + 1)
    return (bce + dice).mean()


def auxiliary_bce(logits: Tensor, mask: Tensor) -> Tensor:
    """BCE of FDM's destination head at its own resolution, against the mask averaged per cell."""
    valid, target = _valid_and_target(mask)
    size = logits.shape[-2:]
    weight = F.adaptive_avg_pool2d(valid, size)
    share = F.adaptive_avg_pool2d(target * valid, size) / weight.clamp(min=1e-6)
    bce = F.binary_cross_entropy_with_logits(logits, share, reduction="none")
    return (bce * weight).sum() / weight.sum().clamp(min=1)


def mean_iou(logits: Tensor, mask: Tensor) -> float:
    """Mean IoU of logits > 0 over the samples, for the log."""
    valid, target = _valid_and_target(mask)
    predicted = (logits > 0) & (valid > 0)
    truth = (target > 0) & (valid > 0)
    overlap = (predicted & truth).sum(dim=(1, 2, 3))
    union = (predicted | truth).sum(dim=(1, 2, 3)).clamp(min=1)
    return float((overlap / union).mean())


def _valid_and_target(mask: Tensor) -> tuple[Tensor, Tensor]:
    return (mask != IGNORED).float(), (mask == 1).float()
