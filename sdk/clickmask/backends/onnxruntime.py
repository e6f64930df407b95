"""ONNX Runtime on the CPU and on CUDA: the default, because one file runs everywhere.

Arrays are bound rather than fed, so that on CUDA the image and the features stay on the device between
clicks. Nothing bound is kept for the next call: that saved nothing measurable on the CPU (decision 0016), and
calls may run at the same time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import BackendError, BackendUnavailableError
from ..manifest import Artefact, Manifest
from . import host
from .base import Backend
from .diffusion import Choice, Place, choose

_CUDA = "CUDAExecutionProvider"
_QUIET = 3  # ORT severity: errors and worse
_REINSTALL = 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "clickmask[{}]"'


@dataclass(frozen=True, eq=False)
class _DeviceArray:
    """An OrtValue with the attributes of an array."""

    value: Any
    shape: tuple[int, ...]
    dtype: str


class OnnxRuntimeBackend(Backend):
    """ONNX graphs on ONNX Runtime; ``open`` makes one."""

    def __init__(
        self,
        manifest: Manifest,
        sessions: dict[str, Any],
        device: str,
        reason: str,
        choice: Choice | None = None,
        threads: int | None = None,
    ) -> None:
        """Take over one open session for each graph that runs; applications call ``open``."""
        super().__init__("onnxruntime", device, reason, manifest, choice, threads)
        self._last_output = "diffused_logits" if self.pixel_diffusion == "graph" else "logits"
        self._sessions = sessions
        self._kind, self._index = host.split_device(device)

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
            device: "cpu", "cuda" or "cuda:N".
            threads: Threads of one call on the CPU; None means the physical cores this process may use.
            reason: Kept for the reader.
            pixel_diffusion: As for ``open_backend``; the kernel is for the CPU.

        Raises:
            BackendUnavailableError: ONNX Runtime, the device or the kernel asked for cannot be used; the
                message has the command to run.
            BackendError: The runtime refuses a graph.
        """
        ort = _import_runtime(device)
        choice = choose(bundle.manifest, pixel_diffusion, device)
        threads = threads or host.physical_cores()
        sessions: dict[str, Any] = {}
        for graph in filter(choice.opens, bundle.manifest.graphs):
            options = _options(ort, threads)
            sessions[graph] = _session(ort, bundle, artefact, graph, options, device)
            _check_names(bundle.manifest, graph, sessions[graph])
        return cls(bundle.manifest, sessions, device, reason, choice, threads)

    def close(self) -> None:
        """Drop the sessions; see :meth:`Backend.close`."""
        super().close()
        self._sessions = {}

    def _upload(self, array: np.ndarray) -> _DeviceArray:
        import onnxruntime as ort

        value = ort.OrtValue.ortvalue_from_numpy(array, self._kind, self._index)
        return _DeviceArray(value, array.shape, str(array.dtype))

    def _download(self, array: _DeviceArray) -> Any:
        return array.value.numpy()

    def _stack(self, arrays: Sequence[_DeviceArray]) -> _DeviceArray:
        return self._upload(np.concatenate([self._download(array) for array in arrays]))

    def _items(self, array: _DeviceArray) -> list[_DeviceArray]:
        whole = self._download(array)
        return [self._upload(whole[i : i + 1].copy()) for i in range(len(whole))]

    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        session = self._sessions[graph]
        binding = session.io_binding()  # one per call: what makes concurrent calls safe
        for name, feed in feeds.items():
            if isinstance(feed, _DeviceArray):
                binding.bind_ortvalue_input(name, feed.value)
            else:
                binding.bind_cpu_input(name, feed)
        specs = self.manifest.graphs[graph].outputs
        for spec in specs:
            if spec.name == self._last_output:
                binding.bind_output(spec.name, "cpu")
            else:
                binding.bind_output(spec.name, self._kind, self._index)
        session.run_with_iobinding(binding)
        return {spec.name: _wrapped(value) for spec, value in zip(specs, binding.get_outputs(), strict=True)}


