"""The part of torch that ``TorchLane`` uses, without CUDA: streams are always done, CUDA graphs are recorded.

What is captured is replayed operation by operation into the same memory, as CUDA does.
"""

from __future__ import annotations

import ctypes
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clickmask.backends.cuda_memory import DeviceArray


class Recorded:
    """A CUDA graph: operations with their arguments and results."""

    def __init__(self, counts: Counter[str]) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.counts = counts

    def replay(self) -> None:
        self.counts["replay"] += 1
        for function, arguments, options, result in self.operations:
            again = function(*arguments, **options)
            if isinstance(result, torch.Tensor) and again is not result:
                result.copy_(again)


class Recorder(TorchDispatchMode):
    def __init__(self, graph: Recorded) -> None:
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.graph.operations.append((function, args, kwargs or {}, result))
        return result


class FakeTorch:
    """The part of torch that ``TorchLane`` uses, without CUDA."""

    float32 = torch.float32
    isfinite = staticmethod(torch.isfinite)
    empty_like = staticmethod(torch.empty_like)

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.refuses_capture = False
        self._captured = threading.local()
        self.cuda = SimpleNamespace(
            Stream=lambda _: SimpleNamespace(synchronize=lambda: self.counts.update(["synchronize"])),
            graph_pool_handle=object,
            CUDAGraph=lambda: Recorded(self.counts),
            graph=self._graph,
        )

    def launch(self, work: Callable[[], int]) -> int:
        """A kernel that is not torch's, on the current stream: run, and recorded with what is captured."""
        graph = getattr(self._captured, "graph", None)
        if graph is not None:
            graph.operations.append((work, (), {}, None))
        return work()

    def as_tensor(self, array: DeviceArray, device: str) -> Any:
        """As of an object with `__cuda_array_interface__`: its memory, not a copy, and it is held."""
        assert device == "cpu"
        memory = (ctypes.c_ubyte * array.nbytes).from_address(array.pointer)
        memory._held = array
        return torch.frombuffer(memory, dtype=torch.float32).reshape(array.shape)

    def empty(self, shape: Any, dtype: Any, pin_memory: bool) -> Any:
        assert pin_memory
        return torch.empty(shape, dtype=dtype)

    @contextmanager
    def _graph(self, graph: Recorded, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        assert pool is not None
        assert stream is not None
        assert capture_error_mode == "thread_local"
        if self.refuses_capture:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.counts["capture"] += 1
        self._captured.graph = graph
        try:
            with Recorder(graph):
                yield
        finally:
            self._captured.graph = None
