"""Losses over (B, 1, H, W) logits and (B, 1, H, W) masks of 0, 1 and 255 (ignored), all in float32."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clickmask.evaluation.truths import IGNORED

_ALPHA, _GAMMA = 0.5, 2.0  # of the focal loss
_EPS = 1e-12  # 0 in half precision


def bce(logits: Tensor, mask: Tensor, weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, averaged over each sample's valid pixels: (B,).

    Args:
        logits: (B, K, H, W); (B, K) comes back where K > 1.
        mask: (B, 1, H, W).
        weight: (B, 1, H, W) of each pixel; None for 1.
    """
    valid, target = valid_and_target(mask)
    weight = valid if weight is None else valid * weight
    per_pixel = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    mean = (per_pixel * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp(min=1)
    return mean.squeeze(1)


def dice(logits: Tensor, mask: Tensor) -> Tensor:
    """Soft Dice over each sample's valid pixels: (B,)."""
    valid, target = valid_and_target(mask)
    probability = torch.sigmoid(logits) * valid
    overlap = (probability * target).sum(dim=(1, 2, 3))
    return 1 - (2 * overlap + 1) / ((probability + target * valid).sum(dim=(1, 2, 3)) + 1)


def normalised_focal(logits: Tensor, mask: Tensor) -> Tensor:
    """Normalised focal loss (RITM) over each sample's valid pixels: (B,), or (B, K) of (B, K, H, W).

    With p the probability of the truth, the weights (1 - p)^2 of a sample are scaled to sum to its number of
    valid pixels; the scale carries no gradient, the weights do.
    """
    valid, target = valid_and_target(mask)
    right = torch.where(valid > 0, 1 - (target - torch.sigmoid(logits)).abs(), torch.ones_like(logits))
    weight = (1 - right) ** _GAMMA
    count = valid.sum(dim=(2, 3), keepdim=True)
    scale = (count / (weight.sum(dim=(2, 3), keepdim=True) + _EPS)).detach()
    per_pixel = -_ALPHA * scale * weight * torch.log((right + _EPS).clamp(max=1))
    mean = (per_pixel * valid).sum(dim=(2, 3)) / count.clamp(min=1).flatten(1)
    return mean.squeeze(1)


def cell_bce(logits: Tensor, mask: Tensor) -> Tensor:
    """BCE of an auxiliary head at its own resolution, against the mask averaged per cell."""
    valid, target = valid_and_target(mask)
    size = logits.shape[-2:]
    weight = F.adaptive_avg_pool2d(valid, size)
    share = F.adaptive_avg_pool2d(target * valid, size) / weight.clamp(min=1e-6)
    per_cell = F.binary_cross_entropy_with_logits(logits, share, reduction="none")
    return (per_cell * weight).sum() / weight.sum().clamp(min=1)


def distillation(logits: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy with the teacher's probabilities, over each sample's valid pixels: (B,)."""
    valid, _ = valid_and_target(mask)
    per_pixel = F.binary_cross_entropy_with_logits(logits, torch.sigmoid(teacher), reduction="none")
    return (per_pixel * valid).sum(dim=(1, 2, 3)) / valid.sum(dim=(1, 2, 3)).clamp(min=1)


def feature_distance(features: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Squared distance of feature maps, in units of the variance of the teacher's; the mean of the maps: ().

    Args:
        features: maps (B, C, h, w), C and size as they come.
        teacher: as many, of the same shapes.
    """
    distances = [
        F.mse_loss(ours.float(), theirs.float()) / theirs.float().var(dim=(0, 2, 3)).mean()
        for ours, theirs in zip(features, teacher, strict=True)
    ]
    return torch.stack(distances).mean()


def near_boundary(mask: Tensor, width: int) -> Tensor:
    """1 within ``width`` pixels (square) of object and background both, else 0: (B, 1, H, W).

    Ignored pixels and padding are neither: where they cut an object is no border of it.
    """
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    found = [
        cv2.dilate((one == 1).view(np.uint8), square) & cv2.dilate((one == 0).view(np.uint8), square)
        for one in mask[:, 0].cpu().numpy()
    ]
    return torch.from_numpy(np.stack(found)).unsqueeze(1).to(mask.device, torch.float32)


def mean_iou(logits: Tensor, mask: Tensor) -> float:
    """Mean IoU of logits > 0 over the samples, for the log."""
    valid, target = valid_and_target(mask)
    predicted = (logits > 0) & (valid > 0)
    truth = (target > 0) & (valid > 0)
    overlap = (predicted & truth).sum(dim=(1, 2, 3))
    union = (predicted | truth).sum(dim=(1, 2, 3)).clamp(min=1)
    return float((overlap / union).mean())


def valid_and_target(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Where there is truth, and where it says object: (B, 1, H, W) float32 each."""
    return (mask != IGNORED).float(), (mask == 1).float()
