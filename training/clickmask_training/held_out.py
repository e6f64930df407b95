"""How good weights are on images that are never trained on: on crops, and annotated by the robot."""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clickmask.backends.base import Backend
from clickmask.backends.diffusion import Choice
from clickmask.backends.fake import fake_manifest
from clickmask.bundle import Bundle
from clickmask.errors import BackendUnavailableError
from clickmask.evaluation.metrics import mean_iou_at, noc
from clickmask.evaluation.run import annotate
from clickmask.evaluation.truths import IGNORED, Masks
from clickmask.manifest import Manifest
from clickmask.native_diffusion import DiffusionOptions, unavailable_because
from clickmask.segmenter import Segmenter
from clickmask_models.pixel_diffusion import PixelDiffusionConfig
from clickmask_models.presets import pipeline
from clickmask_training.config import TrainingConfig
from clickmask_training.data import TrainingData
from clickmask_training.losses import mean_iou
from clickmask_training.precision import autocast
from clickmask_training.samples import Batch, make_batch

_BATCHES = 2


def held_out_batches(data: TrainingData, config: TrainingConfig) -> list[Batch]:
    """The same few batches whenever they are asked for, with random clicks alone; none without data."""
    photos = replace(config.data, copy_paste=0.0, synthetic=0.0)
    config = replace(config, mask_share=0.0, data=photos)
    return [make_batch(data, config, number) for number in range(_BATCHES)] if len(data) else []


@torch.no_grad()
def held_out_iou(network: nn.Module, batches: list[Batch], precision: str = "bf16") -> float:
    """Mean IoU of a network in eval mode after a sample's random clicks."""
    device = next(network.parameters()).device
    values = []
    for batch in batches:
        with autocast(device, precision):
            logits = network(*(part.to(device) for part in (batch.image, batch.clicks, batch.previous_mask)))
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


def torch_segmenter(
    network: nn.Module, config: TrainingConfig, diffusion: PixelDiffusionConfig | None = None
) -> Segmenter:
    """A segmenter on a network that was not exported, with the preset's crops, sizes and threshold.

    Args:
        network: in eval mode.
        config: names the preset and the precision.
        diffusion: Pixel Diffusion after it, by the fused kernel; None for none.

    Raises:
        BackendUnavailableError: there is no fused kernel here.
    """
    around = pipeline(config.network)
    manifest = fake_manifest(
        input={
            "sizes": around.sizes,
            "fit": around.fit,
            "pad": network.mean,
            "coordinates": around.coordinates,
            "previous_mask": network.takes_previous_mask,
        },
        crop=asdict(around.crop),
        threshold=around.threshold,
    )
    choice = None if diffusion is None else _native(diffusion)
    backend = _Torch(manifest, network, config.precision, choice)
    return Segmenter(Bundle(Path("not exported"), manifest), backend)


def _native(config: PixelDiffusionConfig) -> Choice:
    """The fused kernel with a network's settings."""
    if (reason := unavailable_because()) is not None:
        raise BackendUnavailableError(f"expected the fused Pixel Diffusion kernel, got: {reason}")
    same = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "click_map"}
    spot = config.click_map
    kernel = DiffusionOptions(**same, click_map=spot.kind, click_map_size=spot.size)
    return Choice("native", "asked for", kernel)


class _Torch(Backend):
    """Runs a network of ``clickmask_models`` in torch; encoders are run again at each click."""

    def __init__(self, manifest: Manifest, network: nn.Module, precision: str, choice: Choice | None) -> None:
        device = next(network.parameters()).device
        super().__init__("torch", str(device), "not exported", manifest, choice, threads=1)
        self._network, self._precision, self._at = network, precision, device

    @torch.inference_mode()
    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        names = [name for name in ("image", "clicks", "previous_mask") if name in feeds]
        with autocast(self._at, self._precision):
            logits = self._network(*(torch.from_numpy(feeds[name]).to(self._at) for name in names))
        return {"logits": logits.float().cpu().numpy()}
