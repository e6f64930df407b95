"""What one call at a time needs to run on a GPU: streams, programs, scratch memory and buffers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from ..errors import BackendError
from ..manifest import Manifest, TensorSpec
from .cuda_memory import DeviceArray, DevicePool, PinnedArrays
from .cuda_runtime import CudaRuntime
from .device_kernels import ViewKernels
from .programs import Program, Programs
from .shapes import extents

_log = logging.getLogger("clickmask")


class DeviceLane:
    """Runs one call at a time; calls that run side by side have a lane each.

    Every tensor has one buffer for each B and S, by its name, which all graphs share: what the network writes
    as "logits" is where Pixel Diffusion reads it. Addresses never change, as captured CUDA graphs need.

    Attributes:
        warming: Whether runs are captured as CUDA graphs.
    """

    def __init__(
        self,
        cuda: CudaRuntime,
        open_programs: Callable[[Any], Programs],
        manifest: Manifest,
        pool: DevicePool,
        kernels: ViewKernels | None = None,
    ) -> None:
        """Make streams; programs and buffers come with the first run that needs them.

        Args:
            cuda: The device.
            open_programs: The runtime's graphs on a stream.
            manifest: The bundle's.
            pool: Where device memory comes from.
            kernels: What looks for NaN on the device; without them the host does.
        """
        self._cuda, self._manifest, self._pool, self._kernels = cuda, manifest, pool, kernels
        self.warming = False
        self._pinned = PinnedArrays(cuda)
        self._buffers: dict[tuple[str, int, int], DeviceArray] = {}
        self._scratch: list[DeviceArray] = []
        self._programs: dict[tuple[Any, ...], Program] = {}
        self._held: dict[str, Any] = {}
        self._taken: list[DeviceArray] = []
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._stream = self._owned(stack, cuda.new_stream, cuda.free_stream)
            self._side = self._owned(stack, cuda.new_stream, cuda.free_stream)
            self._event = self._owned(stack, cuda.new_event, cuda.free_event)
            self._source = open_programs(self._stream)
            stack.callback(self._source.close)
            self._stack = stack.pop_all()

    @staticmethod
    def _owned(stack: ExitStack, make: Callable[[], Any], free: Callable[[Any], None]) -> Any:
        made = make()
        stack.callback(free, made)
        return made

    def upload(self, array: np.ndarray | DeviceArray) -> DeviceArray:
        """A host array in device memory of its own; one that is on the device stays where it is."""
        if isinstance(array, DeviceArray):
            return array
        target = self._take(array.shape, str(array.dtype))
        self._to_device("upload", array, target)
        return target

    def keep(self, array: DeviceArray) -> DeviceArray:
        """A copy of a buffer in device memory of its own."""
        target = self._take(array.shape, array.dtype)
        self._cuda.copy(target.pointer, array.pointer, array.nbytes, self._stream)
        return target

    def stack(self, arrays: Sequence[DeviceArray]) -> DeviceArray:
        """Arrays one after the other along their first axis, in device memory of their own."""
        count = sum(array.shape[0] for array in arrays)
        target = self._take((count, *arrays[0].shape[1:]), arrays[0].dtype)
        offset = target.pointer
        for array in arrays:
            self._cuda.copy(offset, array.pointer, array.nbytes, self._stream)
            offset += array.nbytes
        return target

    def download(self, array: DeviceArray) -> np.ndarray:
        """A device array on the host; waits for it."""
        pinned = self._pinned.array("download", array.shape, array.dtype)
        self._cuda.copy(pinned.ctypes.data, array.pointer, array.nbytes, self._stream)
        self._cuda.synchronize(self._stream)
        return pinned.copy()

    def finite_later(self, name: str, array: DeviceArray) -> Callable[[], bool]:
        """Begins to look for NaN and infinity; what is returned waits and tells whether there are none.

        Looks of different names go on side by side.
        """
        if self._kernels is None:
            return self._finite_on_host(name, array)
        # The device writes to it over the bus, and only if it finds any.
        found = self._pinned.array(f"{name} not finite", (1,), "int32")
        found[0] = 0
        rows, columns = math.prod(array.shape[:-1]), array.shape[-1]
        self._kernels.find_not_finite(array.pointer, rows, columns, found.ctypes.data, int(self._stream))

        def all_finite() -> bool:
            self._cuda.synchronize(self._stream)
            return not found[0]

        return all_finite

    def _finite_on_host(self, name: str, array: DeviceArray) -> Callable[[], bool]:
        """That without kernels: the array is copied beside what the stream does next."""
        pinned = self._pinned.array(f"{name} to check", array.shape, array.dtype)
        self._cuda.follow(self._side, self._stream, self._event)
        self._cuda.copy(pinned.ctypes.data, array.pointer, array.nbytes, self._side)

        def all_finite() -> bool:
            self._cuda.synchronize(self._side)
            return bool(np.isfinite(pinned).all())

        return all_finite

    def run(self, graph: str, feeds: Mapping[str, Any]) -> dict[str, DeviceArray]:
        """Put a graph on the stream.

        Args:
            graph: Its name.
            feeds: Host arrays and device arrays by name.

        Returns:
            Its outputs, in buffers that the next run of the graph overwrites.

        Raises:
            BackendError: The runtime or CUDA failed.
        """
        spec = self._manifest.graphs[graph]
        dims = extents(spec.inputs, {tensor.name: feeds[tensor.name].shape for tensor in spec.inputs})
        form = self._source.form(graph, dims)
        inputs = {tensor.name: self._buffer(tensor, dims) for tensor in spec.inputs}
        outputs = {tensor.name: self._buffer(tensor, dims) for tensor in spec.outputs}
        for name, buffer in inputs.items():
            self._copy_in(name, feeds[name], buffer)
        self._program(graph, form, inputs, outputs).launch()
        self._held |= outputs
        return outputs

    def finish(self) -> None:
        """Wait until nothing of the call is running any more."""
        self._cuda.synchronize(self._stream)
        self._cuda.synchronize(self._side)
        self._held.clear()
        self._taken.clear()

    def close(self) -> None:
        """Give everything up; what is running is waited for first."""
        with self._stack:
            self._stack.callback(self._pinned.close)
            self._stack.callback(self._buffers.clear)
            self._stack.callback(self._scratch.clear)
            for program in self._programs.values():
                self._stack.callback(program.close)
            self._stack.callback(self._held.clear)
            self._stack.callback(self._taken.clear)
            self._programs = {}
            self._stack.callback(self._cuda.synchronize, self._side)
            self._stack.callback(self._cuda.synchronize, self._stream)

    def _take(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """Memory that others get no sooner than what this call does in it is done, even if the call fails."""
        self._taken.append(self._pool.take(shape, dtype))
        return self._taken[-1]

    def _buffer(self, spec: TensorSpec, dims: Mapping[str, int]) -> DeviceArray:
        key = spec.name, dims["B"], dims["S"]
        if key not in self._buffers:
            largest = self._shape(spec, {**dims, "M": self._manifest.input.max_clicks})
            self._buffers[key] = self._pool.take(largest, spec.dtype)
        whole = self._buffers[key]
        return DeviceArray(whole.pointer, self._shape(spec, dims), spec.dtype, whole.owner)

    @staticmethod
    def _shape(spec: TensorSpec, dims: Mapping[str, int]) -> tuple[int, ...]:
        shape = []
        for dimension in spec.shape:
            symbol, _, divisor = str(dimension).partition("/")
            shape.append(dimension if isinstance(dimension, int) else dims[symbol] // int(divisor or 1))
        return tuple(shape)

    def _copy_in(self, name: str, feed: Any, buffer: DeviceArray) -> None:
        if self._held.get(name) is feed:
            return  # this call put it there already
        if isinstance(feed, DeviceArray):
            self._cuda.copy(buffer.pointer, feed.pointer, feed.nbytes, self._stream)
        else:
            self._to_device(name, feed, buffer)
        self._held[name] = feed

    def _to_device(self, name: str, array: np.ndarray, target: DeviceArray) -> None:
        pinned = self._pinned.array(name, array.shape, str(array.dtype))
        np.copyto(pinned, array)
        self._cuda.copy(target.pointer, pinned.ctypes.data, target.nbytes, self._stream)

    def _program(
        self,
        graph: str,
        form: int,
        inputs: Mapping[str, DeviceArray],
        outputs: Mapping[str, DeviceArray],
    ) -> Program:
        """The graph's program for these shapes: the captured one, or one bound to them now."""
        key = (graph, form, *(array.shape for array in inputs.values()))
        if program := self._programs.get(key):
            return program
        if self.warming:
            program = self._programs[key] = self._source.make(graph, form)
            program.bind(inputs, outputs, self._scratch_of(program.scratch_bytes))
            try:
                program.capture()
            except BackendError as exc:
                _log.warning("%s runs without a CUDA graph, which costs launch time: %s", graph, exc)
            return program
        program = self._programs.get((graph, form)) or self._source.make(graph, form)
        self._programs[graph, form] = program
        program.bind(inputs, outputs, self._scratch_of(program.scratch_bytes))
        return program

    def _scratch_of(self, nbytes: int) -> DeviceArray:
        """Memory that all programs of the lane share, as they run one after another.

        Where it must grow the old block stays, since captured graphs go on using it; warming begins with the
        largest shapes, so that it seldom does.
        """
        for block in self._scratch:
            if block.nbytes >= nbytes:
                return block
        self._scratch.append(self._pool.take((nbytes,), "uint8"))
        return self._scratch[-1]
