"""Segmenters that encode ahead when a test lets them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from sessions import RecordingBackend, make_segmenter

from clickmask import Segmenter

CROP = {"kind": "fbrs", "start_click": 2, "min_size": 40}


class GatedBackend(RecordingBackend):
    """Notes which thread encodes; encodes of the background thread wait while the gate is shut."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gate, self.started = threading.Event(), threading.Event()
        self.gate.set()
        self.threads: list[str] = []

    @property
    def ahead(self) -> int:
        """Encodes begun in the background."""
        return sum("prefetch" in name for name in self.threads)

    def encode(self, image: np.ndarray, local: bool = False) -> Any:
        self.threads.append(threading.current_thread().name)
        if "prefetch" in self.threads[-1]:
            self.started.set()
            assert self.gate.wait(timeout=10)
        return super().encode(image, local)


def gated(**overrides: Any) -> tuple[Segmenter, GatedBackend]:
    """A segmenter that encodes ahead, and its backend; overrides go to `make_segmenter`."""
    plain = make_segmenter(**{"crop": CROP, **overrides})
    backend = GatedBackend(plain.bundle.manifest, echo=True)
    return Segmenter(plain.bundle, backend, prefetch=True), backend
