"""What ``cuda.bindings.driver`` is to clickmask, without a GPU: contexts, and which of them a thread has."""

from __future__ import annotations

import enum
import threading
import types
from typing import Any

Result = enum.Enum("CUresult", ["CUDA_SUCCESS", "CUDA_ERROR_NOT_INITIALIZED", "CUDA_ERROR_INVALID_CONTEXT"])


class FakeDriver:
    """The module, and what a test asks it afterwards.

    Attributes:
        primaries: The devices whose primary context was made.
        fail: Function name to the error that it gives from now on.
    """

    def __init__(self) -> None:
        self.primaries: set[int] = set()
        self.fail: dict[str, Result] = {}
        self._initialised = False
        self._own = threading.local()
        self.module = types.ModuleType("cuda.bindings.driver")
        functions = {name: self._wrapped(name) for name in dir(self) if name.startswith("cu")}
        self.module.__dict__.update(CUresult=Result, **functions)

    def _wrapped(self, name: str) -> Any:
        inner = getattr(self, name)

        def call(*arguments: Any) -> Any:
            if name in self.fail:
                return (self.fail[name], None)
            if not self._initialised and name not in ("cuInit", "cuGetErrorString"):
                return (Result.CUDA_ERROR_NOT_INITIALIZED, None)
            result = inner(*arguments)
            return (Result.CUDA_SUCCESS,) if result is None else (Result.CUDA_SUCCESS, result)

        call.__name__ = name
        return call

    @property
    def stack(self) -> list[Any]:
        """This thread's contexts, the current one last: a device's number for its primary one."""
        if not hasattr(self._own, "stack"):
            self._own.stack = []
        return self._own.stack

    def context(self) -> Any:
        """What a call of the runtime works in: where a thread has none, device 0's is made for it."""
        if not self.stack:
            self.stack.append(self.cuDevicePrimaryCtxRetain(0))
        return self.stack[-1]

    # The functions of the real module that clickmask uses

    def cuGetErrorString(self, error: Result) -> bytes:
        return f"text of {error.name}".encode()

    def cuInit(self, flags: int) -> None:
        assert flags == 0
        self._initialised = True

    def cuDeviceGet(self, ordinal: int) -> int:
        return ordinal

    def cuDevicePrimaryCtxRetain(self, device: int) -> int:
        self.primaries.add(device)
        return device

    def cuCtxPushCurrent(self, context: Any) -> None:
        self.stack.append(context)

    def cuCtxGetCurrent(self) -> Any:
        return self.stack[-1] if self.stack else 0

    def cuCtxPopCurrent(self) -> Any:
        return self.stack.pop()
