"""Arrays of other libraries: what their interfaces say is understood, and what cannot be used is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clickmask.backends.device_arrays import (
    ForeignArray,
    check_mask_target,
    foreign_array,
    image_strides,
)
from clickmask.backends.dlpack import tensor_in
from clickmask.errors import InvalidInputError

GOOD = {"shape": (20, 30, 3), "typestr": "|u1", "data": (4096, False), "strides": None, "version": 3}


class Array:
    """What PyCUDA, CuPy and torch arrays look like from here."""

    def __init__(self, **changes: Any) -> None:
        merged = {**GOOD, **changes}
        self.__cuda_array_interface__ = {key: value for key, value in merged.items() if value is not ...}


class Exported:
    """A NumPy array that claims by DLPack to be on a device; its capsule says the same."""

    def __init__(self, array: np.ndarray, device: tuple[int, int] = (2, 0), **changes: Any) -> None:
        self.array, self.device, self.changes, self.streams = array, device, changes, []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, stream: int | None = None) -> Any:
        self.streams.append(stream)
        capsule = self.array.__dlpack__()
        tensor = tensor_in(capsule)
        for name, value in self.changes.items():
            setattr(tensor, name, value)
        return capsule


def test_a_cuda_array_interface_is_taken_at_its_word() -> None:
    array = Array(strides=(96, 3, 1), data=(8192, True), stream=7)
    found = foreign_array(array, "image")
    assert (found.pointer, found.shape, found.strides, found.kind) == (8192, (20, 30, 3), (96, 3, 1), "u1")
    assert (found.writable, found.stream) == (False, 7)
    assert found.owner is array


def test_where_the_interface_does_not_tell_its_stream_the_default_one_is_waited_for() -> None:
    assert foreign_array(Array(version=2), "image").stream == 1
    assert foreign_array(Array(version=3), "image").stream is None


@pytest.mark.parametrize(("version", "taken"), [(2, "dlpack"), (3, "interface")])
def test_dlpack_is_preferred_where_only_it_orders_the_work(version: int, taken: str) -> None:
    class Both(Exported):
        __cuda_array_interface__ = {**GOOD, "version": version}  # noqa: RUF012

    both = Both(np.zeros((4, 5, 3), np.uint8))
    found = foreign_array(both, "image")
    assert found.shape == ((4, 5, 3) if taken == "dlpack" else GOOD["shape"])
    assert len(both.streams) == (taken == "dlpack")


@pytest.mark.parametrize("strides", [None, ...], ids=["none", "absent"])
def test_without_strides_an_array_is_contiguous(strides: Any) -> None:
    found = foreign_array(Array(strides=strides, typestr="<f4"), "image")
    assert found.strides == np.empty((20, 30, 3), np.float32).strides
    assert found.is_contiguous
    assert found.stream is None
    assert not foreign_array(Array(strides=(96, 3, 1)), "image").is_contiguous


@pytest.mark.parametrize(
    "array",
    [
        np.arange(60, dtype=np.uint8).reshape(4, 5, 3),
        np.arange(60, dtype=np.float32).reshape(3, 20)[:, ::2],
        np.arange(6, dtype=np.uint8).reshape(2, 3)[:, ::-1],
    ],
    ids=["contiguous", "strided", "backwards"],
)
def test_dlpack_says_what_the_array_is(array: np.ndarray) -> None:
    exported = Exported(array, byte_offset=0)
    found = foreign_array(exported, "image")
    assert (found.pointer, found.shape, found.strides) == (array.ctypes.data, array.shape, array.strides)
    assert found.kind == f"{array.dtype.kind}{array.dtype.itemsize}"
    assert exported.streams == [1] == [found.stream]


def test_dlpack_adds_the_byte_offset_and_fills_in_missing_strides() -> None:
    array = np.arange(60, dtype=np.float32).reshape(4, 15)
    found = foreign_array(Exported(array, byte_offset=8, strides=None), "image")
    assert (found.pointer, found.strides) == (array.ctypes.data + 8, array.strides)


def test_dlpack_memory_lives_as_long_as_the_taken_array() -> None:
    import weakref

    class Tracked(np.ndarray):
        pass

    array = np.zeros((4, 5), np.uint8).view(Tracked)
    gone = weakref.ref(array)
    exported = Exported(array)
    found = foreign_array(exported, "image")
    exported.array = None  # the library lets go of it
    del array
    assert gone() is not None
    del found, exported
    assert gone() is None


class NeedsGradient:
    @property
    def __cuda_array_interface__(self) -> Any:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")


class Broken(Exported):
    def __dlpack__(self, stream: int | None = None) -> Any:
        raise BufferError("cannot export")


REFUSED = [
    (np.zeros((4, 4, 3), np.uint8), "host memory.*NumPy array goes to"),
    ([1, 2, 3], "got builtins.list"),
    (None, "got builtins.NoneType"),
    (NeedsGradient(), "requires grad"),
    (Exported(np.zeros(3, np.uint8), (10, 0)), "device type 10"),
    (Broken(np.zeros(3, np.uint8)), "does not export itself: cannot export"),
    (Exported(np.zeros(3, np.uint8), code=4), "type code 4"),
    (Exported(np.zeros(3, np.uint8), lanes=2), "plain numbers"),
    (Exported(np.zeros(3, np.uint8), bits=4), "4 bits"),
    (Array(data=...), "expected the keys of version 2 or 3.*data"),
    (Array(shape=...), "shape"),
    (Array(version=...), "version"),
    (Array(shape=("a", 2)), "expected the keys"),
    (Array(data=4096), "expected the keys"),
    (Array(version=1), "version 2 or 3, got 1"),
    (Array(mask=Array()), "masked array"),
    (Array(typestr=">f4"), "little-endian.*>f4"),
    (Array(typestr="|V3"), "V3"),
    (Array(strides=(3, 1)), "stride for each extent"),
    (Array(shape=(20, -1, 3)), "stride for each extent"),
    (Array(shape=(0, 30, 3)), "at least one element"),
    (Array(data=(0, False)), "null pointer"),
    (Array(stream=0), "stream 0"),
]


@pytest.mark.parametrize(("array", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_taken_is_named(array: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"(?s)^image: .*{message}"):
        foreign_array(array, "image")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (90, 3, 1)),
        ({"shape": (20, 30, 4)}, (120, 4, 1)),
        ({"shape": (20, 30)}, (30, 1, 0)),
        ({"shape": (20, 30, 1)}, (30, 1, 0)),
        ({"strides": (30, 1, 600)}, (30, 1, 600)),
        ({"strides": (-90, 3, 1)}, (-90, 3, 1)),
    ],
    ids=["rgb", "rgba", "grey", "one_channel", "planes", "upside_down"],
)
def test_images_are_read_where_they_are(changes: dict, expected: tuple) -> None:
    assert image_strides(foreign_array(Array(**changes), "image")) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"typestr": "<f4"}, r"type 'f4'; in \[0, 1\]"),
        ({"typestr": "<u2"}, "type 'u2'"),
        ({"typestr": "|b1"}, "type 'b1'"),
        ({"shape": (3, 20, 30)}, r"shape \(3, 20, 30\).*permute"),
        ({"shape": (20, 30, 2)}, r"shape \(20, 30, 2\)$"),
        ({"shape": (30,)}, r"shape \(30,\)$"),
        ({"shape": (1, 20, 30, 3)}, r"shape \(1, 20, 30, 3\)$"),
    ],
)
def test_other_arrays_are_no_images(changes: dict, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        image_strides(foreign_array(Array(**changes), "image"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"typestr": "<f4"}, "bool or uint8.*'f4'"),
        ({"shape": (30, 20)}, r"image's shape \(20, 30\), but got \(30, 20\)"),
        ({"strides": (32, 1)}, "C-contiguous.*strides"),
        ({"data": (4096, True)}, "read-only"),
    ],
)
def test_masks_go_only_where_they_fit(changes: dict, message: str) -> None:
    def target(**changes: Any) -> ForeignArray:
        return foreign_array(Array(**{"shape": (20, 30), **changes}), "out")

    check_mask_target(target(), (30, 20))
    check_mask_target(target(typestr="|b1"), (30, 20))
    with pytest.raises(InvalidInputError, match=message):
        check_mask_target(target(**changes), (30, 20))
