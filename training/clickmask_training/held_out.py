"""How good the averaged weights are on images that are never trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from clickmask_models.encode_once import EncodeOnceCDNet
from clickmask_training.config import TrainingConfig
from clickmask_training.data import TrainingData
from clickmask_training.losses import mean_iou
from clickmask_training.samples import Batch, make_batch

_BATCHES = 2


def held_out_batches(data: TrainingData, config: TrainingConfig) -> list[Batch]:
    """The same few batches whenever they are asked for, with random clicks alone; none without data."""
    config = replace(config, mask_share=0.0)
    return [make_batch(data, config, step) for step in range(_BATCHES)] if len(data) else []


@torch.no_grad()
def held_out_iou(network: EncodeOnceCDNet, batches: list[Batch]) -> float:
    """Mean IoU of a network in eval mode after a sample's random clicks."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = [network(batch.image, batch.clicks, batch.previous_mask) for batch in batches]
    return float(np.mean([mean_iou(z, batch.mask) for z, batch in zip(logits, batches, strict=True)]))
