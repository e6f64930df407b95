"""Dynamic batching: clicks of several sessions run as one batch on one engine.

For graphics cards, which one small crop does not fill; on a CPU it gains nothing (docs/threads.md). Nothing
above the backend knows of it.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .backends.base import Backend
from .backends.cuda_memory import DeviceArray
from .backends.diffusion import Choice
from .backends.features import Features
from .backends.shapes import checked_input
from .batching_queue import BatchingQueue, batch_sizes
from .errors import InvalidInputError
from .manifest_graphs import TENSORS

_MOST = 1024

_Mask = np.ndarray | DeviceArray | None
_Decode = Callable[[Features, np.ndarray, _Mask], Any]
_Prompt = tuple[_Decode, Features, np.ndarray, _Mask]


def batched(backend: Backend, max_batch: int, max_delay_ms: float) -> Backend:
    """A backend that joins the requests of several threads.

    A request waits only while another of its kind is running, and then at most `max_delay_ms` until it is
    started, alone or with those that came meanwhile. About the time of one batch is a good value; with 0
    requests join only where they come at the same instant.

    Args:
        backend: what runs the batches; the result takes it over, and closes it.
        max_batch: most requests of a batch, 1 to 1024; less where the backend takes fewer (`largest_batch`).
            Only batches of 1, 2, 4, 8 ... and this many are run.
        max_delay_ms: milliseconds, at least 0.

    Raises:
        InvalidInputError: one of the numbers is out of range.
    """
    check_batching(max_batch, max_delay_ms)
    most = min(int(max_batch), backend.largest_batch or _MOST)
    return BatchingBackend(backend, most, float(max_delay_ms)) if most > 1 else backend


def check_batching(max_batch: int, max_delay_ms: float) -> None:
    """Raises InvalidInputError unless both are in their range, see `batched`."""
    whole = isinstance(max_batch, numbers.Integral) and not isinstance(max_batch, bool)
    if not whole or not 1 <= max_batch <= _MOST:
        raise InvalidInputError(f"max_batch must be a whole number from 1 to {_MOST}, but got {max_batch!r}")
    number = isinstance(max_delay_ms, numbers.Real) and not isinstance(max_delay_ms, bool)
    if not number or not 0 <= float(max_delay_ms) < math.inf:
        raise InvalidInputError(f"max_delay_ms must be a number of at least 0, but got {max_delay_ms!r}")


class BatchingBackend(Backend):
    """Made by `batched`. Its results are those of the backend inside, but for rounding.

    Encodes and decodes are batched apart, so that no click waits for a picture to be encoded. A request is
    checked before it joins others. Where a batch fails, each of its requests is run alone, so that only the
    one at fault meets the error.

    Attributes:
        inner: what runs the batches.
        encodes: The queue of ``encode``; its ``batches`` counts them by size. Unused where pixels enter the
            network together with the clicks.
        decodes: The queue of ``decode``.
    """

    def __init__(self, inner: Backend, max_batch: int, max_delay_ms: float) -> None:
        """See `batched`."""
        choice = Choice(inner.pixel_diffusion, inner.pixel_diffusion_reason, inner._kernel)
        super().__init__(inner.name, inner.device, inner.reason, inner.manifest, choice, inner._threads)
        self.inner, self.largest_batch = inner, inner.largest_batch
        self.takes_device_arrays, self.artefact = inner.takes_device_arrays, inner.artefact
        self._sizes, patience = batch_sizes(max_batch), max_delay_ms / 1000
        self.encodes = BatchingQueue(inner.encode, self._encode_together, max_batch, patience)
        self.decodes = BatchingQueue(self._decode_alone, self._decode_together, max_batch, patience)

    def encode(self, image: np.ndarray | DeviceArray, local: bool = False) -> Features:
        """See :meth:`Backend.encode`."""
        dims: dict[str, int] = {}
        image = checked_input(TENSORS["image"], image, dims, self.manifest.input, self.takes_device_arrays)
        if not self.manifest.encodes_once or local or dims["B"] != 1:
            return self.inner.encode(image, local)
        return self.encodes.run((dims["S"], type(image)), image)

    def decode(self, features: Features, clicks: np.ndarray, previous_mask: _Mask = None) -> np.ndarray:
        """See :meth:`Backend.decode`."""
        batch, key = self._key(features, clicks, previous_mask)
        if batch != 1:
            return self.inner.decode(features, clicks, previous_mask)
        prompt = (self.inner.decode, features, clicks, previous_mask)
        return self.decodes.run(("host", *key), prompt)  # type: ignore[no-any-return]

    def decode_on_device(
        self, features: Features, clicks: np.ndarray, previous_mask: _Mask = None
    ) -> list[DeviceArray]:
        """See :meth:`Backend.decode_on_device`."""
        batch, key = self._key(features, clicks, previous_mask)
        if batch != 1:
            return self.inner.decode_on_device(features, clicks, previous_mask)
        prompt = (self.inner.decode_on_device, features, clicks, previous_mask)
        return [self.decodes.run(("device", *key), prompt)]

    def join(self, parts: Sequence[Features]) -> Features:
        """See :meth:`Backend.join`."""
        return self.inner.join(parts)

    def split(self, features: Features) -> list[Features]:
        """See :meth:`Backend.split`."""
        return self.inner.split(features)

    def warmup(self, batches: Sequence[int] = (1,)) -> None:
        """See :meth:`Backend.warmup`; the sizes that are ever run are warmed up in any case."""
        self.inner.warmup(sorted({*batches, *self._sizes}))

    def close(self) -> None:
        """Close the backend inside. Waiting requests raise BackendError, and nothing hangs."""
        self.inner.close()
        super().close()

    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        return self.inner._run(graph, feeds)

    def _encode_together(self, images: Sequence[Any]) -> list[Features]:
        if isinstance(images[0], np.ndarray):
            return self.inner.split(self.inner.encode(np.concatenate(images)))
        parts = [Features({"image": image}, "encoder") for image in images]
        return self.inner.split(self.inner.encode(self.inner.join(parts).tensors["image"]))

    def _key(self, features: Features, clicks: np.ndarray, previous: _Mask) -> tuple[int, tuple[Any, ...]]:
        """How many images a request has, and what it has in common with those that it may join."""
        _, dims = self._feeds(features, clicks, previous)
        return dims["B"], (features.graph, dims["S"], isinstance(previous, DeviceArray))

    def _decode_alone(self, prompt: _Prompt) -> Any:
        decode, features, clicks, previous = prompt
        return _one_by_one(decode(features, clicks, previous))[0]

    def _decode_together(self, prompts: Sequence[_Prompt]) -> Sequence[Any]:
        decodes, parts, clicks, previous = zip(*prompts, strict=True)
        return _one_by_one(decodes[0](self.inner.join(parts), _padded(clicks), self._stacked(previous)))

    def _stacked(self, masks: Sequence[Any]) -> _Mask:
        if not isinstance(masks[0], DeviceArray):
            return _filled(masks)
        together = self.inner.join([Features({"previous_mask": mask}, "decoder") for mask in masks])
        return together.tensors["previous_mask"]  # type: ignore[no-any-return]


def _one_by_one(logits: np.ndarray | list[DeviceArray]) -> Sequence[Any]:
    """Of each image, (1, 1, S, S)."""
    return logits if isinstance(logits, list) else np.split(logits, len(logits))


def _padded(clicks: Sequence[np.ndarray]) -> np.ndarray:
    """Clicks (1, M, 3) of several M as (B, M', 3), with absent rows up to the largest M'."""
    out = np.full((len(clicks), max(rows.shape[1] for rows in clicks), 3), -1, np.float32)
    for slot, rows in zip(out, clicks, strict=True):
        slot[: rows.shape[1]] = rows[0]
    return out


def _filled(previous: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Previous masks (1, 1, S, S) as (B, 1, S, S), where None is all zero; None where all are."""
    given = next((mask for mask in previous if mask is not None), None)
    if given is None:
        return None
    return np.concatenate([np.zeros_like(given) if mask is None else mask for mask in previous])
