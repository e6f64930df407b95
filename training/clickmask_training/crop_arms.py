"""Crop policies as methods of the evaluation, which note what the encoder does for each click.

Clicks come when everything that can be encoded ahead of them is. Whether a click so many seconds after the
one before would have found its crop encoded follows from how long that took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clickmask import Segmenter
from clickmask.crop import CropPolicy
from clickmask.evaluation.methods import BundleMethod
from clickmask.evaluation.run import Curve, annotate
from clickmask.evaluation.samples import Sample
from clickmask.session import Session
from clickmask.view import Box
from clickmask_training.arms import BundleArm

POLICIES = ("fbrs", "stable", "none", "paper", "global_to_local")


class Encodes(NamedTuple):
    """What the encoder did for a click; plain JSON.

    Attributes:
        moved: the click looked at a crop not seen before in its session.
        waited: it ran the encoder itself.
        ahead: seconds of each of the encoder's runs between the click before and this one.
    """

    moved: bool
    waited: bool
    ahead: list[float]

    def ready(self, pause: float) -> bool:
        """Whether the crop is encoded so many seconds after the click before."""
        return not self.waited and not (self.moved and sum(self.ahead) > pause)


@dataclass(frozen=True)
class PolicyArm(BundleArm):
    """A bundle whose sessions follow a crop policy."""

    policy: CropPolicy

    def open(self) -> Patients:
        """Loads the bundle."""
        method = self.bundle
        segmenter = Segmenter.load(method.path, method.backend, method.device, method.threads)
        return Patients(segmenter, self.policy)

    def settings(self) -> dict[str, Any]:
        """See `Method`."""
        return {**self.bundle.settings(), "policy": asdict(self.policy)}


def policy_arms(names: Sequence[str], bundle: BundleMethod, own: CropPolicy) -> list[PolicyArm]:
    """An arm for each name, `paper`, `fbrs` and `stable` with the least sides of the bundle's own policy.

    They differ by their rule then, not by how small a crop may be, which weights are used to.
    """
    sides = {"min_size": own.min_size, "min_fraction": own.min_fraction}
    named = {name: CropPolicy.named(name) for name in names}
    named |= {name: replace(named[name], **sides) for name in ("paper", "fbrs", "stable") if name in named}
    return [PolicyArm(name, bundle, policy) for name, policy in named.items()]


def annotated(
    arm: PolicyArm, samples: Sequence[Sample], clicks: int, encodes: list[list[Encodes]]
) -> Iterator[Curve]:
    """The robot's curves on some objects; before each, its clicks' `Encodes` are added to a list."""
    with arm.open() as patients:
        for sample in samples:
            curve = annotate(patients, sample, clicks)
            encodes.append(patients.newest.clicks)
            yield curve


class Patients:
    """Begins sessions of one policy whose clicks wait for what is encoded ahead."""

    newest: Patient

    def __init__(self, segmenter: Segmenter, policy: CropPolicy) -> None:
        """Takes over a segmenter: its encoder is timed from now on."""
        self._segmenter, self._policy = segmenter, policy
        self._watch = _Stopwatch(segmenter.backend.encode)
        segmenter.backend.encode = self._watch  # type: ignore[method-assign]

    def __enter__(self) -> Patients:
        return self

    def __exit__(self, *_: object) -> None:
        self._segmenter.close()

    def session(self, image: NDArray[np.uint8]) -> Patient:
        """See `Annotator`."""
        self._segmenter.prefetcher.settle()
        self._watch.read()  # what the session before had encoded in vain
        self.newest = Patient(self._segmenter.session(image, self._policy), self._segmenter, self._watch)
        return self.newest


@dataclass
class Patient:
    """One session; `clicks` tells of those that it got."""

    session: Session
    segmenter: Segmenter
    watch: _Stopwatch
    clicks: list[Encodes] = field(default_factory=list)
    _seen: set[Box | None] = field(default_factory=set)

    def click(self, x: float, y: float, positive: bool = True) -> NDArray[np.bool_]:
        """See `Clickable`."""
        self.segmenter.prefetcher.settle()
        _, ahead = self.watch.read()
        mask = self.session.click(x, y, positive)
        self.clicks.append(Encodes(self.session.crop not in self._seen, bool(self.watch.clicking), ahead))
        self._seen.add(self.session.crop)
        return mask


@dataclass
class _Stopwatch:
    """In the place of a backend's ``encode``: seconds of each call, by the thread that made it."""

    encode: Any
    clicking: list[float] = field(default_factory=list)
    ahead: list[float] = field(default_factory=list)

    def __call__(self, image: NDArray[np.float32], local: bool = False) -> Any:
        began = time.perf_counter()
        features = self.encode(image, local=local)
        mine = threading.current_thread() is threading.main_thread()
        (self.clicking if mine else self.ahead).append(round(time.perf_counter() - began, 6))
        return features

    def read(self) -> tuple[list[float], list[float]]:
        """What it has, from the clicking thread and from the other; it starts anew."""
        seconds, self.clicking, self.ahead = (self.clicking, self.ahead), [], []
        return seconds
