"""The one protocol every runtime implements: ``encode`` once per crop, ``decode`` once per click.

The public methods check names, shapes and dtypes against the manifest; a subclass only runs a graph.
Inputs are wrong: InvalidInputError. Anything the runtime does wrong: BackendError, its own exception as the
cause.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from ..encode import click_slots, slot_counts
from ..errors import BackendError, ClickmaskError, InvalidInputError
from ..manifest import Artefact, Manifest
from ..manifest_graphs import TENSORS
from ..native_diffusion import Affinity
from . import diffusion
from .click_rows import by_label, row_counts
from .cuda_memory import DeviceArray
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
        artefact: What of the bundle runs; None where it is no bundle's.
        pixel_diffusion: What does it: "native" (the fused kernel), "graph" (the bundle's) or "none".
        pixel_diffusion_reason: Why that; of the kernel, its instruction set, or "CUDA".
        largest_batch: Most images B of a call; None for no limit.
        takes_device_arrays: Whether images and previous masks that are on the device already are taken there,
            and ``decode_on_device`` leaves logits there.
    """

    artefact: Artefact | None = None
    largest_batch: int | None = None
    takes_device_arrays = False

    def __init__(
        self,
        name: str,
        device: str,
        reason: str,
        manifest: Manifest,
        choice: diffusion.Choice | None = None,
        threads: int | None = None,
    ) -> None:
        """Set the attributes; see the class.

        Args:
            name: See the class, as for `device`, `reason` and `manifest`.
            device: See there.
            reason: See there.
            manifest: See there.
            choice: Of Pixel Diffusion; None for the graph, in a bundle that has one.
            threads: CPU threads of the fused kernel.
        """
        self.name, self.device, self.reason, self.manifest = name, device, reason, manifest
        choice = choice or diffusion.choose(manifest, "graph", device)
        self.pixel_diffusion, self.pixel_diffusion_reason = choice.place, choice.reason
        self._kernel, self._threads = choice.kernel, threads
        self._closed = False

    def encode(self, image: np.ndarray | DeviceArray, local: bool = False) -> Features:
        """The dear step.

        Args:
            image: (B, 3, S, S) float32 RGB in [0, 1]; it must not be changed afterwards. A ``DeviceArray``
                where ``takes_device_arrays``; it is not copied, and complete.
            local: Whether it is for the second network, of a bundle that has one (``has_local_network``).

        Raises:
            InvalidInputError: Wrong shape or dtype, S is not a size of the manifest, more images than
                ``largest_batch``, or there is no second network.
            BackendError: The runtime failed.
        """
        if local and not self.manifest.has_local_network:
            raise InvalidInputError(
                f"local: expected False, as this bundle has only {sorted(self.manifest.graphs)}, got True."
            )
        dims: dict[str, int] = {}
        image = checked_input(TENSORS["image"], image, dims, self.manifest.input, self.takes_device_arrays)
        self._check_batch(dims["B"])
        with self._running():
            tensors = {"image": self._guard(self._upload, image)}
            weights = self._guard(self._weigh, image)
            if self.manifest.encodes_once:
                features = self._checked_run("encoder", dict(tensors), dims)
                return Features(tensors | self._guard(self._keep, features), "decoder", weights)
            return Features(tensors, "local_network" if local else "network", weights)

    def decode(
        self, features: Features, clicks: np.ndarray, previous_mask: np.ndarray | DeviceArray | None = None
    ) -> np.ndarray:
        """The step of each click; changes none of its inputs.

        Args:
            features: From this backend's ``encode``, for B images of side S.
            clicks: (B, M, 3) float32 rows (x, y, label), network pixels; 1 positive, 0 negative, -1 padding.
            previous_mask: (B, 1, S, S) float32 probabilities in [0, 1]; None means all zero. A
                ``DeviceArray``, complete, where ``takes_device_arrays``.

        Returns:
            Logits (B, 1, S, S) float32, all finite; nothing is written there by later calls.

        Raises:
            InvalidInputError: An array of the wrong shape or dtype, features of another backend, more images
                than ``largest_batch``, or a previous mask for a network that takes none.
            BackendError: The runtime failed, or gave logits that are not finite.
        """
        feeds, dims = self._feeds(features, clicks, previous_mask)
        clicks = np.ascontiguousarray(clicks)
        with self._running():
            logits, looks = self._launch(features, clicks, feeds, dims)
            finite, result = self._all(looks), self._guard(self._download, logits)
        # Not in there: what an error leaves in doubt is given up, and what warmup captured with it.
        if self._kernel is not None:  # it looks for NaN as it reads the logits
            return self._guard(diffusion.diffuse, features.affinities, result, clicks, self._threads)  # type: ignore[no-any-return]
        self._check_finite(finite and bool(np.isfinite(result).all()))
        return result  # type: ignore[no-any-return]

    def decode_on_device(
        self, features: Features, clicks: np.ndarray, previous_mask: np.ndarray | DeviceArray | None = None
    ) -> list[DeviceArray]:
        """As ``decode``, but what comes to the host is only whether all is finite.

        Returns:
            The logits of each image, (1, 1, S, S) float32, complete and in memory of their own.

        Raises:
            InvalidInputError: As for ``decode``, or the backend has no device: not ``takes_device_arrays``.
            BackendError: As for ``decode``.
        """
        if not self.takes_device_arrays:
            raise InvalidInputError(
                f"expected a backend whose arrays are on a GPU, got {self.name}; use decode."
            )
        feeds, dims = self._feeds(features, clicks, previous_mask)
        clicks = np.ascontiguousarray(clicks)
        with self._running():
            logits, looks = self._launch(features, clicks, feeds, dims)
            looks.append(self._guard(self._finite_later, "result", logits))
            result: list[DeviceArray] = self._guard(self._leave, logits)
            finite = self._all(looks)
        self._check_finite(finite)
        return result

    def join(self, parts: Sequence[Features]) -> Features:
        """Features of several ``encode`` calls, of one graph and side, as if of one; tensors are copied."""
        with self._running():
            tensors = {
                name: self._guard(self._stack, [part.tensors[name] for part in parts])
                for name in parts[0].tensors
            }
        return Features(tensors, parts[0].graph, tuple(one for part in parts for one in part.affinities))

    def split(self, features: Features) -> list[Features]:
        """The features of each image of a batch, in memory of their own, so that one can go before others."""
        with self._running():
            items = {name: self._guard(self._items, array) for name, array in features.tensors.items()}
        count = int(features.tensors["image"].shape[0])
        weights: list[tuple[Affinity, ...]] = [(one,) for one in features.affinities] or [()] * count
        return [
            Features({name: items[name][number] for name in items}, features.graph, weights[number])
            for number in range(count)
        ]

    def warmup(self, batches: Sequence[int] = (1,)) -> None:
        """Run every graph once with each shape that a click can give it, the largest first.

        The shapes are the input sizes with the numbers of click rows (``encode.slot_counts`` and
        ``click_rows.by_label``). Afterwards no click pays for a runtime's first use; on CUDA a backend also
        captures CUDA graphs, and only here.

        Args:
            batches: Numbers of images B that will be run at once.

        Raises:
            BackendError: The runtime failed.
        """
        spec = self.manifest.input
        networks = (False, True) if self.manifest.has_local_network else (False,)
        counts = set(slot_counts(spec.max_clicks))
        if any(
            tensor.name == "clicks_by_label" for g in self.manifest.graphs.values() for tensor in g.inputs
        ):
            counts |= row_counts(spec.max_clicks)  # a label has fewer rows than all have slots
        for batch, size, local in itertools.product(sorted(batches)[::-1], spec.sizes[::-1], networks):
            features = self.encode(np.zeros((batch, 3, size, size), np.float32), local)
            for count in sorted(counts, reverse=True):
                clicks = np.full((batch, click_slots(count, spec.max_clicks), 3), -1, np.float32)
                clicks[:, :count] = 0, 0, 1
                self.decode(features, clicks)

    def close(self) -> None:
        """Give up the runtime's memory; later calls raise BackendError. May be called twice."""
        self._closed = True

    @abstractmethod
    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        """Run a graph: host arrays and own device arrays in by name, device arrays out by name."""

    def _launch(
        self, features: Features, clicks: np.ndarray, feeds: dict[str, Any], dims: dict[str, int]
    ) -> tuple[Any, list[Callable[[], bool]]]:
        """The result of all graphs, on the device, and looks for NaN that are under way.

        Pixel Diffusion can turn NaN and infinity into certainty: they show before it. Nothing is waited for
        until both graphs are under way; a device's fused kernel is run as the graph whose place it takes.
        """
        logits = self._checked_run(features.graph, feeds, dims)["logits"]
        if self.pixel_diffusion == "none" or self._kernel is not None:  # which runs on the host, afterwards
            return logits, []
        look = self._guard(self._finite_later, "logits", logits)
        last = {"image": features.tensors["image"], "clicks": clicks, "logits": logits}
        return self._checked_run("pixel_diffusion", last, dims)["diffused_logits"], [look]

    def _all(self, looks: Sequence[Callable[[], bool]]) -> bool:
        return all(self._guard(look) for look in looks)

    def _check_finite(self, finite: bool) -> None:
        if not finite:
            raise BackendError(f"{self.name} on {self.device}: expected finite logits, got NaN or infinity.")

    def _check_batch(self, count: int) -> None:
        # Here, where a call has nothing yet: what fails inside gives up what it holds.
        if self.largest_batch is not None and count > self.largest_batch:
            raise InvalidInputError(
                f"expected at most {self.largest_batch} images at once, as the bundle was built for, got "
                f"{count}; give them in parts, or build it with a larger --max-batch."
            )

    def _weigh(self, image: np.ndarray | DeviceArray) -> tuple[Affinity, ...]:
        if self._kernel is None or isinstance(image, DeviceArray):
            return ()
        return diffusion.affinities(image, self._kernel, self._threads)

    def _call(self) -> AbstractContextManager[Any]:
        """Around each ``encode`` and ``decode``: where a runtime takes and returns what a call needs."""
        return nullcontext()

    def _upload(self, array: Any) -> Any:
        return array

    def _keep(self, features: dict[str, Any]) -> dict[str, Any]:
        """Features in memory that outlives the call."""
        return features

    def _download(self, array: Any) -> Any:
        return array

    def _stack(self, arrays: Sequence[Any]) -> Any:
        """A new device array of several, one after the other along their first axis."""
        return np.concatenate(arrays)

    def _items(self, array: Any) -> list[Any]:
        """Copies of a device array's slices along its first axis, which stays, of length 1."""
        return [array[number : number + 1].copy() for number in range(len(array))]

    def _leave(self, logits: Any) -> list[DeviceArray]:
        """Logits of each image for callers, where ``takes_device_arrays``; of memory, see ``_items``."""
        return self._items(logits)

    def _finite_later(self, name: str, array: Any) -> Callable[[], bool]:  # noqa: ARG002 - of lanes
        """Begin to look for NaN and infinity; what is returned waits and tells whether there are none.

        Looks of different names go on side by side.
        """
        return lambda: bool(np.isfinite(self._download(array)).all())

    def _feeds(
        self, features: Features, clicks: np.ndarray, previous_mask: np.ndarray | DeviceArray | None
    ) -> tuple[dict[str, Any], dict[str, int]]:
        """What the graph of some features takes, by name, and the extents B, S and M."""
        if previous_mask is not None and not self.manifest.input.previous_mask:
            raise InvalidInputError("previous_mask: expected None, as this network takes none, got an array.")
        if features.graph not in self.manifest.graphs:
            graphs = sorted(self.manifest.graphs)
            raise InvalidInputError(f"features: expected those for one of {graphs}, got {features.graph!r}.")
        batch, _, size, _ = map(int, features.tensors["image"].shape)
        if self._kernel is not None and len(features.affinities) != batch:
            raise InvalidInputError(
                f"features: expected affinities of {batch} image(s), as from this backend's encode, got "
                f"{len(features.affinities)}."
            )
        dims: dict[str, int] = {"B": batch, "S": size}
        feeds: dict[str, Any] = {}
        self._check_batch(batch)
        clicks = checked_input(TENSORS["clicks"], clicks, dims, self.manifest.input)
        for spec in self.manifest.graphs[features.graph].inputs:
            if spec.name == "clicks_by_label":
                feeds[spec.name] = by_label(clicks)
            elif spec.name == "clicks":
                feeds[spec.name] = clicks
            elif spec.name == "previous_mask":
                if previous_mask is None:
                    previous_mask = np.zeros((batch, 1, size, size), np.float32)
                limits, taken = self.manifest.input, self.takes_device_arrays
                feeds[spec.name] = checked_input(spec, previous_mask, dims, limits, taken)
            elif spec.name in features.tensors:
                feeds[spec.name] = features.tensors[spec.name]
            else:
                raise InvalidInputError(
                    f"features: expected {spec.name!r}, got {sorted(features.tensors)} only."
                )
        return feeds, dims

    def _checked_run(self, graph: str, feeds: dict[str, Any], dims: dict[str, int]) -> dict[str, Any]:
        outputs: dict[str, Any] = self._guard(self._run, graph, feeds)
        for spec in self.manifest.graphs[graph].outputs:
            problem = mismatch(spec, outputs[spec.name], dims) if spec.name in outputs else f"no {spec.name}"
            if problem:
                raise BackendError(f"{self.name} does not do what the manifest says of {graph!r}: {problem}")
        return outputs

    @contextmanager
    def _running(self) -> Iterator[None]:
        """``_call``, what it raises itself turned into a BackendError."""
        try:
            with self._call():
                yield
        except ClickmaskError:
            raise
        except Exception as exc:
            raise self._failure(exc) from exc

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"{self.name}: expected an open backend, got a call after close().")

    def _guard(self, call: Any, *arguments: Any) -> Any:
        self._check_open()
        try:
            return call(*arguments)
        except ClickmaskError:
            raise
        except Exception as exc:
            raise self._failure(exc) from exc

    def _failure(self, exc: Exception) -> BackendError:
        return BackendError(f"{self.name} on {self.device} failed: {exc}")
