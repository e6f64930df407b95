"""Which Pixel Diffusion a backend runs after the network: the bundle's graph, or the fused kernel.

Both give the same masks. The kernel is many times faster on a CPU and keeps a crop's affinities between
clicks; it needs the compiled library (decision 0013).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import BackendUnavailableError, InvalidInputError
from ..manifest import Manifest
from ..native_diffusion import Affinity, DiffusionOptions, instruction_sets, unavailable_because

Place = Literal["auto", "graph", "native"]


@dataclass(frozen=True)
class Choice:
    """What does Pixel Diffusion.

    Attributes:
        place: "native", "graph", or "none" for a bundle without it.
        reason: Why it is that one; of the kernel, its instruction set.
        kernel: The kernel's settings, where it is the kernel.
    """

    place: Literal["none", "graph", "native"]
    reason: str
    kernel: DiffusionOptions | None = None

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
    elif device != "cpu":
        problem = f"the kernel runs on the CPU and the network on {device}"
    else:
        try:
            kernel = DiffusionOptions.from_spec(manifest.pixel_diffusion)
        except InvalidInputError as exc:
            problem = str(exc)
        else:
            problem = kernel.problem() or unavailable_because() or ""
            if not problem:
                return Choice("native", instruction_sets()[0], kernel)
    if place == "native":
        raise BackendUnavailableError(
            f"expected to run Pixel Diffusion in the native kernel, got: {problem.rstrip('.')}; or use "
            "pixel_diffusion='auto'"
        )
    return Choice("none" if manifest.pixel_diffusion is None else "graph", problem.rstrip("."))


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
