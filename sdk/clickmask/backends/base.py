"""The one protocol every runtime implements: ``encode`` once per crop, ``decode`` once per click.

The public methods check names, shapes and dtypes against the manifest; a subclass only runs a graph.
Inputs are wrong: InvalidInputError. Anything the runtime does wrong: BackendError, its own exception as the
cause.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from ..errors import BackendError, ClickmaskError, InvalidInputError
from ..manifest import Manifest
from ..manifest_graphs import TENSORS
from .features import Features
from .shapes import checked_input, mismatch

__all__ = ["Backend", "Features"]


class Backend(ABC):
    """A loaded pipeline. Safe to call from many threads at once.

    Attributes:
        name: The runtime, such as "onnxruntime".
        device: Where it runs: "cpu", "cuda" or "cuda:N".
        reason: Why this runtime and device were chosen.
        manifest: The bundle's manifest, which every array is checked against.
    """

    def __init__(self, name: str, device: str, reason: str, manifest: Manifest) -> None:
        """Set the attributes; see the class."""
        self.name, self.device, self.reason, self.manifest = name, device, reason, manifest
        self._closed = False

    def encode(self, image: np.ndarray) -> Features:
        """The dear step. Takes image (B, 3, S, S) float32 RGB in [0, 1]; it must not be changed afterwards.

        Raises:
            InvalidInputError: Wrong shape or dtype, or S is not a size of the manifest.
            BackendError: The runtime failed.
        """
        dims: dict[str, int] = {}
        image = checked_input(TENSORS["image"], image, dims, self.manifest.input)
        tensors = {"image": self._guard(self._upload, image)}
        if self.manifest.encodes_once:
            tensors |= self._checked_run("encoder", dict(tensors), dims)
        return Features(tensors)

    def decode(
        self, features: Features, clicks: np.ndarray, previous_mask: np.ndarray | None = None
    ) -> np.ndarray:
        """The step of each click; changes none of its inputs.

        Args:
            features: From this backend's ``encode``, for B images of side S.
            clicks: (B, M, 3) float32 rows (x, y, label), network pixels; 1 positive, 0 negative, -1 padding.
            previous_mask: (B, 1, S, S) float32 probabilities in [0, 1]; None means all zero.

        Returns:
            Logits (B, 1, S, S) float32, all finite.

        Raises:
            InvalidInputError: An array of the wrong shape or dtype, features of another backend, or a
                previous mask for a network that takes none.
            BackendError: The runtime failed, or gave logits that are not finite.
        """
        if previous_mask is not None and not self.manifest.input.previous_mask:
            raise InvalidInputError("previous_mask: expected None, as this network takes none, got an array.")
        batch, _, size, _ = map(int, features.tensors["image"].shape)
        blank = np.zeros((batch, 1, size, size), np.float32) if previous_mask is None else previous_mask
        prompt, dims, feeds = {"clicks": clicks, "previous_mask": blank}, {"B": batch, "S": size}, {}
        graph = "decoder" if self.manifest.encodes_once else "network"
        for spec in self.manifest.graphs[graph].inputs:
            if spec.name in prompt:
                feeds[spec.name] = checked_input(spec, prompt[spec.name], dims, self.manifest.input)
            elif spec.name in features.tensors:
                feeds[spec.name] = features.tensors[spec.name]
            else:
                raise InvalidInputError(
                    f"features: expected {spec.name!r}, got {sorted(features.tensors)} only."
                )
        logits: np.ndarray = self._guard(self._download, self._checked_run(graph, feeds, dims)["logits"])
        if not np.isfinite(logits).all():
            raise BackendError(f"{self.name} on {self.device}: expected finite logits, got NaN or infinity.")
        return logits

    def close(self) -> None:
        """Give up the runtime's memory; later calls raise BackendError. May be called twice."""
        self._closed = True

    @abstractmethod
    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        """Run a graph: host arrays and own device arrays in by name, device arrays out by name."""

    def _upload(self, array: np.ndarray) -> Any:
        return array

    def _download(self, array: Any) -> Any:
        return array

    def _checked_run(self, graph: str, feeds: dict[str, Any], dims: dict[str, int]) -> dict[str, Any]:
        outputs: dict[str, Any] = self._guard(self._run, graph, feeds)
        for spec in self.manifest.graphs[graph].outputs:
            problem = mismatch(spec, outputs[spec.name], dims) if spec.name in outputs else f"no {spec.name}"
            if problem:
                raise BackendError(f"{self.name} does not do what the manifest says of {graph!r}: {problem}")
        return outputs

    def _guard(self, call: Any, *arguments: Any) -> Any:
        if self._closed:
            raise BackendError(f"{self.name}: expected an open backend, got a call after close().")
        try:
            return call(*arguments)
        except ClickmaskError:
            raise
        except Exception as exc:
            raise BackendError(f"{self.name} on {self.device} failed: {exc}") from exc
