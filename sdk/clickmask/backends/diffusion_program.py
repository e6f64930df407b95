"""The fused kernel as one of a lane's programs: Pixel Diffusion of whatever runtime runs the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .cuda_memory import DeviceArray
from .cuda_runtime import CudaRuntime
from .device_diffusion import GRAPH, Call, DeviceDiffusion
from .programs import Program, Programs


def with_kernel(
    open_programs: Callable[[Any], Programs], kernel: DeviceDiffusion, cuda: CudaRuntime
) -> Callable[[Any], Programs]:
    """A runtime's graphs on a stream, but for Pixel Diffusion, which the kernel does."""
    return lambda stream: KernelPrograms(open_programs(stream), kernel, cuda, stream)


class KernelPrograms:
    """See :class:`programs.Programs`; of the kernel, a form is a side S."""

    def __init__(self, others: Programs, kernel: DeviceDiffusion, cuda: CudaRuntime, stream: Any) -> None:
        """Take the runtime's own, which it closes."""
        self._others, self._kernel, self._cuda, self._stream = others, kernel, cuda, stream

    def form(self, graph: str, dims: Mapping[str, int]) -> int:
        """The side, since it decides on the scratch memory; or the runtime's form."""
        return dims["S"] if graph == GRAPH else self._others.form(graph, dims)

    def make(self, graph: str, form: int) -> Program:
        """The kernel for a side, or the runtime's program."""
        if graph == GRAPH:
            return DiffusionProgram(self._kernel, form, self._cuda, self._stream)
        return self._others.make(graph, form)

    def close(self) -> None:
        """Close the runtime's."""
        self._others.close()


class DiffusionProgram:
    """See :class:`programs.Program`: the kernel's launches and, once captured, their CUDA graph."""

    def __init__(self, kernel: DeviceDiffusion, size: int, cuda: CudaRuntime, stream: Any) -> None:
        """Bound to nothing yet."""
        self._kernel, self._cuda, self._stream = kernel, cuda, stream
        self.scratch_bytes = kernel.scratch_bytes(size)
        self._call: Call | None = None
        self._graph: Any = None

    def bind(
        self, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray], scratch: DeviceArray
    ) -> None:
        """Set addresses and extents."""
        image, clicks, logits = (inputs[name] for name in ("image", "clicks", "logits"))
        self._call = Call(
            image.pointer,
            clicks.pointer,
            logits.pointer,
            outputs["diffused_logits"].pointer,
            scratch.pointer,
            batch=clicks.shape[0],
            slots=clicks.shape[1],
            size=image.shape[-1],
        )

    def launch(self) -> None:
        """Put a run on the stream."""
        assert self._call is not None  # bound before
        if self._graph is None:
            self._kernel.run(self._call, int(self._stream))
        else:
            self._cuda.launch(self._graph, self._stream)

    def capture(self) -> None:
        """Make a CUDA graph of the launch, after a run that loads the kernels, which a graph must not."""
        self.launch()
        self._cuda.synchronize(self._stream)
        self._graph = self._cuda.capture(self._stream, self.launch)

    def close(self) -> None:
        """Give up the graph."""
        graph, self._graph = self._graph, None
        if graph is not None:
            self._cuda.free_graph(graph)
