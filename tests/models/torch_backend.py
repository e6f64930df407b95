"""A network in torch behind the run time's protocol, without an export: what a bundle must agree with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clickmask.backends.base import Backend
from clickmask.backends.fake import fake_manifest
from clickmask.bundle import Bundle
from clickmask.manifest import Manifest
from clickmask.segmenter import Segmenter
from clickmask_models.pixel_diffusion import PixelDiffusion
from clickmask_models.presets import Pipeline


class TorchBackend(Backend):
    """Runs networks of ``clickmask_models`` eagerly, with flip averaging and Pixel Diffusion around them."""

    def __init__(self, manifest: Manifest, networks: Mapping[str, nn.Module], flip: bool) -> None:
        super().__init__("eager torch", "cpu", "made for a test", manifest)
        self.networks, self.flip = networks, flip

    @torch.inference_mode()
    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        network = self.networks[graph]
        inputs = [
            torch.from_numpy(feeds[name]) for name in ("image", "clicks", "previous_mask") if name in feeds
        ]
        logits = network(*inputs)
        if self.flip:
            logits = (logits + network(*mirrored(*inputs)).flip(3)) / 2
        if network.config.pixel_diffusion is not None:
            logits = PixelDiffusion(network.config.pixel_diffusion)(logits, *inputs[:2])
        return {"logits": logits.numpy()}


def mirrored(image: Tensor, clicks: Tensor, *previous_mask: Tensor) -> tuple[Tensor, ...]:
    """The same scene seen in a mirror: column x becomes W - 1 - x."""
    x, rest = clicks[..., :1], clicks[..., 1:]
    clicks = torch.cat([image.shape[3] - 1 - x, rest], dim=2)
    return (image.flip(3), clicks, *(mask.flip(3) for mask in previous_mask))


def torch_segmenter(pipeline: Pipeline, **networks: nn.Module) -> Segmenter:
    """A segmenter on networks by graph name ("network", and "local_network" where there are two)."""
    manifest = fake_manifest(
        local_network="local_network" in networks,
        input={
            "sizes": pipeline.sizes,
            "fit": pipeline.fit,
            "pad": networks["network"].mean,
            "coordinates": pipeline.coordinates,
            "previous_mask": networks["network"].takes_previous_mask,
        },
        crop=asdict(pipeline.crop),
        threshold=pipeline.threshold,
        momentum=pipeline.momentum,
    )
    return Segmenter(
        Bundle(Path("none"), manifest), TorchBackend(manifest, networks, pipeline.flip_averaging)
    )
