"""Rules that choose a network input size for each view of a session, as methods of the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from clickmask import Segmenter
from clickmask.backends import open_backend
from clickmask.bundle import load_bundle
from clickmask.evaluation.methods import BundleMethod
from clickmask.view import Box, choose_size
from clickmask_training.arms import BundleArm


@dataclass(frozen=True)
class Pick:
    """A size from a view's native long side.

    Attributes:
        to: the bundle's size "nearest" to it, the next "larger" one or the next "smaller" one; where there is
            none, the largest or smallest.
        least, most: where the long side is cut first.
    """

    to: Literal["nearest", "larger", "smaller"] = "nearest"
    least: int = 0
    most: int = 10_000

    def __call__(self, box: Box, sizes: Sequence[int]) -> int:
        """See `SizeRule`."""
        wanted = min(max(box.width, box.height, self.least), self.most)
        if self.to == "larger":
            return min((size for size in sizes if size >= wanted), default=max(sizes))
        if self.to == "smaller":
            return max((size for size in sizes if size <= wanted), default=min(sizes))
        return min(sizes, key=lambda size: (abs(size - wanted), size))


@dataclass(frozen=True)
class PickedSizes(BundleArm):
    """A bundle whose input sizes follow a rule of our own."""

    pick: Pick

    def open(self) -> Segmenter:
        """Loads the bundle."""
        method = self.bundle
        loaded = load_bundle(method.path)
        backend = open_backend(loaded, method.backend, method.device, method.threads)
        return Segmenter(loaded, backend, size_rule=self.pick)

    def settings(self) -> dict[str, Any]:
        """See `Method`."""
        return {**self.bundle.settings(), "pick": asdict(self.pick)}


def rules(bundle: BundleMethod, sizes: Sequence[int]) -> list[PickedSizes]:
    """What is compared: the run time's own rule first, then such as come near to the protocol's 400 and 600.

    Args:
        bundle: the method.
        sizes: its input sizes.
    """
    small, large = (choose_size(Box(0, 0, side, side), sizes) for side in (400, 600))
    picks = {
        "nearest": Pick(),
        f"nearest, at least {small}": Pick(least=small),
        f"next smaller, at least {small}": Pick("smaller", least=small),
        f"next larger, at least {small}": Pick("larger", least=small),
        f"all at {large}": Pick(least=large, most=large),
    }
    return [PickedSizes(name, bundle, pick) for name, pick in picks.items()]
