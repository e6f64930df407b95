"""How good weights are on images that are never trained on: on crops, and annotated by the robot."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clickmask.evaluation.metrics import mean_iou_at, noc
from clickmask.evaluation.run import annotate
from clickmask.evaluation.truths import IGNORED, Masks
from clickmask_models.presets import pipeline
from clickmask_training import passes
from clickmask_training.config import TrainingConfig
from clickmask_training.data import TrainingData
from clickmask_training.losses import mean_iou
from clickmask_training.precision import autocast
from clickmask_training.samples import Batch, make_batch
from clickmask_training.unexported import torch_segmenter

_BATCHES = 4


def held_out_batches(data: TrainingData, config: TrainingConfig) -> list[Batch]:
    """The same few batches whenever they are asked for, with clicks as in training; none without data."""
    photos = replace(config.data, copy_paste=0.0, synthetic=0.0)
    config = replace(config, clicks=replace(config.clicks, midway=False), data=photos)
    return [make_batch(data, config, number) for number in range(_BATCHES)] if len(data) else []


@torch.no_grad()
def held_out_iou(network: nn.Module, batches: list[Batch], config: TrainingConfig) -> float:
    """Mean IoU of a network in eval mode after a sample's clicks, corrective ones included."""
    device, momentum = next(network.parameters()).device, pipeline(config.network).momentum
    values = []
    for number, batch in enumerate(batches):
        rng = np.random.default_rng((config.seed, number))
        with autocast(device, config.precision):
            features = passes.encode(network, batch.image.to(device))
            told = passes.correct(network, features, batch, config.clicks, rng, momentum)
            logits = passes.decode(network, features, told.clicks, told.previous).logits
        values.append(mean_iou(logits.float(), batch.mask.to(device)))
    return float(np.mean(values))


@dataclass(frozen=True)
class _Drawn:
    """A drawn object, in memory, as `annotate` reads a sample."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    name: str = "drawn"
    group: str = "held out"

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return self.pixels

    def truth(self) -> Masks:
        """(object, ignored), both (H, W) bool."""
        return self.mask == 1, self.mask == IGNORED


class RobotCheck:
    """The robot annotator on a few held-out objects, through the session that applications use.

    Pixel Diffusion, which runs after the network, is left out: it would cost more than all the rest.
    """

    def __init__(self, data: TrainingData, config: TrainingConfig) -> None:
        """Chooses the objects: the same whenever they are asked for."""
        rng = np.random.default_rng((config.seed, zlib.crc32(b"validation")))
        count = config.validation.objects if len(data) else 0
        self._objects = [_Drawn(*data.draw(rng)) for _ in range(count)]
        self._config = config

    def __bool__(self) -> bool:
        """Whether there is anything to annotate."""
        return bool(self._objects)

    def run(self, network: nn.Module) -> dict[str, str]:
        """Annotates all objects with a network in eval mode.

        Returns:
            ``noc90``: mean clicks to an IoU of 0.90, failures counted as all; ``miou5``: mean IoU after five.
        """
        segmenter = torch_segmenter(network, self._config)
        limit = self._config.validation.clicks
        curves = [annotate(segmenter, sample, limit).ious for sample in self._objects]
        clicks, after_five = noc(curves, 0.90, limit), mean_iou_at(curves, min(5, limit))
        return {"noc90": f"{clicks:.2f}", "miou5": f"{after_five:.4f}"}
