"""Which Pixel Diffusion a backend runs after the network: the bundle's graph, or a fused kernel.

Both give the same masks. On a CPU the kernel is many times faster and keeps a crop's affinities between
clicks; on CUDA it takes the graph's place on the lane's stream. Each needs its compiled library (decision
0013).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import BackendUnavailableError, InvalidInputError
from ..manifest import Manifest, PixelDiffusionSpec
from ..native_diffusion import Affinity, DiffusionOptions
from ..native_library import instruction_sets, unavailable_because
from .device_diffusion import DeviceDiffusion, diffusion_library

Place = Literal["auto", "graph", "native"]


@dataclass(frozen=True)
class Choice:
    """What does Pixel Diffusion.

    Attributes:
        place: "native", "graph", or "none" for a bundle without it.
        reason: Why it is that one; of the kernel, its instruction set, or "CUDA".
        kernel: The kernel's settings, where it is the one for a CPU.
        device_kernel: The kernel, where it is the one for CUDA.
    """

    place: Literal["none", "graph", "native"]
    reason: str
    kernel: DiffusionOptions | None = None
    device_kernel: DeviceDiffusion | None = None

    def __str__(self) -> str:
        return f"{self.place} ({self.reason})"

    def opens(self, graph: str) -> bool:
        """Whether a graph of the bundle is ever run; the others would only take time and memory."""
        return graph != "pixel_diffusion" or self.place == "graph"


def choose(manifest: Manifest, place: Place, device: str) -> Choice:
    """Choose for a bundle and a device.

    Args:
        manifest: the bundle's.
        place: "graph"; "native"; or "auto", which is the kernel where it can be had.
        device: of the network: "cpu", "cuda" or "cuda:N".

    Raises:
        BackendUnavailableError: "native" was asked for and cannot be had; the message says why.
    """
    if manifest.pixel_diffusion is None:
        problem = "the bundle has no Pixel Diffusion"
    elif place == "graph":
        return Choice("graph", "asked for")
    else:
        try:
            return _kernel(manifest.pixel_diffusion, manifest.input.sizes, device)
        except (InvalidInputError, BackendUnavailableError) as exc:
            problem = str(exc)
    if place == "native":
        raise BackendUnavailableError(
            f"expected to run Pixel Diffusion in the native kernel, got: {problem.rstrip('.')}; or use "
            "pixel_diffusion='auto'"
        )
    return Choice("none" if manifest.pixel_diffusion is None else "graph", problem.rstrip("."))


def _kernel(spec: PixelDiffusionSpec, sizes: Sequence[int], device: str) -> Choice:
    """The kernel on a device.

    Raises:
        InvalidInputError: It does not know the settings.
        BackendUnavailableError: There is none, or it does not do the settings at one of the sizes.
    """
    options = DiffusionOptions.from_spec(spec)
    if problem := options.problem() or (device == "cpu" and unavailable_because()):
        raise BackendUnavailableError(problem)
    if device == "cpu":
        return Choice("native", instruction_sets()[0], options)
    kernel = DeviceDiffusion(diffusion_library(), options)
    if refused := [size for size in sizes if not kernel.scratch_bytes(size)]:
        raise BackendUnavailableError(
            f"CUDA kernels: expected to do the sizes {list(sizes)} with these settings, got a refusal of "
            f"{refused}; use the graph form."
        )
    return Choice("native", "CUDA", device_kernel=kernel)


def affinities(image: np.ndarray, options: DiffusionOptions, threads: int | None) -> tuple[Affinity, ...]:
    """The weights of each image of a batch (B, 3, S, S): all that a crop's clicks share."""
    return tuple(Affinity(picture, options, threads) for picture in image)


def diffuse(
    weights: Sequence[Affinity], logits: np.ndarray, clicks: np.ndarray, threads: int | None
) -> np.ndarray:
    """Logits (B, 1, S, S) after Pixel Diffusion, from those before it and clicks (B, M, 3).

    Raises:
        BackendError: Logits that are not finite.
    """
    result = np.empty(logits.shape, np.float32)
    for affinity, plane, rows, out in zip(weights, logits, clicks, result, strict=True):
        affinity.diffuse(plane[0], rows, threads, out[0])
    return result
