"""What one call of TorchScript on CUDA runs in: a stream of its own and CUDA graphs captured there.

torch's allocators keep pinned and device memory for the next call, so that none is managed here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from .cuda_memory import DeviceArray

_log = logging.getLogger("clickmask")
_RUNS_BEFORE_CAPTURE = 3  # TorchScript profiles two runs and compiles at the third
_capturing = threading.Lock()  # torch waits for the whole device before a capture, which breaks one under way


class TorchLane:
    """See :class:`lanes.Lane`. Its stream is torch's current one in a call, and every tensor is made there.

    Attributes:
        warming: Whether runs are captured as CUDA graphs.
    """

    def __init__(self, torch: Any, device: str) -> None:
        """A stream on a device; ``torch`` is the module."""
        self._torch, self._device = torch, device
        self.stream = torch.cuda.Stream(device)
        self.warming = False
        # One pool for all: a graph may overwrite what another computed, and only the copies made before live
        # on. Within a call each result is read before the next graph runs.
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...], Any] | None] = {}
        self._inputs: dict[tuple[Any, ...], Any] = {}

    def upload(self, array: np.ndarray | DeviceArray) -> Any:
        """An array as a tensor on the device: of the host by way of pinned memory, of the device as it is."""
        if isinstance(array, DeviceArray):
            return self._torch.as_tensor(array, device=self._device)  # which holds it
        # Host arrays are all float32; from_numpy would warn of read-only ones, and this copies anyhow.
        pinned = self._torch.empty(array.shape, dtype=self._torch.float32, pin_memory=True)
        pinned.numpy()[...] = array
        return pinned.to(self._device, non_blocking=True)

    def download(self, tensor: Any) -> np.ndarray:
        """A tensor on the host; waits for it."""
        pinned = self._torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        pinned.copy_(tensor, non_blocking=True)
        self.stream.synchronize()
        return np.array(pinned.numpy())  # a copy: results may be kept for long, and pinned memory is scarce

    def finite_later(self, tensor: Any) -> Callable[[], bool]:
        """Look for NaN and infinity on the device; what is returned waits for the answer."""
        flag = self._torch.isfinite(tensor).all()
        return lambda: bool(flag.item())

    def run(self, graph: str, module: Any, tensors: tuple[Any, ...]) -> Any:
        """Run a module, through its CUDA graph where there is one for these shapes.

        The outputs of a CUDA graph are overwritten by its next run.
        """
        key = (graph, *(tuple(tensor.shape) for tensor in tensors))
        if self.warming and key not in self._graphs:
            self._graphs[key] = self._captured(graph, module, tensors)
        captured = self._graphs.get(key)
        if captured is None:
            return module(*tensors)
        cuda_graph, inputs, outputs = captured
        for target, source in zip(inputs, tensors, strict=True):
            target.copy_(source, non_blocking=True)
        cuda_graph.replay()
        return outputs

    def finish(self) -> None:
        """Wait until nothing of the call is running any more."""
        self.stream.synchronize()

    def close(self) -> None:
        """Drop the CUDA graphs and their inputs."""
        self.stream.synchronize()
        self._graphs.clear()
        self._inputs.clear()

    def _captured(
        self, graph: str, module: Any, tensors: tuple[Any, ...]
    ) -> tuple[Any, tuple[Any, ...], Any] | None:
        torch = self._torch
        inputs = tuple(self._input(graph, number, tensor) for number, tensor in enumerate(tensors))
        for _ in range(_RUNS_BEFORE_CAPTURE):
            module(*inputs)
        self.stream.synchronize()
        cuda_graph = torch.cuda.CUDAGraph()
        try:
            # Other threads go on allocating and launching meanwhile.
            with (
                _capturing,
                torch.cuda.graph(cuda_graph, self._pool, self.stream, capture_error_mode="thread_local"),
            ):
                outputs = module(*inputs)
        except RuntimeError as exc:
            _log.warning("%s runs without a CUDA graph, which costs launch time: %s", graph, exc)
            return None
        return cuda_graph, inputs, outputs

    def _input(self, graph: str, number: int, tensor: Any) -> Any:
        """A copy of an input, in memory that all CUDA graphs of the module share: each run writes it anew.

        The features of a crop are by far the most, and the same for every number of clicks.
        """
        key = graph, number, tuple(tensor.shape)
        if key not in self._inputs:
            self._inputs[key] = self._torch.empty_like(tensor)
        return self._inputs[key].copy_(tensor)
