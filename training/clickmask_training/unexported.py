"""Networks that were not exported, behind the run time's sessions."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clickmask.backends.base import Backend
from clickmask.backends.diffusion import Choice
from clickmask.backends.fake import fake_manifest
from clickmask.bundle import Bundle
from clickmask.errors import BackendUnavailableError
from clickmask.manifest import Manifest
from clickmask.native_diffusion import DiffusionOptions
from clickmask.native_library import unavailable_because
from clickmask.segmenter import Segmenter
from clickmask_models.pixel_diffusion import PixelDiffusionConfig
from clickmask_models.presets import pipeline
from clickmask_training.config import TrainingConfig
from clickmask_training.precision import autocast


def torch_segmenter(
    network: nn.Module, config: TrainingConfig, diffusion: PixelDiffusionConfig | None = None
) -> Segmenter:
    """A segmenter on a network that was not exported, with the preset's crops, sizes, threshold, momentum.

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
        momentum=around.momentum,
    )
    choice = None if diffusion is None else native_diffusion(diffusion)
    backend = _Torch(manifest, network, config.precision, choice)
    return Segmenter(Bundle(Path("not exported"), manifest), backend)


def native_diffusion(config: PixelDiffusionConfig) -> Choice:
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
