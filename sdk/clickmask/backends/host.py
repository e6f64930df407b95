"""What this machine offers, asked without importing any inference runtime."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "torch", "tensorrt")


def installed(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    import importlib.metadata  # 20 ms of modules for e-mail and zip files, seldom needed

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def summary() -> str:
    """One line for messages: the installed runtimes and the number of CUDA devices."""
    found = [f"{name} {version}" for name in _RUNTIMES if (version := installed(name))]
    return f"{', '.join(found) or 'no inference runtime'}; {cuda_devices()} CUDA device(s)"


def location(module: ModuleType) -> str:
    """Where an imported module came from, for messages; an empty namespace has folders and no file."""
    return getattr(module, "__file__", None) or ", ".join(getattr(module, "__path__", ())) or "no file"


def split_device(device: str) -> tuple[str, int]:
    """Kind and index of a device: ``"cuda:1"`` to ``("cuda", 1)``; without an index 0."""
    kind, _, index = device.partition(":")
    return kind, int(index or 0)


def cuda_devices() -> int:
    """CUDA devices that the driver offers; 0 without a driver.

    Asked of the driver itself: importing a runtime to find that there is no GPU costs seconds and memory.
    """
    driver, count = cuda_driver(), ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def cuda_driver() -> Any:
    """The CUDA driver's library after ``cuInit``; None where there is none or it has no device to offer."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None


def physical_cores() -> int:
    """Physical cores this process may use: its affinity and a container's CPU quota respected, at least 1.

    Hyper-threads share the vector units that convolutions saturate, so counting them as cores makes a network
    slower.
    """
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # not on macOS and Windows
        return max(1, (os.cpu_count() or 2) // 2)
    siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    cores = {_text(siblings.format(cpu)) or str(cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota() or len(cores)))


def _quota() -> int | None:
    quota, _, period = _text("/sys/fs/cgroup/cpu.max").partition(" ")
    return max(1, int(quota) // int(period)) if quota.isdigit() and period.isdigit() else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
