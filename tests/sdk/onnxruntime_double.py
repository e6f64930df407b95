"""ONNX Runtime's CUDA provider without a GPU: the real runtime computes, on a ``FakeCuda``'s memory.

Work is queued on the stream that a session was opened with. CUDA graphs are ONNX Runtime's: kept by thread
and number, captured in the global mode, and replayed at the addresses of their first run, whatever is bound.
"""

from __future__ import annotations

import threading
import time
import types
from collections import Counter
from typing import Any

import onnxruntime
from cuda_double import FakeCuda
from runtimes import CPU, CUDA


class FakeOnnxRuntime:
    """The module, and what a test asks it afterwards.

    Attributes:
        counts: "plain" runs, "capture"s and "replay"s.
        options: The CUDA provider's, of each session that was opened.
        refuses_graphs: Whether sessions do not open with CUDA graphs, as where a node is not on CUDA.
        broken: Whether runs fail from now on.
        no_provider: Whether the CUDA provider cannot be made: no session, or with a fallback one on the CPU.
    """

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.counts: Counter[str] = Counter()
        self.options: list[dict[str, str]] = []
        self.refuses_graphs = self.broken = self.no_provider = False
        self.obtained = [CUDA, CPU]
        self.module = types.ModuleType("onnxruntime")
        self.module.__dict__.update(
            __version__=onnxruntime.__version__,
            get_available_providers=lambda: [CUDA, CPU],
            SessionOptions=onnxruntime.SessionOptions,
            GraphOptimizationLevel=onnxruntime.GraphOptimizationLevel,
            RunOptions=RunOptions,
            InferenceSession=lambda model, options, providers, enable_fallback: Session(
                self, model, options, providers, enable_fallback
            ),
        )


class RunOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_run_config_entry(self, name: str, value: str) -> None:
        self.entries[name] = value


class Session:
    def __init__(
        self, runtime: FakeOnnxRuntime, model: bytes, options: Any, providers: list[Any], enable_fallback: int
    ) -> None:
        (name, cuda_options), last = providers
        assert (name, last) == (CUDA, CPU)
        if runtime.no_provider:
            if not enable_fallback:
                raise RuntimeError("CUDA failure 2: out of memory")
            runtime.obtained = [CPU]
        self.captures = cuda_options["enable_cuda_graph"] == "1"
        if self.captures and runtime.refuses_graphs:
            raise RuntimeError("cannot use the graph capture feature: not all nodes are on CUDA")
        runtime.options.append(cuda_options)
        self.runtime, self.stream = runtime, int(cuda_options["user_compute_stream"])
        self.real = onnxruntime.InferenceSession(model, options, providers=[CPU])
        self.graphs: dict[tuple[int, int], list[tuple[Any, ...]]] = {}
        self.busy = threading.Lock()

    def get_providers(self) -> list[str]:
        return self.runtime.obtained

    def get_inputs(self) -> Any:
        return self.real.get_inputs()

    def get_outputs(self) -> Any:
        return self.real.get_outputs()

    def io_binding(self) -> Binding:
        return Binding()

    def run_with_iobinding(self, binding: Binding, options: RunOptions) -> None:
        assert self.busy.acquire(blocking=False), "one session that captures, two threads"
        try:
            if self.runtime.broken:
                raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")
            assert options.entries["disable_synchronize_execution_providers"] == "1"
            graph, bound = int(options.entries["gpu_graph_id"]), list(binding.bound)
            how = "plain"
            if graph >= 0 and self.captures:
                key = threading.get_ident(), graph
                how = "replay" if key in self.graphs else "capture"
                bound = self.graphs.setdefault(key, bound)
            self.runtime.counts[how] += 1
            if how == "capture":
                self.runtime.cuda.captured_globally = True
                time.sleep(0.001)
                self.runtime.cuda.captured_globally = False
            self.runtime.cuda.put(self.stream, lambda: self._compute(bound))
        finally:
            self.busy.release()

    def _compute(self, bound: list[tuple[Any, ...]]) -> None:
        real = self.real.io_binding()
        for side, name, dtype, shape, pointer in bound:
            self.runtime.cuda.array(pointer, tuple(shape), dtype)  # it is there
            getattr(real, side)(name, "cpu", 0, dtype, shape, pointer)
        self.real.run_with_iobinding(real)


class Binding:
    def __init__(self) -> None:
        self.bound: list[tuple[Any, ...]] = []

    def bind_input(
        self,
        name: str,
        device_type: str,
        device_id: int,
        element_type: Any,
        shape: list[int],
        buffer_ptr: int,
    ) -> None:
        self._bind("bind_input", name, device_type, device_id, element_type, shape, buffer_ptr)

    def bind_output(
        self,
        name: str,
        device_type: str,
        device_id: int,
        element_type: Any,
        shape: list[int],
        buffer_ptr: int,
    ) -> None:
        self._bind("bind_output", name, device_type, device_id, element_type, shape, buffer_ptr)

    def _bind(
        self, side: str, name: str, kind: str, index: int, dtype: Any, shape: list[int], pointer: int
    ) -> None:
        assert (kind, index) == ("cuda", 0)
        self.bound.append((side, name, dtype, shape, pointer))
