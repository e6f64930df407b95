"""Crop policies as methods of the evaluation, which note what the encoder does for each click.

Clicks come when everything that can be encoded ahead of them is. Whether a click so many seconds after the
one before would have found its crop encoded follows from how long that took.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clickmask import Segmenter
from clickmask.backends.features import Features
from clickmask.crop import CropPolicy
from clickmask.evaluation.methods import BundleMethod
from clickmask.evaluation.run import Curve, annotate
from clickmask.evaluation.samples import Sample
from clickmask.session import Session
from clickmask.view import Box
from clickmask_training.arms import BundleArm

POLICIES = ("fbrs", "stable", "stable_once", "stable_closely", "none", "paper", "global_to_local")
_LOOKS = {"stable_once": None, "stable_closely": 0.0}  # "stable" with another `close_above`


class Encodes(NamedTuple):
    """What the encoder did for a click; plain JSON.

    Attributes:
        moved: the click looked at a crop not seen before in its session.
        waited: it ran the encoder itself.
        ahead: seconds of each of the encoder's runs between the click before and this one.
        needed: seconds of those until its crop was encoded, new or dropped since it was last; 0 where it was.
    """

    moved: bool
    waited: bool
    ahead: list[float]
    needed: float

    def ready(self, pause: float) -> bool:
        """Whether the crop is encoded so many seconds after the click before."""
        return not self.waited and self.needed <= pause


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
    """An arm for each name: `paper`, `fbrs` and `stable` with the least sides of the bundle's own policy.

    They differ by their rule then, not by how small a crop may be, which weights are used to. `stable_once`
    never looks closely, `stable_closely` at every click that may.
    """
    return [PolicyArm(name, bundle, _named(name, own)) for name in names]


def _named(name: str, own: CropPolicy) -> CropPolicy:
    policy = CropPolicy.named("stable" if name in _LOOKS else name)
    if name in _LOOKS:
        policy = replace(policy, close_above=_LOOKS[name])
    if policy.kind in ("paper", "fbrs", "stable"):
        policy = replace(policy, min_size=own.min_size, min_fraction=own.min_fraction)
    return policy


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
        self._segmenter, self._policy, backend = segmenter, policy, segmenter.backend
        self._watch = _Stopwatch(backend.encode, backend.decode)
        backend.encode, backend.decode = self._watch.encode, self._watch.decode  # type: ignore[method-assign]

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
        ahead = self.watch.read()
        mask = self.session.click(x, y, positive)
        moved, watch = self.session.crop not in self._seen, self.watch
        self.clicks.append(Encodes(moved, bool(watch.clicking), ahead, watch.needed))
        self._seen.add(self.session.crop)
        return mask


class _Stopwatch:
    """In the place of a backend's `encode` and `decode`.

    Attributes:
        clicking: since it was read, seconds of each crop that the clicking thread encoded.
        needed: since then, seconds that the other thread had worked, before, until what is decoded was there.
    """

    def __init__(self, encode: Callable[..., Features], decode: Callable[..., Any]) -> None:
        """What it times, and what it follows."""
        self._encode, self._decode = encode, decode
        self.clicking: list[float] = []
        self.needed = 0.0
        self._ahead: list[float] = []
        # Of what is encoded ahead, what that thread had worked by then: since it was read, and before.
        self._worked: weakref.WeakKeyDictionary[Features, float] = weakref.WeakKeyDictionary()
        self._before = self._worked

    def encode(self, image: NDArray[np.float32], local: bool = False) -> Features:
        """See `Backend.encode`."""
        began = time.perf_counter()
        features = self._encode(image, local=local)
        seconds = round(time.perf_counter() - began, 6)
        if threading.current_thread() is threading.main_thread():
            self.clicking.append(seconds)
        else:
            self._ahead.append(seconds)
            self._worked[features] = sum(self._ahead)
        return features

    def decode(self, features: Features, *arguments: Any) -> Any:
        """See `Backend.decode`."""
        self.needed = max(self.needed, self._before.get(features, 0.0))
        return self._decode(features, *arguments)

    def read(self) -> list[float]:
        """Seconds of each crop that the other thread encoded since it was read; all starts anew."""
        ahead, self._before = self._ahead, self._worked
        self.clicking, self.needed, self._ahead = [], 0.0, []
        self._worked = weakref.WeakKeyDictionary()
        return ahead
