"""CUDA without a GPU: what ``cuda.bindings`` is to clickmask, with lazy streams.

Work on a stream is done no earlier than somebody waits for it, so that a missing wait shows as wrong numbers.
Fresh memory is NaN, freed memory is noticed, and what may not be called while a stream is captured fails as
CUDA does.
"""

from __future__ import annotations

import ctypes
import enum
import threading
import types
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from driver_double import FakeDriver

Error = enum.Enum(
    "cudaError_t",
    [
        "cudaSuccess",
        "cudaErrorInvalidValue",
        "cudaErrorMemoryAllocation",
        "cudaErrorStreamCaptureUnsupported",
    ],
)
CopyKind = enum.Enum("cudaMemcpyKind", ["cudaMemcpyDefault"])
CaptureMode = enum.Enum("cudaStreamCaptureMode", ["cudaStreamCaptureModeThreadLocal"])
MemoryType = enum.Enum(
    "cudaMemoryType", ["cudaMemoryTypeHost", "cudaMemoryTypeDevice", "cudaMemoryTypeManaged"]
)
OK = Error.cudaSuccess


class Handle:
    """A stream, event or graph."""

    numbers = iter(range(1, 1 << 30))

    def __init__(self, kind: str) -> None:
        self.kind, self.number = kind, next(self.numbers)
        self.work: list[Callable[[], None]] = []
        self.captured_by: int | None = None
        self.alive = True

    def __int__(self) -> int:
        return self.number


