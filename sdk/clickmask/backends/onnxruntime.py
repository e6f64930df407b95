"""ONNX Runtime on the CPU: the default, because one file runs everywhere. ``onnxruntime_cuda`` is for CUDA.

Arrays are bound rather than fed, so that features stay as ONNX Runtime made them between clicks. Nothing
bound is kept for the next call: that saved nothing measurable (decision 0016), and calls may run at the same
time. A decoder has a session for each input size, which knows every shape ahead (decision 0029).
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import BackendError, BackendUnavailableError
from ..manifest import Artefact, Manifest
from . import host
from .base import Backend, Features
from .cuda_memory import DeviceArray
from .diffusion import Choice, Place, choose
from .shapes import extents, named_extents

CUDA_PROVIDER = "CUDAExecutionProvider"
_QUIET = 3  # ORT severity: errors and worse
REINSTALL = 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "clickmask[{}]"'


@dataclass(frozen=True, eq=False)
class _DeviceArray:
    """An OrtValue with the attributes of an array."""

    value: Any
    shape: tuple[int, ...]
    dtype: str


class OnnxRuntimeBackend(Backend):
    """ONNX graphs on the CPU; ``open`` makes one."""

    def __init__(
        self,
        manifest: Manifest,
        graphs: Sequence[str],
        opener: Callable[[str, int | None], Any],
        device: str,
        reason: str,
        choice: Choice | None = None,
        threads: int | None = None,
    ) -> None:
        """Open the graphs, for a photograph's first view; applications call ``open``.

        Args:
            manifest: See ``Backend``, as for what is not explained here.
            graphs: Those that run.
            opener: Gives a session of a graph: for one image of a size, or, given None, for any.
            device: See there.
            reason: See there.
            choice: See there.
            threads: See there.
        """
        super().__init__("onnxruntime", device, reason, manifest, choice, threads)
        self._opener = opener
        self._opening = threading.RLock()  # a finaliser may close where its thread is opening another
        self._sessions: dict[tuple[str, int | None], Any] = {}
        for graph in graphs:
            self._session(graph, {"B": 1, "S": max(manifest.input.sizes)})

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        artefact: Artefact,
        device: str = "cpu",
        threads: int | None = None,
        reason: str = "asked for",
        pixel_diffusion: Place = "auto",
    ) -> OnnxRuntimeBackend:
        """Load an artefact.

        Args:
            bundle: A checked bundle.
            artefact: One of its "onnxruntime" artefacts.
            device: "cpu".
            threads: Threads of one call; None means the physical cores this process may use.
            reason: Kept for the reader.
            pixel_diffusion: As for ``open_backend``.

        Raises:
            BackendUnavailableError: ONNX Runtime or the kernel asked for cannot be used; the message has the
                command to run.
            BackendError: The runtime refuses a graph.
            BundleError: A graph was changed since the bundle was loaded.
        """
        ort = import_runtime(device)
        choice = choose(bundle.manifest, pixel_diffusion, device)
        threads = threads or host.physical_cores()
        graphs = tuple(filter(choice.opens, bundle.manifest.graphs))
        models = {graph: bundle.read(artefact.files[graph]) for graph in graphs}

        def opener(graph: str, size: int | None) -> Any:
            model = models[graph] if graph == "decoder" else models.pop(graph)  # which is opened once
            name, spec = artefact.files[graph].path, bundle.manifest.graphs[graph]
            fixed = {} if size is None else named_extents(spec, {"B": 1, "S": size})
            options = session_options(ort, threads, fixed)
            session = open_session(ort, model, name, options, ["CPUExecutionProvider"])
            check_names(bundle.manifest, graph, session)
            return session

        return cls(bundle.manifest, graphs, opener, device, reason, choice, threads)

    def encode(self, image: np.ndarray | DeviceArray, local: bool = False) -> Features:
        """See :meth:`Backend.encode`; opens what decodes them, too: a click seldom waits for this one."""
        features = super().encode(image, local)
        batch, _, size, _ = features.tensors["image"].shape
        self._guard(self._session, features.graph, {"B": batch, "S": size})
        return features

    def close(self) -> None:
        """Drop the sessions; see :meth:`Backend.close`."""
        with self._opening:  # so that none is opened after this
            super().close()
            self._sessions = {}

    def _upload(self, array: np.ndarray) -> _DeviceArray:
        import onnxruntime as ort

        value = ort.OrtValue.ortvalue_from_numpy(array)
        return _DeviceArray(value, array.shape, str(array.dtype))

    def _download(self, array: _DeviceArray) -> Any:
        return array.value.numpy()

    def _stack(self, arrays: Sequence[_DeviceArray]) -> _DeviceArray:
        return self._upload(np.concatenate([self._download(array) for array in arrays]))

    def _items(self, array: _DeviceArray) -> list[_DeviceArray]:
        whole = self._download(array)
        return [self._upload(whole[i : i + 1].copy()) for i in range(len(whole))]

    def _session(self, graph: str, dims: Mapping[str, int]) -> Any:
        """The session of a call, opened when first needed.

        Of a decoder and one image there is one for each size. An encoder gains nothing by that, and it, or
        the whole network, would be in memory once for each; a batch would need one for each number of images.
        """
        key = (graph, dims.get("S") if dims["B"] == 1 and graph == "decoder" else None)
        session = self._sessions.get(key)  # without the lock: who has a session waits for no other's
        if session is not None:
            return session
        with self._opening:
            self._check_open()
            session = self._sessions.get(key) or self._opener(*key)
            if not self._closed:
                self._sessions[key] = session
        return session

    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        inputs = self.manifest.graphs[graph].inputs
        session = self._session(graph, extents(inputs, {name: feed.shape for name, feed in feeds.items()}))
        binding = session.io_binding()  # one per call: what makes concurrent calls safe
        for name, feed in feeds.items():
            if isinstance(feed, _DeviceArray):
                binding.bind_ortvalue_input(name, feed.value)
            else:
                binding.bind_cpu_input(name, feed)
        specs = self.manifest.graphs[graph].outputs
        for spec in specs:
            binding.bind_output(spec.name)
        session.run_with_iobinding(binding)
        return {spec.name: _wrapped(value) for spec, value in zip(specs, binding.get_outputs(), strict=True)}


def _wrapped(value: Any) -> _DeviceArray:
    dtype = {"tensor(float)": "float32", "tensor(float16)": "float16"}.get(
        value.data_type(), value.data_type()
    )
    return _DeviceArray(value, tuple(value.shape()), dtype)


def import_runtime(device: str) -> Any:
    """The onnxruntime module, when it can serve the device.

    Raises:
        BackendUnavailableError: It cannot; the message has the command to run.
    """
    extra = "cpu" if device == "cpu" else "gpu"
    try:
        import onnxruntime as ort
    except ModuleNotFoundError as exc:
        raise BackendUnavailableError(
            f'expected ONNX Runtime, got no module of that name; run: pip install "clickmask[{extra}]"'
        ) from exc
    except (ImportError, OSError) as exc:
        raise BackendUnavailableError(
            f"expected ONNX Runtime to import, got: {exc}; run: pip install --force-reinstall "
            f"{'onnxruntime' if device == 'cpu' else 'onnxruntime-gpu'}"
        ) from exc
    if not hasattr(ort, "InferenceSession"):
        raise BackendUnavailableError(
            f"expected ONNX Runtime, got a module without InferenceSession from {host.location(ort)}: half "
            "an installation, or another folder of that name; rename that folder or run: "
            f"{REINSTALL.format(extra)}"
        )
    if device != "cpu" and CUDA_PROVIDER not in ort.get_available_providers():
        raise BackendUnavailableError(_why_no_cuda(ort))
    return ort


def _why_no_cuda(ort: Any) -> str:
    available = ", ".join(ort.get_available_providers())
    if host.installed("onnxruntime") and host.installed("onnxruntime-gpu"):
        return (
            "expected ONNX Runtime with CUDA, got the CPU-only build: onnxruntime and onnxruntime-gpu are "
            "both installed "
            f"and share one folder, so that the CPU build shadows the other; run: {REINSTALL.format('gpu')}"
        )
    return (
        f"expected ONNX Runtime with CUDA, got a build with {available} only; run: {REINSTALL.format('gpu')}"
    )


def session_options(ort: Any, threads: int, fixed: Mapping[str, int] = MappingProxyType({})) -> Any:
    """Of a session with so many threads; fixed: extents that every call will have, by their names."""
    options = ort.SessionOptions()
    for name, extent in fixed.items():
        options.add_free_dimension_override_by_name(name, extent)
    options.intra_op_num_threads = threads
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _QUIET
    # A pattern plans the memory of one shape and keeps it: 10 to 80 MB more for a fiftieth of the decoder
    # (decisions 0016, 0029).
    options.enable_mem_pattern = False
    # Threads spin briefly for the next of many small nodes, and not between clicks, while a person thinks:
    # that would take the cores of the application around us. Longer is hardly quicker (decision 0022).
    options.add_session_config_entry("session.intra_op.spin_duration_us", "20")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def open_session(ort: Any, model: bytes, name: str, options: Any, providers: Sequence[Any]) -> Any:
    """A session of a model.

    Args:
        ort: The onnxruntime module.
        model: Bytes of the ONNX file.
        name: Of the file, for messages.
        options: From ``session_options``, for this session alone.
        providers: As ONNX Runtime takes them.

    Raises:
        BackendError: ONNX Runtime refuses it, or there is no place for a temporary folder.
    """
    # From memory and with an empty folder for external data: a graph may name other files of this machine as
    # weights, and those have no hash in the manifest.
    try:
        folder = tempfile.TemporaryDirectory(prefix="clickmask-")
    except OSError as exc:
        raise BackendError(
            f"expected to make a temporary folder, got: {exc}; set TMPDIR to a folder that can be written to"
        ) from exc
    with folder as empty:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", empty)
        try:
            # No second try on the CPU alone, which ONNX Runtime prints about, and which hides the error.
            return ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except Exception as exc:
            raise BackendError(f"ONNX Runtime {ort.__version__} does not load {name!r}: {exc}") from exc


def check_names(manifest: Manifest, graph: str, session: Any) -> None:
    """Hold a session's tensors against the manifest.

    Raises:
        BackendError: They differ.
    """
    spec = manifest.graphs[graph]
    for side, wanted, found in (
        ("inputs", spec.inputs, session.get_inputs()),
        ("outputs", spec.outputs, session.get_outputs()),
    ):
        names, got = sorted(tensor.name for tensor in wanted), sorted(tensor.name for tensor in found)
        if names != got:
            raise BackendError(f"graph {graph!r}: expected the {side} {names} of the manifest, got {got}.")
