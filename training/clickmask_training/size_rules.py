"""Rules that choose a network input size for each view of a session, as methods of the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickmask import Segmenter
from clickmask.crop import Box, View
from clickmask.evaluation.methods import BundleMethod, Clickable, Method
from clickmask.session import Session


@dataclass(frozen=True)
class Pick:
    """A size from a view's native long side: that of the bundle's nearest to it.

    Attributes:
        scale: what the long side is multiplied by first.
        least, most: where it is cut then.
        below: the largest size that is not above it, instead of the nearest.
    """

    scale: float = 1.0
    least: int = 0
    most: int = 10_000
    below: bool = False

    def size(self, long_side: int, sizes: Sequence[int]) -> int:
        """One of the sizes."""
        wanted = min(max(self.scale * long_side, self.least), self.most)
        if self.below:
            return max((size for size in sizes if size <= wanted), default=min(sizes))
        return min(sizes, key=lambda size: (abs(size - wanted), size))


def fixed(size: int) -> Pick:
    """The same size for every view."""
    return Pick(least=size, most=size)


NEAREST = Pick()


@dataclass(frozen=True)
class SizeRule:
    """A bundle whose sizes follow a rule of our own: for the first click's view, and for all later ones."""

    name: str
    bundle: BundleMethod
    first: Pick = NEAREST
    later: Pick = NEAREST
    device: str = field(init=False, default="cpu")

    @property
    def threads(self) -> int | None:
        """See `Method`."""
        return self.bundle.threads

    def open(self) -> _Ruled:
        """Loads the bundle."""
        bundle = self.bundle
        segmenter = Segmenter.load(bundle.path, bundle.backend, bundle.device, bundle.threads, prefetch=False)
        return _Ruled(segmenter, self)

    def settings(self) -> dict[str, Any]:
        """See `Method`."""
        return {**self.bundle.settings(), "first": asdict(self.first), "later": asdict(self.later)}


@dataclass(frozen=True)
class _Ruled:
    segmenter: Segmenter
    rule: SizeRule

    def session(self, image: NDArray[np.uint8]) -> Clickable:
        session = Session(self.segmenter, image)
        spec = self.segmenter.bundle.manifest.input

        def view_of(box: Box, **_: Any) -> View:
            pick = self.rule.later if session.clicks else self.rule.first
            return View(box, pick.size(max(box.width, box.height), spec.sizes), spec.fit, spec.coordinates)

        session._predictor._view_of = view_of  # type: ignore[method-assign]
        return session


def rules(bundle: BundleMethod, sizes: Sequence[int]) -> list[Method]:
    """What is compared, the bundle as it is first."""

    def rule(name: str, first: Pick, later: Pick) -> SizeRule:
        return SizeRule(name, bundle, first, later)

    capped = Pick(most=384)
    return [
        replace(bundle, name="the run time's own"),
        rule("nearest", NEAREST, NEAREST),
        *(rule(f"all at {size}", fixed(size), fixed(size)) for size in sizes),
        rule("first at most 384, then nearest", capped, NEAREST),
        rule("first at most 384, then nearest below", capped, Pick(below=True)),
        rule("first at most 384, then nearest, at least 384", capped, Pick(least=384)),
        rule("first at most 384, then nearest to 1.5 x", capped, Pick(1.5)),
    ]
