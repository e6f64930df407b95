"""Encoded crops: what the encoder made of the views of images, kept while memory allows.

The crops of an image belong to its session and that session's forks: when the last of them goes, so do they.
The byte budget is one for all sessions of a Segmenter.
"""

from __future__ import annotations

import itertools
import math
import threading
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InvalidInputError
from .view import View

if TYPE_CHECKING:
    from .backends.base import Backend, Features
    from .pixels import Pixels

CROPS_BYTES = 120 << 20
"""Default budget. A crop of the default bundle with the fused kernel takes 106 bytes a network pixel (image
and features 38, affinities 68): 15 MiB at 384, 27 at 512 and 37 at 608, of which three fit: the whole image,
an object's crop and a close look in it."""

_Key = tuple[View, bool]


@dataclass(eq=False)
class _Entry:
    """A crop being encoded, or done. features stays None where that failed; used grows with each use."""

    used: int = 0
    features: Features | None = None
    bytes: int = 0
    done: threading.Event = field(default_factory=threading.Event)


class EncodedCrops:
    """The encoded crops of all images of a Segmenter; the least recently used go first. Thread-safe.

    Attributes:
        budget: Most bytes kept; the newest crop is kept even if it alone has more.
    """

    def __init__(self, budget: int = CROPS_BYTES) -> None:
        """See the class.

        Raises:
            InvalidInputError: the budget is no whole number of at least 0.
        """
        if isinstance(budget, bool) or not isinstance(budget, (int, np.integer)) or budget < 0:
            raise InvalidInputError(f"crops_bytes must be a whole number of at least 0, but got {budget!r}")
        self.budget = int(budget)
        self._lock = threading.Lock()
        self._clock = itertools.count(1)
        self._pixel_bytes = 0.0  # that a network pixel was seen to take, at most
        self._images: weakref.WeakSet[ImageCrops] = weakref.WeakSet()

    @property
    def nbytes(self) -> int:
        """Bytes kept now."""
        with self._lock:
            return sum(entry.bytes for _, _, entry in self._kept())

    def image(self, backend: Backend, pixels: Pixels) -> ImageCrops:
        """Where the crops of one more image are kept, none yet: what encodes them, and the image."""
        crops = ImageCrops(self, backend, pixels)
        with self._lock:
            self._images.add(crops)
        return crops

    def clear(self) -> None:
        """Forget every crop; one being encoded is kept all the same."""
        with self._lock:
            for key, image, _ in self._kept():
                del image._entries[key]

    def _kept(self) -> list[tuple[_Key, ImageCrops, _Entry]]:
        return [
            (key, image, entry)
            for image in self._images
            for key, entry in image._entries.items()
            if entry.features is not None
        ]

    def _expect(self, view: View) -> None:
        """Drop what a view will have no room beside, before it takes its memory; with the lock held."""
        self._drop(self._kept(), self.budget - round(self._pixel_bytes * view.size**2))

    def _keep(self, view: View, entry: _Entry, features: Features, size: int) -> None:
        """A view is encoded, and the newest, whatever was used meanwhile; called with the lock held."""
        entry.features, entry.bytes, entry.used = features, size, next(self._clock)
        self._pixel_bytes = max(self._pixel_bytes, size / view.size**2)
        self._drop([one for one in self._kept() if one[2] is not entry], self.budget - size)

    @staticmethod
    def _drop(kept: list[tuple[_Key, ImageCrops, _Entry]], budget: int) -> None:
        """Drop the least recently used until the others fit."""
        total = sum(entry.bytes for _, _, entry in kept)
        for key, image, entry in sorted(kept, key=lambda one: one[2].used):
            if total <= budget:
                break
            total -= entry.bytes
            del image._entries[key]


class ImageCrops:
    """The encoded crops of one image; `EncodedCrops.image` makes one. Thread-safe."""

    def __init__(self, shared: EncodedCrops, backend: Backend, pixels: Pixels) -> None:
        """Nothing is encoded yet; shared: where the budget is."""
        self._shared, self._backend, self._pixels = shared, backend, pixels
        self._entries: dict[_Key, _Entry] = {}

    def features(self, view: View, local: bool = False) -> Features:
        """A view, encoded for the network or for the local one.

        It is encoded if it is not here; where another thread is at it, this one waits for the result.

        Raises:
            BackendError: the runtime failed. Nothing is kept of that, and others try for themselves.
        """
        while True:
            with self._shared._lock:
                entry = self._entries.get((view, local))
                if mine := entry is None:
                    entry = self._entries[view, local] = _Entry()
                entry.used = next(self._shared._clock)
            if mine:
                return self._encode(view, local, entry)
            entry.done.wait()
            if entry.features is not None:
                return entry.features

    def touch(self, view: View) -> None:
        """Use a view's features, where they are here, so that others go first."""
        with self._shared._lock:
            if (entry := self._entries.get((view, False))) is not None:
                entry.used = next(self._shared._clock)

    def _encode(self, view: View, local: bool, entry: _Entry) -> Features:
        try:
            with self._shared._lock:
                self._shared._expect(view)
            features = self._backend.encode(self._pixels.crop(view), local=local)
            with self._shared._lock:
                self._shared._keep(view, entry, features, nbytes(features))
            return features
        finally:
            if entry.features is None:
                with self._shared._lock:
                    del self._entries[view, local]
            entry.done.set()


def nbytes(features: Features) -> int:
    """Memory that some features hold, native affinities included."""
    arrays = sum(_array_bytes(tensor) for tensor in features.tensors.values())
    return arrays + sum(affinity.bytes for affinity in features.affinities)


def _array_bytes(array: Any) -> int:
    """Of a host or device array; not every runtime's has `nbytes`."""
    if hasattr(array, "nbytes"):
        return int(array.nbytes)
    return int(math.prod(array.shape)) * np.dtype(str(array.dtype).removeprefix("torch.")).itemsize
