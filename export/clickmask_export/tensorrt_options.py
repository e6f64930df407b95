"""What can be chosen about a TensorRT plan, and the builder flags that it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clickmask.engine_facts import MAX_BATCH, MAX_WORKSPACE_BYTES, EngineProfile, HardwareCompatibility
from clickmask_export.errors import RecipeError

MEBIBYTE = 1 << 20
OPTIMISATION_LEVELS = range(6)


@dataclass(frozen=True)
class PlanOptions:
    """Choices for the plans of a bundle.

    Attributes:
        max_batch: most images that one call may carry.
        workspace_mib: most scratch memory that a kernel may take, in MiB.
        optimisation_level: how long the builder searches, 0 to 5.
        tf32: whether float32 may compute in TF32 (10 bits of mantissa), which Pixel Diffusion feels.
        version_compatible: whether later versions of TensorRT load the plans.
        lean_runtime: whether version-compatible plans carry the code that later versions run them with.
        hardware_compatibility: on which other GPUs they load.
        strip_weights: whether the plans come without weights, which are then read from ONNX files.
        timing_cache: where to keep measured kernel times; None takes a file for this version and GPU.
    """

    max_batch: int = 8
    workspace_mib: int = 2048
    optimisation_level: int = 3
    tf32: bool = False
    version_compatible: bool = False
    lean_runtime: bool = True
    hardware_compatibility: HardwareCompatibility = "none"
    strip_weights: bool = False
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        """Raises RecipeError where a value or a combination makes no sense."""
        if not 1 <= self.max_batch <= MAX_BATCH:
            raise RecipeError(f"--max-batch: expected 1 to {MAX_BATCH} images, got {self.max_batch}")
        most = MAX_WORKSPACE_BYTES // MEBIBYTE
        if not 1 <= self.workspace_mib <= most:
            raise RecipeError(f"--workspace: expected 1 to {most} MiB, got {self.workspace_mib}")
        if self.optimisation_level not in OPTIMISATION_LEVELS:
            raise RecipeError(f"--optimization-level: expected 0 to 5, got {self.optimisation_level}")
        if not self.lean_runtime and not self.version_compatible:
            raise RecipeError(
                "--exclude-lean-runtime: only version-compatible plans carry a lean runtime: add "
                "--version-compatible, or leave it out"
            )

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of the builder flags to set, in alphabetical order; every other one is cleared or off."""
        chosen = {
            "TF32": self.tf32,
            "VERSION_COMPATIBLE": self.version_compatible,
            "EXCLUDE_LEAN_RUNTIME": not self.lean_runtime,
            "STRIP_PLAN": self.strip_weights,
            "REFIT_IDENTICAL": self.strip_weights,  # refitted with the very weights it was built from
        }
        return tuple(sorted(name for name, on in chosen.items() if on))

    def profiles(self, sizes: Sequence[int]) -> tuple[EngineProfile, ...]:
        """One optimisation profile for each input size, tuned for a single image: a person's click."""
        return tuple(EngineProfile(size, 1, 1, self.max_batch) for size in sizes)