class FakeCuda:
    """The module, and what a test asks it afterwards.

    Attributes:
        calls: How often each function was called.
        log: The functions called, in order, with the thread.
        fail: Function name to the error that it gives from now on.
        memory_limit: Bytes of device memory that there are.
        place: Kind and device of every address that is asked about.
        crossed: Bytes copied "in", from host to device, and "out".
        driver: What tells which contexts there are.
        captured_globally: While true no thread can allocate, as where a capture is in CUDA's global mode.
    """

    def __init__(self, memory_limit: int = 1 << 30) -> None:
        self.calls: Counter[str] = Counter()
        self.log: list[tuple[str, int]] = []
        self.fail: dict[str, Error] = {}
        self.memory_limit = memory_limit
        self.place = ("Device", 0)
        self.crossed: Counter[str] = Counter()
        self.blocks: dict[int, tuple[Any, int, str]] = {}
        self.handles: list[Handle] = []
        self.streams: dict[int, Handle] = {}
        self.driver = FakeDriver()
        self.captured_globally = False
        self.lock = threading.RLock()
        self.module = types.ModuleType("cuda.bindings.runtime")
        self.module.__dict__.update(
            cudaError_t=Error,
            cudaMemcpyKind=CopyKind,
            cudaStreamCaptureMode=CaptureMode,
            cudaMemoryType=MemoryType,
            cudaStreamNonBlocking=1,
            cudaEventDisableTiming=2,
            **{name: self._wrapped(name) for name in dir(self) if name.startswith("cuda")},
        )

    def _wrapped(self, name: str) -> Callable[..., Any]:
        inner = getattr(self, name)

        def call(*arguments: Any) -> Any:
            with self.lock:
                self.calls[name] += 1
                self.log.append((name, threading.get_ident()))
                if name in self.fail:
                    return (self.fail[name], None)
                if name != "cudaGetErrorString":
                    self.driver.context()
                result = inner(*arguments)
                return result if isinstance(result, tuple) else (OK, result)

        call.__name__ = name
        return call

    def modules(self) -> dict[str, types.ModuleType]:
        """What to put into ``sys.modules``."""
        package = types.ModuleType("cuda.bindings")
        package.runtime, package.driver = self.module, self.driver.module  # type: ignore[attr-defined]
        found = (types.ModuleType("cuda"), package, self.module, self.driver.module)
        return {module.__name__: module for module in found}

    def live(self, kind: str) -> int:
        """Streams, events, graphs, "device" or "pinned" blocks that nobody has freed."""
        if kind in ("device", "pinned"):
            return sum(block[2] == kind for block in self.blocks.values())
        return sum(handle.kind == kind and handle.alive for handle in self.handles)

    def array(self, pointer: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Memory as an array; raises where it is not wholly inside one live block."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        for start, (_, size, _) in self.blocks.items():
            if start <= pointer and pointer + nbytes <= start + size:
                buffer = (ctypes.c_ubyte * nbytes).from_address(pointer)
                return np.frombuffer(buffer, dtype).reshape(shape)
        raise AssertionError(f"{nbytes} bytes at {pointer:#x} are not allocated")

    def put(self, stream: int, work: Callable[[], None]) -> None:
        """Put work on a stream, as a kernel launch does."""
        with self.lock:
            self.streams[int(stream)].work.append(work)

    def capturing(self) -> bool:
        """Whether this thread captures a stream."""
        return any(stream.captured_by == threading.get_ident() for stream in self.streams.values())

    def _new(self, kind: str) -> Handle:
        handle = Handle(kind)
        self.handles.append(handle)
        return handle

    def _allocate(self, nbytes: int, kind: str) -> Any:
        if self.capturing() or self.captured_globally:
            return (Error.cudaErrorStreamCaptureUnsupported, None)
        used = sum(size for _, size, of in self.blocks.values() if of == "device")
        if kind == "device" and used + nbytes > self.memory_limit:
            return (Error.cudaErrorMemoryAllocation, None)
        memory = (ctypes.c_ubyte * (nbytes + 256))()
        pointer = -(-ctypes.addressof(memory) // 256) * 256
        ctypes.memset(pointer, 0xFF, nbytes)  # NaN in every float
        self.blocks[pointer] = (memory, nbytes, kind)
        return pointer

    def _release(self, pointer: int, kind: str) -> Any:
        if self.blocks.get(pointer, (0, 0, ""))[2] != kind:
            return (Error.cudaErrorInvalidValue, None)
        memory, nbytes, _ = self.blocks.pop(pointer)
        ctypes.memset(pointer, 0xFF, nbytes)
        del memory
        return None

    def _drain(self, stream: Handle, count: int | None = None) -> None:
        for _ in range(len(stream.work) if count is None else count):
            stream.work.pop(0)()

    # The functions of the real module that clickmask uses

    def cudaGetErrorString(self, error: Error) -> Any:
        return f"text of {error.name}".encode()

    def cudaStreamCreateWithFlags(self, flags: int) -> Handle:
        assert flags == 1
        stream = self._new("stream")
        self.streams[stream.number] = stream
        return stream

    def cudaStreamDestroy(self, stream: Handle) -> None:
        stream.alive = False
        del self.streams[stream.number]

    def cudaStreamSynchronize(self, stream: Handle) -> Any:
        if self.capturing():
            return (Error.cudaErrorStreamCaptureUnsupported,)
        self._drain(self.streams[int(stream)])
        return None

    def cudaDeviceSynchronize(self) -> None:
        for stream in self.streams.values():
            self._drain(stream)

    def cudaEventCreateWithFlags(self, flags: int) -> Handle:
        assert flags == 2
        return self._new("event")

    def cudaEventDestroy(self, event: Handle) -> None:
        event.alive = False

    def cudaEventRecord(self, event: Handle, stream: Handle) -> None:
        done: list[bool] = []
        stream.work.append(lambda: done.append(True))

        def wait() -> None:
            while not done:
                stream.work.pop(0)()

        event.work = [wait]

    def cudaStreamWaitEvent(self, stream: Handle, event: Handle, flags: int) -> None:
        assert flags == 0
        stream.work.append(event.work[0])

    def cudaMalloc(self, nbytes: int) -> Any:
        return self._allocate(nbytes, "device")

    def cudaFree(self, pointer: int) -> Any:
        return self._release(pointer, "device")

    def cudaMemGetInfo(self) -> Any:
        used = sum(size for _, size, kind in self.blocks.values() if kind == "device")
        return (OK, self.memory_limit - used, self.memory_limit)

    def cudaMallocHost(self, nbytes: int) -> Any:
        return self._allocate(nbytes, "pinned")

    def cudaFreeHost(self, pointer: int) -> Any:
        return self._release(pointer, "pinned")

    def cudaPointerGetAttributes(self, _pointer: int) -> Any:
        kind, device = self.place
        return types.SimpleNamespace(type=MemoryType[f"cudaMemoryType{kind}"], device=device)

    def cudaMemcpyAsync(self, target: int, source: int, nbytes: int, kind: CopyKind, stream: Handle) -> None:
        assert kind is CopyKind.cudaMemcpyDefault

        self._count(target, source, nbytes)
        if not any(start <= source < start + size for start, (_, size, _) in self.blocks.items()):
            staged = ctypes.string_at(source, nbytes)  # ordinary host memory is copied away at once
            stream.work.append(lambda: ctypes.memmove(target, staged, nbytes))
            return

        def copy() -> None:
            self.array(target, (nbytes,), "uint8")[:] = self.array(source, (nbytes,), "uint8")

        stream.work.append(copy)

    def _count(self, target: int, source: int, nbytes: int) -> None:
        on_device = [
            any(
                start <= at < start + size
                for start, (_, size, kind) in self.blocks.items()
                if kind == "device"
            )
            for at in (target, source)
        ]
        if on_device[0] != on_device[1]:
            self.crossed["in" if on_device[0] else "out"] += nbytes

    def cudaStreamBeginCapture(self, stream: Handle, mode: CaptureMode) -> None:
        assert mode is CaptureMode.cudaStreamCaptureModeThreadLocal
        assert not stream.work, "captured with work under way"
        stream.captured_by = threading.get_ident()

    def cudaStreamEndCapture(self, stream: Handle) -> Handle:
        stream.captured_by = None
        graph = self._new("graph")
        graph.work, stream.work = stream.work, []
        return graph

    def cudaGraphInstantiate(self, graph: Handle, flags: int) -> Handle:
        assert flags == 0
        executable = self._new("executable")
        executable.work = list(graph.work)
        return executable

    def cudaGraphDestroy(self, graph: Handle) -> None:
        graph.alive = False

    def cudaGraphLaunch(self, executable: Handle, stream: Handle) -> None:
        assert executable.alive
        stream.work.extend(executable.work)

    def cudaGraphExecDestroy(self, executable: Handle) -> None:
        executable.alive = False


class LateKernels:
    """Kernels for the processor, run when the stream is waited for."""

    def __init__(self, kernels: Any, cuda: FakeCuda) -> None:
        self.kernels, self.cuda = kernels, cuda

    def __getattr__(self, name: str) -> Any:
        def queued(*arguments: Any) -> None:
            self.cuda.put(arguments[-1], lambda: getattr(self.kernels, name)(*arguments))

        return queued


class LateDiffusion:
    """Pixel Diffusion for the processor, run when the stream is waited for, on memory that must be there."""

    def __init__(self, library: Any, cuda: FakeCuda) -> None:
        self.library, self.cuda = library, cuda
        self.clickmask_cuda_affinity_bytes = library.clickmask_cuda_affinity_bytes
        self.clickmask_cuda_scratch_bytes = library.clickmask_cuda_scratch_bytes

    def clickmask_cuda_affinity(
        self, options: Any, image: int, height: int, width: int, affinity: int, stream: int
    ) -> int:
        def work() -> None:
            self.cuda.array(image, (3, height, width), "float32")
            self._weights(options, height, width, affinity)
            given = (options, image, height, width, affinity, stream)
            assert self.library.clickmask_cuda_affinity(*given) == 0

        self.cuda.put(stream, work)
        return 0

    def clickmask_cuda_diffuse(self, options: Any, affinity: int, *rest: Any) -> int:
        logits, clicks, count, height, width, scratch, result, stream = rest

        def work() -> None:
            self._weights(options, height, width, affinity)
            self.cuda.array(scratch, (self.clickmask_cuda_scratch_bytes(height, width),), "uint8")
            for plane in (logits, result):
                self.cuda.array(plane, (height, width), "float32")
            self.cuda.array(clicks, (count, 3), "float32")
            assert self.library.clickmask_cuda_diffuse(options, affinity, *rest) == 0

        self.cuda.put(stream, work)
        return 0

    def _weights(self, options: Any, height: int, width: int, pointer: int) -> None:
        self.cuda.array(pointer, (self.clickmask_cuda_affinity_bytes(options, height, width),), "uint8")
