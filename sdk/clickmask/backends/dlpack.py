"""DLPack's capsules: what dlpack.h lays out in memory, read and made.

A capsule is made by NumPy, of an array that is never looked into: its deleter and its destructor are C, which
hold when an exception is on its way and when the interpreter ends. What is ours is the device that it names.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ..errors import InvalidInputError

HOST, DEVICE, MANAGED = 1, 2, 13  # kDLCPU, kDLCUDA, kDLCUDAManaged

_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class DLTensor(ctypes.Structure):
    """The structure of that name; strides count elements."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def in_host_memory(array: Any) -> bool:
    """Whether an array says by DLPack that it is in host memory, as NumPy's and torch's without a GPU do."""
    return hasattr(array, "__dlpack_device__") and int(array.__dlpack_device__()[0]) == HOST


def tensor_in(capsule: Any) -> DLTensor:
    """What an unversioned capsule holds that nobody has consumed yet; valid as long as that is so.

    Raises:
        ValueError: it is no such capsule.
    """
    # DLManagedTensor begins with it; who made the capsule frees it, by what comes behind
    return ctypes.cast(_pointer_of(capsule, b"dltensor"), ctypes.POINTER(DLTensor)).contents


def export(
    interface: dict[str, Any],
    owner: Any,
    device: tuple[int, int],
    *,
    stream: int | None = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[int, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """What ``__dlpack__`` of the array API standard (2023.12) returns, for an array that is complete.

    Args:
        interface: ``__cuda_array_interface__`` of the array, which is writable.
        owner: keeps its memory; let go of once the consumer has, or the capsule goes unconsumed.
        device: DLPack's type of device, and its number.
        stream: the consumer's, which has nothing to wait for: no work on the array is under way.
        max_version: the newest layout that the consumer reads; unversioned ones all do.
        dl_device: where the consumer wants it.
        copy: True asks for a copy, which the consumer can make better.

    Returns:
        A "dltensor" capsule.

    Raises:
        BufferError: a copy, or an array elsewhere, is asked for.
        InvalidInputError: stream 0, which the standard leaves without a meaning.
    """
    del max_version
    if stream == 0 and device[0] == DEVICE:
        raise InvalidInputError("__dlpack__: stream 0 has no meaning there; 1 is the default stream")
    if dl_device is not None and tuple(map(int, dl_device)) != device:
        raise BufferError(f"expected to be asked for DLPack device {device}, but got {tuple(dl_device)}")
    if copy:
        raise BufferError("expected to be asked for the array itself, but got copy=True; copy what it gives")
    capsule = np.asarray(_Held(interface, owner)).__dlpack__()
    tensor = tensor_in(capsule)
    tensor.device_type, tensor.device_id = device
    return capsule


class _Held:
    """Memory as NumPy takes it, and what keeps it."""

    def __init__(self, interface: dict[str, Any], owner: Any) -> None:
        self.__array_interface__, self.owner = interface, owner
