"""Pixel Diffusion's settings on one set of weights: amplitude and iterations, CDNet's Tables 6 and 7."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from clickmask import Segmenter
from clickmask.backends import open_backend
from clickmask.bundle import Bundle, load_bundle
from clickmask.errors import InvalidInputError
from clickmask.evaluation.methods import BundleMethod

_AMPLITUDES = (0.0, 0.5, 1.5, 2.0)
_ITERATIONS = (1, 5, 20)
PAPER = (10, 1.0)
"""Iterations and amplitude that the paper takes."""


@dataclass(frozen=True)
class Diffused:
    """A bundle with other Pixel Diffusion than its own, in the fused kernel; without iterations, none."""

    bundle: BundleMethod
    iterations: int
    amplitude: float

    @property
    def name(self) -> str:
        """See `Method`."""
        if not self.iterations:
            return "no Pixel Diffusion"
        same = ", the paper's" if (self.iterations, self.amplitude) == PAPER else ""
        times = f"{self.iterations} iteration{'s' * (self.iterations > 1)}"
        return f"{times}, amplitude {self.amplitude:g}{same}"

    @property
    def device(self) -> str:
        """See `Method`."""
        return self.bundle.device

    @property
    def threads(self) -> int | None:
        """See `Method`."""
        return self.bundle.threads

    def open(self) -> Segmenter:
        """Loads the bundle.

        Raises:
            InvalidInputError: the bundle has no Pixel Diffusion to change.
            BackendUnavailableError: there is no fused kernel here.
        """
        method = self.bundle
        loaded = load_bundle(method.path)
        spec = loaded.manifest.pixel_diffusion
        if spec is None:
            raise InvalidInputError(f"expected a bundle with Pixel Diffusion, got {method.path} without it")
        changed = replace(spec, iterations=self.iterations, amplitude=self.amplitude)
        manifest = replace(loaded.manifest, pixel_diffusion=changed if self.iterations else None)
        bundle = Bundle(loaded.path, manifest)
        place = "native" if self.iterations else "auto"
        return Segmenter(bundle, open_backend(bundle, method.backend, method.device, method.threads, place))

    def settings(self) -> dict[str, Any]:
        """See `Method`."""
        return {**self.bundle.settings(), "iterations": self.iterations, "amplitude": self.amplitude}


def variants(bundle: BundleMethod) -> list[Diffused]:
    """The paper's setting first, then each other value of the one and of the other."""
    settings = [PAPER, *((PAPER[0], amplitude) for amplitude in _AMPLITUDES)]
    settings += [(0, PAPER[1]), *((iterations, PAPER[1]) for iterations in _ITERATIONS)]
    return [Diffused(bundle, *setting) for setting in settings]


def published(arms: list[Diffused]) -> Mapping[str, str]:
    """What the paper says of each arm, where it is known: NoC@90 on DAVIS against that of its setting."""
    known = {
        PAPER: "best",
        (10, 2.0): "worse: 6.72, best 6.66",
        (0, 1.0): "worse: 7.64, with it 7.06",
        (5, 1.0): "worse by 0.08",
    }
    at_one = {(10, a): "worse than 1" for a in (0.0, 0.5, 1.5)}
    return {arm.name: (at_one | known).get((arm.iterations, arm.amplitude), "") for arm in arms}
