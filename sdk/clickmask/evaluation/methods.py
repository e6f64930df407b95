"""What can be evaluated: a bundle, or one of the classical methods in anchors.py.

A method is a frozen value that pickles; a process, here or elsewhere, opens it once and begins a session per
object.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clickmask import Segmenter
from clickmask.bundle import read_manifest_file


class Clickable(Protocol):
    """One object being annotated, such as a `Session`."""

    def click(self, x: float, y: float, positive: bool = True) -> NDArray[np.bool_]:
        """The mask, (H, W) bool, after one more click."""
        ...


class Annotator(Protocol):
    """An open method; a `Segmenter` is one."""

    def session(self, image: NDArray[np.uint8]) -> Clickable:
        """Begins an object of an (H, W, 3) uint8 RGB image."""
        ...


class Method(Protocol):
    """Something that answers clicks with masks, not yet open."""

    @property
    def name(self) -> str:
        """What the report calls it."""
        ...

    @property
    def device(self) -> str:
        """Where it runs: "cpu", "cuda" or "cuda:N"."""
        ...

    @property
    def threads(self) -> int | None:
        """How many CPU threads it takes; None leaves it to the runtime."""
        ...

    def open(self) -> Annotator:
        """Loads it."""
        ...

    def settings(self) -> dict[str, Any]:
        """What decides its masks, for the report: plain JSON."""
        ...


@dataclass(frozen=True)
class BundleMethod:
    """A bundle on a backend.

    Attributes:
        name: the bundle's.
        path: its folder.
        backend: as `Segmenter.load` takes it; `device` and `threads` likewise.
        crop_policy: as `Segmenter.session` takes it; None for the bundle's own. `size` likewise.
        trust_host_code: as `Segmenter.load` takes it.
    """

    name: str
    path: Path
    backend: str
    device: str
    threads: int | None = None
    crop_policy: str | None = None
    size: int | None = None
    trust_host_code: bool = False

    def open(self) -> Annotator:
        """Loads the bundle; nothing is encoded ahead, so that a click's seconds are all that it costs."""
        segmenter = Segmenter.load(
            self.path,
            self.backend,
            self.device,
            self.threads,
            prefetch=False,
            trust_host_code=self.trust_host_code,
        )
        return _Sessions(segmenter, self.crop_policy, self.size)

    def settings(self) -> dict[str, Any]:
        """See `Method`; reads the manifest, which lists the hash of every file."""
        manifest = read_manifest_file(self.path)
        return {
            "bundle_sha256": hashlib.sha256(manifest.to_json().encode()).hexdigest(),
            "checkpoint_sha256": manifest.source.sha256,
            "backend": self.backend,
            "device": self.device,
            "crop_policy": self.crop_policy,
            "size": self.size,
        }


@dataclass(frozen=True)
class _Sessions:
    """A segmenter with the options of its sessions."""

    segmenter: Segmenter
    crop_policy: str | None
    size: int | None

    def session(self, image: NDArray[np.uint8]) -> Clickable:
        return self.segmenter.session(image, self.crop_policy, self.size)
