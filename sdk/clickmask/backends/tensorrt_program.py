"""TensorRT's programs: execution contexts and, once captured, the CUDA graphs of their launch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine_facts import EngineFacts
from ..errors import BackendError
from .cuda_memory import DeviceArray
from .cuda_runtime import CudaRuntime

_RUNS_BEFORE_CAPTURE = 2  # the first runs of a context set up device state that a graph must not record


class TensorRtPrograms:
    """See :class:`programs.Programs`; a form is an optimisation profile."""

    def __init__(
        self, cuda: CudaRuntime, trt: Any, engines: Mapping[str, Any], facts: EngineFacts, stream: Any
    ) -> None:
        """Take engines that other lanes use, too.

        Args:
            cuda: The device.
            trt: The TensorRT module.
            engines: One for each graph that runs.
            facts: Of their plans.
            stream: Where programs run.
        """
        self._cuda, self._trt, self._engines = cuda, trt, engines
        self._facts, self._stream = facts, stream

    def form(self, graph: str, dims: Mapping[str, int]) -> int:  # noqa: ARG002 - all have the same profiles
        """The profile of a size and a batch."""
        profile = self._facts.profile(dims["S"], dims["B"])
        if profile is None:
            raise BackendError(f"expected a profile for {dims['B']} images of side {dims['S']}, got none.")
        return profile

    def make(self, graph: str, form: int) -> TensorRtProgram:
        """A context in a profile."""
        return TensorRtProgram(self._cuda, self._trt, self._engines[graph], form, self._stream)

    def close(self) -> None:
        """Nothing: the engines are the backend's."""


class TensorRtProgram:
    """See :class:`programs.Program`: an execution context in one profile, without memory of its own."""

    def __init__(self, cuda: CudaRuntime, trt: Any, engine: Any, profile: int, stream: Any) -> None:
        """Make a context.

        Raises:
            BackendError: TensorRT refuses the context or the profile.
        """
        self._cuda, self._stream, self._graph = cuda, stream, None
        self.scratch_bytes = int(engine.get_device_memory_size_for_profile_v2(profile))
        self._context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if self._context is None:
            raise BackendError("TensorRT: ICudaEngine.create_execution_context failed.")
        _require(
            self._context.set_optimization_profile_async(profile, int(stream)),
            "set_optimization_profile_async",
            profile,
        )
        cuda.synchronize(stream)
        self._bound: tuple[Any, ...] = ()

    def bind(
        self, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray], scratch: DeviceArray
    ) -> None:
        """Set shapes and addresses; the message of an error names the call and the tensor."""
        arrays = {**inputs, **outputs, "": scratch}
        bound = tuple((name, array.pointer, array.shape) for name, array in arrays.items())
        if bound == self._bound:
            return
        self._bound = ()
        context = self._context
        context.set_device_memory(scratch.pointer, scratch.nbytes)
        for name, array in inputs.items():
            _require(
                context.set_input_shape(name, array.shape), "set_input_shape", f"{name} {list(array.shape)}"
            )
        if missing := context.infer_shapes():
            raise BackendError(f"TensorRT: IExecutionContext.infer_shapes left {missing} unspecified.")
        for name, array in {**inputs, **outputs}.items():
            _require(context.set_tensor_address(name, array.pointer), "set_tensor_address", name)
        for name, array in outputs.items():
            if (shape := tuple(context.get_tensor_shape(name))) != array.shape:
                raise BackendError(f"TensorRT: expected {name} {list(array.shape)}, got {list(shape)}.")
        self._bound = bound

    def launch(self) -> None:
        """Put a run on the stream."""
        if self._graph is None:
            _require(self._context.execute_async_v3(int(self._stream)), "execute_async_v3")
        else:
            self._cuda.launch(self._graph, self._stream)

    def capture(self) -> None:
        """Make a CUDA graph of the launch, after runs that do what a graph must not."""
        for _ in range(_RUNS_BEFORE_CAPTURE):
            self.launch()
        self._cuda.synchronize(self._stream)
        self._graph = self._cuda.capture(self._stream, self.launch)

    def close(self) -> None:
        """Give up graph and context."""
        graph, self._graph, self._context = self._graph, None, None
        if graph is not None:
            self._cuda.free_graph(graph)


def _require(done: bool, call: str, detail: Any = "") -> None:
    # TensorRT reports by return value; what it has to say is in the log.
    if not done:
        raise BackendError(
            f"TensorRT: IExecutionContext.{call}({detail}) failed; see the logger clickmask.tensorrt."
        )
