"""Where the time of a click goes, seen from inside the backend and without a change to the run time.

A backend does everything through ``encode`` and ``decode``, and each step of those through ``_guard``, which
is there to turn exceptions of runtimes into ours. A subclass that notes when each began and ended is all it
takes. What a click spends before and after is the host's: crop, clicks and previous mask; then blending
and the mask.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from clickmask.backends.base import Backend, Features

PREPARE, PASTE, CHECKS, DIFFUSION = "prepare", "paste", "checks", "Pixel Diffusion"
"""Stages that are no graph: crop, resize, clicks, previous mask, and before a close look momentum; blending
and the mask; what a backend does besides."""

STAGES = (
    *(PREPARE, "copy in", "encoder", "affinity", "network", "local_network", "decoder"),
    *(DIFFUSION, "copy out", CHECKS, PASTE),
)
"""All there are, in their order."""

_ENCODE, _DECODE = "encode", "decode"
_STEPS = {
    "_upload": "copy in",
    "_download": "copy out",
    "_leave": "copy out",
    "_weigh": "affinity",
    "diffuse": DIFFUSION,
    "pixel_diffusion": DIFFUSION,
}


class Span(NamedTuple):
    """Something that a backend did.

    Attributes:
        name: a stage, or the call that the stages are in: "encode" or "decode".
        start: when it began, seconds of ``time.perf_counter``.
        end: when it ended.
        own: seconds of it that are in no span inside it.
        thread: who did it.
        encoded: of a decode, when the crop that it decodes had been encoded.
    """

    name: str
    start: float
    end: float
    own: float
    thread: int
    encoded: float = 0.0


class _Inner(threading.local):
    """Of each thread: how long the spans inside the open one took so far."""

    seconds = 0.0


class Recording:
    """What a recorded backend did.

    Attributes:
        spans: so far, in the order in which they ended; clear it at will.
        synchronise: called before a step is said to have ended, as on a GPU steps return before they are
            done; None for nothing.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        self.spans: list[Span] = []
        self.synchronise: Callable[[], None] | None = None
        self._encoded: weakref.WeakKeyDictionary[Features, float] = weakref.WeakKeyDictionary()
        self._inner = _Inner()

    def span(
        self, name: str, call: Callable[..., Any], *arguments: Any, features: Features | None = None
    ) -> Any:
        """Make a call and note it; nothing where it fails."""
        # No context manager: what it takes counts as the backend's own checks.
        outer, self._inner.seconds = self._inner.seconds, 0.0
        start = time.perf_counter()
        try:
            result = call(*arguments)
            if self.synchronise is not None:
                self.synchronise()
        finally:
            end = time.perf_counter()
            own, self._inner.seconds = end - start - self._inner.seconds, outer + end - start
        encoded = 0.0 if features is None else self._encoded.get(features, 0.0)
        self.spans.append(Span(name, start, end, own, threading.get_ident(), encoded))
        return result

    def encoded(self, features: Features) -> None:
        """Note when features came to be: now."""
        self._encoded[features] = time.perf_counter()


class _Recorded(Backend):
    """Mixed into the class of a backend."""

    _recording: Recording

    def encode(self, image: np.ndarray, local: bool = False) -> Features:
        features: Features = self._recording.span(_ENCODE, super().encode, image, local)
        self._recording.encoded(features)
        return features

    def decode(
        self, features: Features, clicks: np.ndarray, previous_mask: np.ndarray | None = None
    ) -> np.ndarray:
        arguments = (features, clicks, previous_mask)
        result: np.ndarray = self._recording.span(_DECODE, super().decode, *arguments, features=features)
        return result

    def decode_on_device(self, features: Features, clicks: np.ndarray, previous_mask: Any = None) -> Any:
        arguments = (features, clicks, previous_mask)
        return self._recording.span(_DECODE, super().decode_on_device, *arguments, features=features)

    def _guard(self, call: Any, *arguments: Any) -> Any:
        name = getattr(call, "__name__", "")
        if name == "_run":
            name = arguments[0]
        return self._recording.span(_STEPS.get(name, name), super()._guard, call, *arguments)


def record(backend: Backend) -> Recording:
    """Have an open backend note what it does from now on."""
    recording, kind = Recording(), type(backend)
    recorded = type(f"Recorded{kind.__name__}", (_Recorded, kind), {"_recording": recording})
    backend.__class__ = recorded
    return recording


@dataclass(frozen=True)
class TimedClick:
    """One click.

    Attributes:
        ms: from the call to the mask.
        encoded: crops that this call encoded itself.
        passes: of the network.
        waited: whether a crop that it needed was not encoded yet when it began.
        stages: milliseconds by stage; together ``ms``.
    """

    ms: float
    encoded: int
    passes: int
    waited: bool
    stages: dict[str, float]


def timed_click(recording: Recording, click: Callable[[], Any]) -> TimedClick:
    """Make a click and say where its time went. Other threads may use the backend meanwhile."""
    recording.spans.clear()
    start = time.perf_counter()
    click()
    end = time.perf_counter()
    mine = [s for s in list(recording.spans) if s.thread == threading.get_ident() and s.start >= start]
    return TimedClick(
        ms=1e3 * (end - start),
        encoded=sum(span.name == _ENCODE for span in mine),
        passes=sum(span.name == _DECODE for span in mine),
        waited=any(span.encoded > start for span in mine),
        stages=_stages(mine, start, end),
    )


def _stages(spans: list[Span], start: float, end: float) -> dict[str, float]:
    seconds: defaultdict[str, float] = defaultdict(float)
    for span in spans:
        seconds[span.name if span.name in STAGES else CHECKS] += span.own
    calls = [span for span in spans if span.name in (_ENCODE, _DECODE)]
    last = max((span.end for span in calls), default=start)
    seconds[PREPARE] = last - start - sum(span.end - span.start for span in calls)
    seconds[PASTE] = end - last
    return {name: 1e3 * seconds[name] for name in STAGES if name in seconds}
