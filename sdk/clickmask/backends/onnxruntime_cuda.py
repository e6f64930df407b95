"""ONNX Runtime on CUDA: in the same lanes as TensorRT, with our memory bound to it and its own CUDA graphs.

ONNX Runtime keeps CUDA graphs by session and thread, and lets one thread at a time run a session that
captures them. So each lane has sessions of its own, weights included, and one thread that runs them. It
captures in CUDA's global mode, in which no other thread of the process can allocate device memory: a warm-up
has all lanes, so that none of ours does; for the application's, warm up before there are sessions.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import BackendError, BackendUnavailableError
from ..manifest import Artefact
from .cuda_device import cuda_device
from .cuda_memory import DeviceArray
from .cuda_runtime import CudaRuntime
from .diffusion import Choice, Place, choose
from .lane_backend import LaneBackend
from .lanes import LANES
from .onnxruntime import CUDA_PROVIDER, REINSTALL, check_names, import_runtime, open_session, session_options

_log = logging.getLogger("clickmask")
_NO_GRAPH = -1


class OnnxRuntimeCudaBackend(LaneBackend):
    """ONNX graphs on CUDA; ``open`` makes one."""

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        artefact: Artefact,
        device: str = "cuda",
        threads: int | None = None,  # noqa: ARG003 - of the CPU; the signature is every backend's
        reason: str = "asked for",
        pixel_diffusion: Place = "auto",
    ) -> OnnxRuntimeCudaBackend:
        """Load an artefact.

        Args:
            bundle: A checked bundle.
            artefact: One of its "onnxruntime" artefacts.
            device: "cuda" or "cuda:N".
            threads: Not used.
            reason: Kept for the reader.
            pixel_diffusion: As for ``open_backend``.

        Raises:
            BackendUnavailableError: ONNX Runtime, cuda-python, the device or the kernel asked for cannot be
                used; the message has the command to run.
            BackendError: The runtime refuses a graph.
            BundleError: A graph was changed since the bundle was loaded.
        """
        ort = import_runtime(device)
        choice = choose(bundle.manifest, pixel_diffusion, device)
        cuda = cuda_device(device, "ONNX Runtime", 'use device="cpu"', "gpu")
        backend = cls(
            "onnxruntime",
            device,
            reason,
            bundle.manifest,
            choice,
            cuda,
            lambda stream: _open_programs(ort, bundle, artefact, choice, cuda, stream),
            lanes=LANES,
        )
        with backend._running():  # a lane is made: what does not load shows here
            return backend


class OnnxRuntimePrograms:
    """See :class:`programs.Programs`; a graph has one form."""

    def __init__(self, ort: Any, sessions: Mapping[str, Any], index: int) -> None:
        """Take open sessions whose work goes to the lane's stream.

        Args:
            ort: The onnxruntime module.
            sessions: One for each graph that runs.
            index: Number of the device.
        """
        self._ort, self._sessions, self._index = ort, dict(sessions), index
        self._worker = ThreadPoolExecutor(1, "clickmask-onnxruntime")
        self._numbers = itertools.count(1)

    def form(self, graph: str, dims: Mapping[str, int]) -> int:  # noqa: ARG002 - any shape
        """Always 0."""
        return 0

    def make(self, graph: str, form: int) -> OnnxRuntimeProgram:  # noqa: ARG002 - there is one
        """A binding of a session."""
        return OnnxRuntimeProgram(self, self._sessions[graph], next(self._numbers))

    def close(self) -> None:
        """Have the thread end, and drop the sessions and their CUDA graphs; nothing is running any more."""
        self._worker.shutdown(wait=False)  # a finaliser may run where joining a thread waits for ever
        self._sessions = {}

    def new_binding(
        self, session: Any, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]
    ) -> Any:
        """Addresses of device memory, bound to a session's tensors."""
        binding = session.io_binding()
        for arrays, bind in ((inputs, binding.bind_input), (outputs, binding.bind_output)):
            for name, array in arrays.items():
                dtype = np.dtype(array.dtype).type
                bind(name, "cuda", self._index, dtype, list(array.shape), array.pointer)
        return binding

    def run_options(self, graph: int) -> Any:
        """Of a run that captures or replays a CUDA graph, by its number."""
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(graph))
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")  # the lane waits itself
        return options

    def run(self, session: Any, binding: Any, options: Any) -> None:
        """Put a run on the stream, from the one thread that does.

        Raises:
            BackendError: ONNX Runtime refuses it.
        """
        run = self._worker.submit(session.run_with_iobinding, binding, options)
        try:
            run.result()
        except Exception as exc:
            raise BackendError(f"ONNX Runtime {self._ort.__version__}: a run failed: {exc}") from exc
        finally:
            wait([run])  # after Ctrl-C, too: whoever frees the lane's memory must know all that will use it


