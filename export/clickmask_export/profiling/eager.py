"""The network of a checkpoint in eager torch, behind the run time's protocol: what to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from clickmask.backends.base import Backend
from clickmask.manifest import Manifest
from clickmask_export.graphs import diffusion_graph, make_graphs
from clickmask_export.networks import open_networks
from clickmask_export.progress import Progress
from clickmask_export.recipes import Overrides, make_recipe
from clickmask_models.pixel_diffusion import PixelDiffusion


class EagerBackend(Backend):
    """A network in float32 on the CPU, with Pixel Diffusion as torch does it."""

    def __init__(self, manifest: Manifest, checkpoint: Path, progress: Progress) -> None:
        """Reads the checkpoint that a bundle of one network was built from.

        Raises:
            BuildError: it is no checkpoint.
        """
        super().__init__("eager torch", "cpu", "to compare with", manifest)
        (network,) = open_networks(checkpoint, None, None, progress).values()
        recipe = make_recipe(network, Overrides())
        graphs = [*make_graphs(network, flip=recipe.flip, precision="fp32")]
        if recipe.pixel_diffusion is not None:
            graphs.append(diffusion_graph(PixelDiffusion(recipe.pixel_diffusion).eval()))
        self._modules = {graph.name: graph.module for graph in graphs}

    @torch.inference_mode()
    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        spec = self.manifest.graphs[graph]
        outputs = self._modules[graph](*(torch.from_numpy(feeds[tensor.name]) for tensor in spec.inputs))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {tensor.name: output.numpy() for tensor, output in zip(spec.outputs, outputs, strict=True)}
