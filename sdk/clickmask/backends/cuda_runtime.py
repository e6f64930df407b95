"""The CUDA runtime on one device, through cuda-python: calls that raise where CUDA returns an error code.

Everything is on the device's primary context, which torch and ONNX Runtime use too; no other is ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..errors import BackendError


class CudaRuntime:
    """A device and the few calls that backends make on it. Threads share it.

    Streams, events and graphs are the objects of cuda-python; memory is an address as an integer.
    """

    def __init__(self, index: int) -> None:
        """Import cuda-python for CUDA device number ``index``.

        Raises:
            ImportError: cuda-python is not installed.
        """
        from cuda.bindings import driver as cudriver
        from cuda.bindings import runtime as cudart

        self.cudart: Any = cudart
        self.cudriver: Any = cudriver
        self.index = index
        self._primary: Any = None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of ``cudart`` or ``cudriver`` gives after its error code: nothing or values.

        Raises:
            BackendError: The error code is not success; the message names the call.
        """
        error, *values = function(*arguments)
        if error not in (self.cudart.cudaError_t.cudaSuccess, self.cudriver.CUresult.CUDA_SUCCESS):
            text = self._text_of(error)
            readable = text.decode() if isinstance(text, bytes) else text
            raise BackendError(
                f"CUDA device {self.index}: {getattr(function, '__name__', 'a call')} failed with "
                f"{getattr(error, 'name', error)}: {readable}"
            )
        return values[0] if len(values) == 1 else tuple(values) or None

    def _text_of(self, error: Any) -> Any:
        if isinstance(error, self.cudriver.CUresult):
            return self.cudriver.cuGetErrorString(error)[1]
        return self.cudart.cudaGetErrorString(error)[1]

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes the device's primary context this thread's, and gives back the context it had, also none.

        By the driver's stack: cudaSetDevice would make a context on the device that the thread had before.
        """
        self.call(self.cudriver.cuCtxPushCurrent, self._context())
        try:
            yield
        finally:
            self.call(self.cudriver.cuCtxPopCurrent)

    def _context(self) -> Any:
        """The primary context, held as long as the process lives, as the runtime holds it."""
        if self._primary is None:
            self.call(self.cudriver.cuInit, 0)
            device = self.call(self.cudriver.cuDeviceGet, self.index)
            self._primary = self.call(self.cudriver.cuDevicePrimaryCtxRetain, device)
        return self._primary

    def new_stream(self) -> Any:
        """A stream that does not wait for the default one."""
        return self.call(self.cudart.cudaStreamCreateWithFlags, self.cudart.cudaStreamNonBlocking)

    def free_stream(self, stream: Any) -> None:
        """Destroy a stream."""
        self.call(self.cudart.cudaStreamDestroy, stream)

    def synchronize(self, stream: Any) -> None:
        """Wait for all work of a stream; errors of that work show here."""
        self.call(self.cudart.cudaStreamSynchronize, stream)

    def new_event(self) -> Any:
        """An event that only orders streams."""
        return self.call(self.cudart.cudaEventCreateWithFlags, self.cudart.cudaEventDisableTiming)

    def free_event(self, event: Any) -> None:
        """Destroy an event."""
        self.call(self.cudart.cudaEventDestroy, event)

    def follow(self, later: Any, earlier: Any, event: Any) -> None:
        """Make what comes next on one stream wait for what is already on another."""
        self.call(self.cudart.cudaEventRecord, event, earlier)
        self.call(self.cudart.cudaStreamWaitEvent, later, event, 0)

    def malloc(self, nbytes: int) -> int:
        """Device memory, aligned to 256 bytes."""
        return int(self.call(self.cudart.cudaMalloc, nbytes))

    def free(self, pointer: int) -> None:
        """Give device memory back; waits for the device."""
        self.call(self.cudart.cudaFree, pointer)

    def free_and_total(self) -> tuple[int, int]:
        """Bytes of device memory that nobody has, and that there are."""
        free, total = self.call(self.cudart.cudaMemGetInfo)
        return int(free), int(total)

    def malloc_pinned(self, nbytes: int) -> int:
        """Host memory that the device can copy from and to without a detour."""
        return int(self.call(self.cudart.cudaMallocHost, nbytes))

    def free_pinned(self, pointer: int) -> None:
        """Give pinned memory back."""
        self.call(self.cudart.cudaFreeHost, pointer)

    def copy(self, target: int, source: int, nbytes: int, stream: Any) -> None:
        """Put a copy between device and pinned memory, in any direction, on a stream."""
        kind = self.cudart.cudaMemcpyKind.cudaMemcpyDefault
        self.call(self.cudart.cudaMemcpyAsync, target, source, nbytes, kind, stream)

    def upload(self, target: int, source: int, nbytes: int) -> None:
        """Copy ordinary host memory to the device, and wait for that."""
        stream = self.new_stream()  # cudaMemcpy would not do: it returns once the last part is staged
        try:
            self.copy(target, source, nbytes, stream)
            self.synchronize(stream)
        finally:
            self.free_stream(stream)

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        """Record what ``work`` puts on a stream, without running it, as an executable graph.

        Only this thread's calls are restricted meanwhile: other threads go on allocating and launching.

        Raises:
            BackendError: ``work`` raised it, or something in it cannot be recorded.
        """
        self.call(
            self.cudart.cudaStreamBeginCapture,
            stream,
            self.cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal,
        )
        try:
            work()
        except BaseException:
            with suppress(BackendError):  # the stream is of no use before; its own error is not news
                self.call(self.cudart.cudaGraphDestroy, self.call(self.cudart.cudaStreamEndCapture, stream))
            raise
        graph = self.call(self.cudart.cudaStreamEndCapture, stream)
        try:
            return self.call(self.cudart.cudaGraphInstantiate, graph, 0)
        finally:
            self.call(self.cudart.cudaGraphDestroy, graph)

    def launch(self, graph: Any, stream: Any) -> None:
        """Put a captured graph on a stream."""
        self.call(self.cudart.cudaGraphLaunch, graph, stream)

    def free_graph(self, graph: Any) -> None:
        """Destroy what ``capture`` gave."""
        self.call(self.cudart.cudaGraphExecDestroy, graph)