class OnnxRuntimeProgram:
    """See :class:`programs.Program`: addresses bound to a session, and the number of a CUDA graph."""

    scratch_bytes = 0  # ONNX Runtime has memory of its own to work in

    def __init__(self, programs: OnnxRuntimePrograms, session: Any, number: int) -> None:
        """Bound to nothing yet; number: of its CUDA graph, should it be captured."""
        self._programs, self._session, self._number = programs, session, number
        self._options = programs.run_options(_NO_GRAPH)
        self._bound: tuple[Any, ...] = ()
        self._binding: Any = None

    def bind(
        self,
        inputs: Mapping[str, DeviceArray],
        outputs: Mapping[str, DeviceArray],
        scratch: DeviceArray,  # noqa: ARG002
    ) -> None:
        """Bind addresses with their shapes."""
        bound = tuple((name, array.pointer, array.shape) for name, array in {**inputs, **outputs}.items())
        if bound != self._bound:
            self._binding = self._programs.new_binding(self._session, inputs, outputs)
            self._bound = bound

    def launch(self) -> None:
        """Put a run on the stream."""
        self._programs.run(self._session, self._binding, self._options)

    def capture(self) -> None:
        """Have ONNX Runtime capture a CUDA graph, which later runs with that number replay."""
        plain, self._options = self._options, self._programs.run_options(self._number)
        try:
            self.launch()
        except BackendError:
            self._options = plain
            raise

    def close(self) -> None:
        """Give up the binding; the CUDA graph goes with the session."""
        self._binding = self._session = None


def _open_programs(
    ort: Any, bundle: Bundle, artefact: Artefact, choice: Choice, cuda: CudaRuntime, stream: Any
) -> OnnxRuntimePrograms:
    """The bundle's graphs in sessions on a stream, with CUDA graphs where ONNX Runtime can capture them."""
    sessions = {}
    for graph in filter(choice.opens, bundle.manifest.graphs):
        name = artefact.files[graph].path
        arguments = (ort, bundle.read(artefact.files[graph]), name, cuda.index, int(stream))
        try:
            sessions[graph] = _cuda_session(*arguments, captures=True)
        except BackendUnavailableError:
            raise
        except BackendError as exc:  # it says so where a node is not on CUDA; what else is wrong shows below
            sessions[graph] = _cuda_session(*arguments, captures=False)
            _log.warning("%s runs without a CUDA graph, which costs launch time: %s", graph, exc)
        check_names(bundle.manifest, graph, sessions[graph])
    return OnnxRuntimePrograms(ort, sessions, cuda.index)


def _cuda_session(ort: Any, model: bytes, name: str, index: int, stream: int, *, captures: bool) -> Any:
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds CUDA and cuDNN in pip's nvidia wheels
    options = {
        "device_id": str(index),
        # TF32 keeps 10 bits of mantissa: not the fp32 that the manifest's parity was measured with.
        "use_tf32": "0",
        "user_compute_stream": str(stream),
        "enable_cuda_graph": str(int(captures)),
    }
    providers = [(CUDA_PROVIDER, options), "CPUExecutionProvider"]
    session = open_session(ort, model, name, session_options(ort, 1), providers)
    if CUDA_PROVIDER not in session.get_providers():
        # ORT falls back to the CPU without raising; an application that asked for a GPU must hear of it.
        raise BackendUnavailableError(
            f"expected ONNX Runtime on cuda:{index}, got {', '.join(session.get_providers())}: the CUDA "
            f"libraries did not load; check nvidia-smi, then run: {REINSTALL.format('gpu')}"
        )
    return session
