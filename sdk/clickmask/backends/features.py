"""What passes from ``encode`` to ``decode``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..native_diffusion import Affinity


@dataclass(frozen=True, eq=False)
class Features:
    """What ``encode`` leaves for ``decode``.

    Attributes:
        tensors: Arrays by name, on the device, "image" always among them.
        graph: The graph that decodes them: "network", "local_network" or "decoder".
        affinities: One for each image where the CPU's fused kernel does Pixel Diffusion; else none.
    """

    tensors: Mapping[str, Any]
    graph: str
    affinities: tuple[Affinity, ...] = ()