def _wrapped(value: Any) -> _DeviceArray:
    dtype = {"tensor(float)": "float32", "tensor(float16)": "float16"}.get(
        value.data_type(), value.data_type()
    )
    return _DeviceArray(value, tuple(value.shape()), dtype)


def _import_runtime(device: str) -> Any:
    """The onnxruntime module, when it can serve the device."""
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
            f'"clickmask[{extra}]"'
        ) from exc
    if not hasattr(ort, "InferenceSession"):
        raise BackendUnavailableError(
            f"expected ONNX Runtime, got a module without InferenceSession from {host.location(ort)}: half "
            "an installation, or another folder of that name; rename that folder or run: "
            f"{_REINSTALL.format(extra)}"
        )
    if device != "cpu" and _CUDA not in ort.get_available_providers():
        raise BackendUnavailableError(_why_no_cuda(ort))
    return ort


def _why_no_cuda(ort: Any) -> str:
    available = ", ".join(ort.get_available_providers())
    if host.installed("onnxruntime") and host.installed("onnxruntime-gpu"):
        return (
            "expected ONNX Runtime with CUDA, got the CPU-only build: onnxruntime and onnxruntime-gpu are "
            "both installed "
            f"and share one folder, so that the CPU build shadows the other; run: {_REINSTALL.format('gpu')}"
        )
    return (
        f"expected ONNX Runtime with CUDA, got a build with {available} only; run: {_REINSTALL.format('gpu')}"
    )


def _options(ort: Any, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _QUIET
    # A pattern plans the memory of one shape and keeps it: with four input sizes that held up to 50 MB more
    # and made no call quicker (decision 0016).
    options.enable_mem_pattern = False
    # Between clicks a person thinks; spinning threads would take the cores of the application around us.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _session(ort: Any, bundle: Bundle, artefact: Artefact, graph: str, options: Any, device: str) -> Any:
    path = bundle.file(artefact, graph)
    providers: list[Any] = ["CPUExecutionProvider"]
    if device != "cpu":
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # finds CUDA and cuDNN in pip's nvidia wheels
        # TF32 keeps 10 bits of mantissa: not the fp32 that the manifest's parity was measured with.
        cuda = {"device_id": str(host.split_device(device)[1]), "use_tf32": "0"}
        providers.insert(0, (_CUDA, cuda))
    # From memory and with an empty folder for external data: a graph may name other files of this machine as
    # weights, and those have no hash in the manifest.
    with tempfile.TemporaryDirectory(prefix="clickmask-") as empty:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", empty)
        try:
            session = ort.InferenceSession(path.read_bytes(), options, providers=providers)
        except Exception as exc:
            raise BackendError(f"ONNX Runtime {ort.__version__} does not load {path.name!r}: {exc}") from exc
    if device != "cpu" and _CUDA not in session.get_providers():
        # ORT falls back to the CPU without raising; an application that asked for a GPU must hear of it.
        raise BackendUnavailableError(
            f"expected ONNX Runtime on {device}, got {', '.join(session.get_providers())}: the CUDA "
            "libraries or the "
            f"driver did not load ({host.cuda_devices()} CUDA device(s) found); check nvidia-smi, then run: "
            f"{_REINSTALL.format('gpu')}"
        )
    return session


def _check_names(manifest: Manifest, graph: str, session: Any) -> None:
    spec = manifest.graphs[graph]
    for side, wanted, found in (
        ("inputs", spec.inputs, session.get_inputs()),
        ("outputs", spec.outputs, session.get_outputs()),
    ):
        names, got = sorted(tensor.name for tensor in wanted), sorted(tensor.name for tensor in found)
        if names != got:
            raise BackendError(f"graph {graph!r}: expected the {side} {names} of the manifest, got {got}.")
