"""What a machine has for CUDA and TensorRT, found without importing either.

The driver is asked itself, through ctypes, and packages are looked up by their metadata: a runtime that is
imported where it does not belong can end the process.
"""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from typing import Any

from .host import cuda_driver, installed

_COMPUTE_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """A CUDA device: its name and compute capability, such as ``(9, 0)``, as the driver gives them."""

    name: str
    compute_capability: tuple[int, int]


@dataclass(frozen=True)
class Package:
    """An installed distribution of a runtime: its name, such as "tensorrt-cu13", and version."""

    name: str
    version: str


@dataclass(frozen=True)
class HostFacts:
    """What decides whether a plan loads.

    Attributes:
        platform: As ``host_platform`` gives it.
        cuda: Newest CUDA that the driver serves, such as ``(13, 0)``; None without a driver.
        gpus: Devices in the driver's order.
        tensorrt: The full TensorRT; None where it is not installed.
        tensorrt_lean: The lean runtime; None where it is not installed.
        cuda_bindings: Version of cuda-python's bindings; None where they are not installed.
        foreign_context: Whether this thread's CUDA context is not the device's primary one.
    """

    platform: str
    cuda: tuple[int, int] | None
    gpus: tuple[Gpu, ...]
    tensorrt: Package | None
    tensorrt_lean: Package | None
    cuda_bindings: str | None
    foreign_context: bool = False


def host_platform() -> str:
    """System and machine in lower case: "linux x86_64", "windows amd64"."""
    return f"{platform.system()} {platform.machine()}".lower()


def host_facts() -> HostFacts:
    """Look at this machine and, for ``foreign_context``, at this thread."""
    driver = cuda_driver()
    return HostFacts(
        platform=host_platform(),
        cuda=_cuda_version(driver),
        gpus=_gpus(driver),
        tensorrt=_package("tensorrt-cu13", "tensorrt-cu12", "tensorrt"),
        tensorrt_lean=_package("tensorrt-lean-cu13", "tensorrt-lean-cu12", "tensorrt-lean"),
        cuda_bindings=installed("cuda-bindings") or installed("cuda-python"),
        foreign_context=_has_foreign_context(driver),
    )


def _package(*names: str) -> Package | None:
    return next((Package(name, version) for name in names if (version := installed(name))), None)


def _cuda_version(driver: Any) -> tuple[int, int] | None:
    number = ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return number.value // 1000, number.value % 1000 // 10


def _gpus(driver: Any) -> tuple[Gpu, ...]:
    count = ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_gpu(driver, index) for index in range(count.value))


def _gpu(driver: Any, index: int) -> Gpu:
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    major, minor = (_attribute(driver, number, device) for number in _COMPUTE_CAPABILITY)
    return Gpu(name.value.decode(errors="replace"), (major, minor))


def _attribute(driver: Any, number: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int(0)
    driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return value.value


def _has_foreign_context(driver: Any) -> bool:
    """Whether this thread has a context that is not its device's primary one, as pycuda.autoinit makes."""
    context = ctypes.c_void_p(None)
    if driver is None or driver.cuCtxGetCurrent(ctypes.byref(context)) != 0 or not context.value:
        return False
    device, flags, active = ctypes.c_int(0), ctypes.c_uint(0), ctypes.c_int(0)
    driver.cuCtxGetDevice(ctypes.byref(device))
    driver.cuDevicePrimaryCtxGetState(device, ctypes.byref(flags), ctypes.byref(active))
    if not active.value:
        return True
    primary = ctypes.c_void_p(None)
    driver.cuDevicePrimaryCtxRetain(ctypes.byref(primary), device)
    driver.cuDevicePrimaryCtxRelease_v2(device)
    return primary.value != context.value
