"""Arrays of other libraries in device memory, taken and given without a copy.

PyCUDA, CuPy, Numba and torch speak `__cuda_array_interface__`, others DLPack. Neither library is imported:
both are protocols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInputError
from .dlpack import DEVICE, MANAGED, in_host_memory, tensor_in

_HINT = "PyCUDA, CuPy, Numba and torch arrays on the device have it; a NumPy array goes to Segmenter.session"
_DEFAULT_STREAM = 1  # of both protocols; work on it comes after that of all ordinary streams
_DLPACK_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}


@dataclass(frozen=True, eq=False)
class ForeignArray:
    """An array of another library.

    Attributes:
        pointer: address of its first element.
        shape: its extents.
        strides: bytes from element to element along each axis.
        kind: of its elements, as in NumPy: "u1" for uint8, "f4" for float32, "b1" for bool.
        writable: whether it may be written to.
        stream: the stream whose work fills it, to be waited for; None if it is complete.
        owner: the array itself, which keeps the memory.
    """

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    kind: str
    writable: bool
    stream: int | None
    owner: Any

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements follow each other in C order."""
        return self.strides == _packed_strides(self.shape, int(self.kind[1:]))


def foreign_array(array: Any, name: str) -> ForeignArray:
    """Read an array's interface.

    Args:
        array: has `__cuda_array_interface__` (version 2 or 3) or `__dlpack__`.
        name: of the argument, for messages.

    Raises:
        InvalidInputError: it has neither, is not in device memory, is masked, or says what cannot be.
    """
    try:
        interface = getattr(array, "__cuda_array_interface__", None)
    except Exception as exc:  # torch raises for tensors that need a gradient
        raise InvalidInputError(f"{name}: its __cuda_array_interface__ cannot be read: {exc}") from exc
    exports = hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__")
    # version 2, which torch has, does not tell whose work to wait for, and DLPack does
    if interface is not None and not (exports and _version(interface) == 2):
        return _from_interface(array, interface, name)
    if exports:
        return _from_dlpack(array, name)
    raise InvalidInputError(
        f"{name}: expected an array in device memory, with __cuda_array_interface__ or __dlpack__, but got "
        f"{type(array).__module__}.{type(array).__name__}; {_HINT}"
    )


def refuse_host_memory(array: Any, name: str) -> None:
    """Refuse an array that says by DLPack that it is in host memory, as a torch tensor without a GPU does.

    Raises:
        InvalidInputError: it does.
    """
    if in_host_memory(array):
        raise InvalidInputError(f"{name}: expected CUDA device memory, but got host memory; {_HINT}")


def image_strides(array: ForeignArray) -> tuple[int, int, int]:
    """Byte strides of row, column and colour of an image, as the kernels take them.

    Args:
        array: (H, W, 3) RGB, (H, W, 4) RGBA, whose alpha is dropped, or (H, W) or (H, W, 1) grey; uint8.

    Raises:
        InvalidInputError: another shape or dtype, or no pixels.
    """
    shape, expected = array.shape, "image: expected (H, W, 3), (H, W, 4), (H, W) or (H, W, 1) uint8"
    if array.kind != "u1":
        hint = "; in [0, 1] it converts with (image * 255).round()" if array.kind[0] == "f" else ""
        raise InvalidInputError(f"{expected}, but got elements of type {array.kind!r}{hint}")
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        planes = len(shape) == 3 and shape[0] in (1, 3, 4)
        hint = "; (3, H, W) converts without a copy: tensor.permute(1, 2, 0)" if planes else ""
        raise InvalidInputError(f"{expected}, but got shape {shape}{hint}")
    grey = len(shape) == 2 or shape[2] == 1
    return array.strides[0], array.strides[1], 0 if grey else array.strides[2]


def check_mask_target(array: ForeignArray, image_size: tuple[int, int]) -> None:
    """Make sure that a mask can be written into an array: (H, W) bool or uint8, C-contiguous, writable.

    Raises:
        InvalidInputError: it cannot; the message says why.
    """
    width, height = image_size
    if array.kind not in ("b1", "u1"):
        raise InvalidInputError(f"out: expected bool or uint8, but got elements of type {array.kind!r}")
    if array.shape != (height, width):
        raise InvalidInputError(f"out: expected the image's shape {(height, width)}, but got {array.shape}")
    if not array.is_contiguous:
        raise InvalidInputError(
            f"out: expected a C-contiguous array, but got strides {array.strides} for shape {array.shape}"
        )
    if not array.writable:
        raise InvalidInputError("out: expected an array that may be written to, but got a read-only one")


