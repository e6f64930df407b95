"""The baseline of every figure: the same network and graphs, run by torch as it comes but for TF32."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clickmask.backends.base import Backend
from clickmask.manifest import Manifest
from clickmask_export.graphs import NETWORK, Graph, Precision, diffusion_graph, make_graphs
from clickmask_export.networks import open_networks
from clickmask_export.progress import Progress
from clickmask_export.recipes import Overrides, make_recipe
from clickmask_models.pixel_diffusion import PixelDiffusion


class EagerBackend(Backend):
    """The modules that a build exports, run eagerly on a device."""

    def __init__(self, manifest: Manifest, graphs: Iterable[Graph], device: str) -> None:
        super().__init__("eager torch", device, "the baseline", manifest)
        self._modules = {graph.name: graph.module.to(device) for graph in graphs}

    def _upload(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(array)).to(self.device)

    def _download(self, array: torch.Tensor) -> np.ndarray:
        return array.cpu().numpy()

    @torch.inference_mode()
    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        spec = self.manifest.graphs[graph]
        arguments = [feeds[tensor.name] for tensor in spec.inputs]
        tensors = [self._upload(a) if isinstance(a, np.ndarray) else a for a in arguments]
        # Around the baseline alone: the others must be right under torch's default, which is TF32.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            outputs = self._modules[graph](*tensors)
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        return dict(zip((tensor.name for tensor in spec.outputs), outputs, strict=True))


def eager_backend(checkpoint: Path, precision: Precision, manifest: Manifest, device: str) -> EagerBackend:
    """A checkpoint's network and Pixel Diffusion in eager torch, with a bundle's manifest of the same."""
    network = open_networks(checkpoint, None, None, Progress())[NETWORK]
    recipe = make_recipe(network, Overrides())
    graphs = list(make_graphs(network, flip=recipe.flip, precision=precision))
    if recipe.pixel_diffusion is not None:
        graphs.append(diffusion_graph(PixelDiffusion(recipe.pixel_diffusion).eval()))
    return EagerBackend(manifest, graphs, device)
