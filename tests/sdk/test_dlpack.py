"""DLPack exports: NumPy and torch are the consumers, and host memory stands for the device's."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_double import FakeCuda

from clickmask.backends import dlpack
from clickmask.backends.cuda_memory import GivenArray, given_array
from clickmask.backends.cuda_runtime import CudaRuntime
from clickmask.backends.device_arrays import foreign_array
from clickmask.errors import InvalidInputError

CPU = (1, 0)


class Exporter:
    """An array in host memory that exports itself as ours on the device do."""

    def __init__(self, array: np.ndarray) -> None:
        self.interface = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": None,
            "version": 3,
        }
        self.owner = Owner()
        self.owner.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU

    def __dlpack__(self, **asked: Any) -> Any:
        return dlpack.export(self.interface, self.owner, CPU, **asked)


class Owner:
    """Keeps memory, and can be watched."""

    array: np.ndarray


def from_torch(exporter: Exporter) -> np.ndarray:
    import torch

    return torch.from_dlpack(exporter).numpy()


CONSUMERS = {
    "numpy": np.from_dlpack,
    "numpy_that_says_all": lambda exporter: np.from_dlpack(exporter, device="cpu", copy=False),
    "torch": from_torch,
}


@pytest.mark.parametrize("consume", CONSUMERS.values(), ids=CONSUMERS)
@pytest.mark.parametrize("dtype", ["bool", "uint8", "float32"])
def test_the_consumer_has_the_same_memory(consume: Callable[[Any], np.ndarray], dtype: str) -> None:
    array = (np.arange(35).reshape(5, 7) % 3).astype(dtype)
    taken = consume(Exporter(array))
    assert (taken.dtype, taken.shape) == (array.dtype, array.shape)
    assert taken.ctypes.data == array.ctypes.data
    array[2, 3] = not array[2, 3]
    np.testing.assert_array_equal(taken, array)


@pytest.mark.parametrize("consume", CONSUMERS.values(), ids=CONSUMERS)
def test_the_memory_lives_until_every_consumer_let_go(consume: Callable[[Any], np.ndarray]) -> None:
    exporter = Exporter(np.ones((5, 7), np.bool_))
    gone = weakref.ref(exporter.owner)
    first, second = consume(exporter), consume(exporter)
    del exporter
    gc.collect()
    assert first.all()
    del first
    gc.collect()
    assert gone() is not None
    assert second.all()
    del second
    gc.collect()
    assert gone() is None


def test_a_capsule_that_nobody_consumes_lets_go_too() -> None:
    exporter = Exporter(np.ones((5, 7), np.bool_))
    gone = weakref.ref(exporter.owner)
    capsule = exporter.__dlpack__()
    del exporter
    assert gone() is not None
    del capsule
    assert gone() is None


def test_a_consumer_that_refuses_it_is_heard_and_lets_go() -> None:
    """NumPy drops the capsule while its own exception is on the way: it must arrive."""

    class OnDevice(Exporter):
        def __dlpack__(self, **asked: Any) -> Any:
            return dlpack.export(self.interface, self.owner, (2, 0), **asked)

    refused = OnDevice(np.ones((5, 7), np.bool_))
    gone = weakref.ref(refused.owner)
    with pytest.raises((RuntimeError, BufferError), match=r"(?i)device"):
        np.from_dlpack(refused)
    del refused
    gc.collect()
    assert gone() is None


ASKED = [
    ({}, None),
    ({"stream": None, "max_version": (1, 0), "dl_device": None, "copy": None}, None),
    ({"stream": -1, "max_version": (2, 7), "dl_device": (2, 1), "copy": False}, None),
    ({"stream": 1}, None),
    ({"stream": 0x7F00}, None),
    ({"stream": 0}, InvalidInputError),
    ({"dl_device": (1, 0)}, BufferError),
    ({"dl_device": (2, 0)}, BufferError),
    ({"copy": True}, BufferError),
]


@pytest.mark.parametrize(("asked", "error"), ASKED)
def test_what_a_consumer_may_ask_for(asked: dict[str, Any], error: type[Exception] | None) -> None:
    array = GivenArray(4096, (5, 7), "bool", None, index=1)
    if error is not None:
        with pytest.raises(error):
            array.__dlpack__(**asked)
        return
    tensor = dlpack.tensor_in(capsule := array.__dlpack__(**asked))
    assert (tensor.data, tensor.byte_offset) == (4096, 0)
    assert (tensor.device_type, tensor.device_id) == array.__dlpack_device__() == (2, 1)
    assert (tensor.code, tensor.bits, tensor.lanes) == (6, 8, 1)  # kDLBool
    assert [tensor.shape[axis] for axis in range(tensor.ndim)] == [5, 7]
    del capsule


def test_what_is_exported_can_be_taken_again() -> None:
    class OnlyDlpack:
        def __init__(self, array: GivenArray) -> None:
            self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__

    for array in (given := GivenArray(4096, (5, 7), "bool", None, index=0), OnlyDlpack(given)):
        found = foreign_array(array, "out")
        assert (found.pointer, found.shape, found.kind, found.writable) == (4096, (5, 7), "b1", True)
        assert found.is_contiguous


@pytest.mark.parametrize("export", [False, True], ids=["as_it_is", "exported"])
def test_given_memory_is_freed_by_its_last_user_and_never_used_again(
    monkeypatch: pytest.MonkeyPatch, export: bool
) -> None:
    cuda = FakeCuda()
    for name, module in cuda.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    runtime = CudaRuntime(0)
    with runtime.current():
        array: Any = given_array(runtime, (5, 7), "bool")
        pointer = array.pointer
        if export:
            array = array.__dlpack__()
            assert dlpack.tensor_in(array).data == pointer
    assert (cuda.live("device"), cuda.calls["cudaFree"]) == (1, 0)
    del array
    gc.collect()
    assert (cuda.live("device"), cuda.calls["cudaFree"]) == (0, 1)
