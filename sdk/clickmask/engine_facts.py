"""What is known of a TensorRT plan: where it was built, what it needs, and what was proven of it.

The key ``engine`` of an artefact in docs/bundle.md. Plans tell none of this themselves before they are
loaded, and loading the wrong one can end the process.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from .strict_json import Node

Flavour = Literal["full", "lean"]
HardwareCompatibility = Literal["none", "ampere_plus", "same_compute_capability"]

MAX_BATCH = 1024
MAX_WORKSPACE_BYTES = 1 << 50

_VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,6}){2,3}")
_CAPABILITY = re.compile(r"[0-9]{1,3}\.[0-9]{1,2}")


@dataclass(frozen=True)
class EngineProfile:
    """One optimisation profile: an input size S and the numbers of images B it was built for.

    Its number is its place in ``EngineFacts.profiles``, the same in the plan of every graph. Click slots M
    are from 1 to the manifest's ``max_clicks`` in each.
    """

    size: int
    min_batch: int
    opt_batch: int
    max_batch: int

    def takes(self, size: int, batch: int) -> bool:
        """Whether ``batch`` images of side ``size`` fit this profile."""
        return self.size == size and self.min_batch <= batch <= self.max_batch


@dataclass(frozen=True)
class EngineFacts:
    """Facts of the plans of one artefact; all of its graphs share them.

    Attributes:
        tensorrt: Version that built it, such as "11.4.0.106".
        flavour: The smallest runtime that loads it; "lean" only for version-compatible plans.
        platform: Where it runs, as ``host_platform`` names it: "linux x86_64".
        gpu_name: The GPU that it was built on, as the driver names it.
        compute_capability: That GPU's, such as "9.0".
        hardware_compatibility: On which other GPUs it loads.
        version_compatible: Whether later versions of TensorRT load it.
        lean_runtime_inside: Whether it carries code that the host runs to load it.
        stripped: Whether its weights are files of their own, the artefact's ``weights``.
        flags: Names of the builder flags that were set; never their numbers, which change.
        profiles: See ``EngineProfile``.
        workspace_bytes: Limit of the builder's workspace pool.
        half_share: Share of the network's layers that compute in half precision, in [0, 1], by the engine
            inspector; Pixel Diffusion, which is FP32 by policy, is not counted.
        fp32_layers: Name of a precision policy to the layers that it keeps in single precision.
    """

    tensorrt: str
    flavour: Flavour
    platform: str
    gpu_name: str
    compute_capability: str
    hardware_compatibility: HardwareCompatibility
    version_compatible: bool
    lean_runtime_inside: bool
    stripped: bool
    flags: tuple[str, ...]
    profiles: tuple[EngineProfile, ...]
    workspace_bytes: int
    half_share: float
    fp32_layers: Mapping[str, tuple[str, ...]]

    def profile(self, size: int, batch: int) -> int | None:
        """Number of the first profile that takes ``batch`` images of side ``size``; None where none does."""
        return next((i for i, profile in enumerate(self.profiles) if profile.takes(size, batch)), None)


def read_engine(node: Node) -> EngineFacts:
    """The object of docs/bundle.md as its value, or a refusal."""
    keys = node.fields(tuple(f.name for f in dataclasses.fields(EngineFacts)))
    facts = EngineFacts(
        tensorrt=_matching(keys["tensorrt"], _VERSION, "a version such as '11.4.0.106'"),
        flavour=keys["flavour"].choice(get_args(Flavour)),
        platform=keys["platform"].text(),
        gpu_name=keys["gpu_name"].text(),
        compute_capability=_matching(keys["compute_capability"], _CAPABILITY, "a number such as '9.0'"),
        hardware_compatibility=keys["hardware_compatibility"].choice(get_args(HardwareCompatibility)),
        version_compatible=keys["version_compatible"].flag(),
        lean_runtime_inside=keys["lean_runtime_inside"].flag(),
        stripped=keys["stripped"].flag(),
        flags=tuple(item.text() for item in keys["flags"].items()),
        profiles=tuple(_profile(item) for item in keys["profiles"].items(1)),
        workspace_bytes=keys["workspace_bytes"].integer(0, MAX_WORKSPACE_BYTES),
        half_share=keys["half_share"].number(0, 1),
        fp32_layers={
            policy: tuple(item.text() for item in layers.items())
            for policy, layers in keys["fp32_layers"].members().items()
        },
    )
    if not facts.version_compatible and facts.flavour == "lean":
        raise keys["flavour"].error("'full' for a plan that is not version_compatible")
    if not facts.version_compatible and facts.lean_runtime_inside:
        raise keys["lean_runtime_inside"].error("false for a plan that is not version_compatible")
    return facts


def _matching(node: Node, pattern: re.Pattern[str], wanted: str) -> str:
    text = node.text()
    if not pattern.fullmatch(text):
        raise node.error(wanted)
    return text


def _profile(node: Node) -> EngineProfile:
    keys = node.fields(tuple(f.name for f in dataclasses.fields(EngineProfile)))
    smallest, usual, largest = (
        keys[name].integer(1, MAX_BATCH) for name in ("min_batch", "opt_batch", "max_batch")
    )
    if not smallest <= usual <= largest:
        raise node.error("min_batch <= opt_batch <= max_batch", f"{smallest}, {usual}, {largest}")
    return EngineProfile(keys["size"].integer(1, 1 << 16), smallest, usual, largest)