def _version(interface: Any) -> Any:
    return interface.get("version") if isinstance(interface, dict) else None


def _from_interface(array: Any, interface: Any, name: str) -> ForeignArray:
    where = f"{name}: __cuda_array_interface__"
    try:
        version = int(interface["version"])
        shape = tuple(int(n) for n in interface["shape"])
        typestr = str(interface["typestr"])
        pointer, read_only = int(interface["data"][0]), bool(interface["data"][1])
        given = interface.get("strides")
        strides = None if given is None else tuple(int(step) for step in given)
        stream = interface.get("stream") if version > 2 else _DEFAULT_STREAM
        stream = None if stream is None else int(stream)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as exc:
        raise InvalidInputError(f"{where}: expected the keys of version 2 or 3, got {exc!r}") from exc
    if version < 2:
        raise InvalidInputError(f"{where}: expected version 2 or 3, got {version}; update that library")
    if interface.get("mask") is not None:
        raise InvalidInputError(f"{where}: expected no mask, got a masked array; fill it first")
    kind = typestr[1:] if typestr[:1] in "|<=" else ""
    if kind[:1] not in ("b", "u", "i", "f", "c") or not kind[1:].isdigit():
        raise InvalidInputError(f"{where}: expected little-endian numbers, got typestr {typestr!r}")
    strides = _packed_strides(shape, int(kind[1:])) if strides is None else strides
    if stream == 0:
        raise InvalidInputError(f"{where}: stream 0 means nothing there; 1 is the default stream")
    return _checked(ForeignArray(pointer, shape, strides, kind, not read_only, stream, array), where)


def _from_dlpack(array: Any, name: str) -> ForeignArray:
    where = f"{name}: DLPack"
    refuse_host_memory(array, name)
    kind = int(array.__dlpack_device__()[0])
    if kind not in (DEVICE, MANAGED):
        raise InvalidInputError(f"{where}: expected CUDA device memory, but got that of device type {kind}")
    try:
        capsule = array.__dlpack__(stream=_DEFAULT_STREAM)  # which from now on waits for the array's work
    except Exception as exc:
        raise InvalidInputError(f"{where}: the array does not export itself: {exc}") from exc
    tensor = tensor_in(capsule)  # not consumed: the capsule frees what it holds when it goes, as the owner
    axes, letter = range(tensor.ndim), _DLPACK_KINDS.get(tensor.code)
    if letter is None or tensor.lanes != 1 or tensor.bits % 8:
        raise InvalidInputError(
            f"{where}: expected plain numbers, got type code {tensor.code} of {tensor.bits} bits"
        )
    size = tensor.bits // 8
    shape = tuple(tensor.shape[axis] for axis in axes)
    strides = tuple(tensor.strides[axis] * size for axis in axes) if tensor.strides else None
    if strides is None:
        strides = _packed_strides(shape, size)
    pointer = (tensor.data or 0) + tensor.byte_offset
    # unversioned DLPack does not tell what is read-only
    return _checked(
        ForeignArray(pointer, shape, strides, f"{letter}{size}", True, _DEFAULT_STREAM, (array, capsule)),
        where,
    )


def _checked(array: ForeignArray, where: str) -> ForeignArray:
    if len(array.strides) != len(array.shape) or min(array.shape, default=0) < 0:
        raise InvalidInputError(
            f"{where}: expected a stride for each extent, got shape {array.shape}, strides {array.strides}"
        )
    if 0 in array.shape:
        raise InvalidInputError(f"{where}: expected at least one element, got shape {array.shape}")
    if array.pointer == 0:
        raise InvalidInputError(f"{where}: expected an address, got a null pointer")
    return array


def _packed_strides(shape: Sequence[int], size: int) -> tuple[int, ...]:
    """Byte strides of a C-contiguous array."""
    strides = []
    for extent in reversed(shape):
        strides.append(size)
        size *= extent
    return tuple(reversed(strides))
