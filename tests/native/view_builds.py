"""Fresh builds of the kernels between an image and the network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from clickmask.backends.device_kernels import ViewKernels


def build(folder: Path, source: Path, target: str, tools: tuple[str, ...], *settings: str) -> ViewKernels:
    """Builds a CMake target without a warning, and loads it; skips where a tool is missing."""
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} to build the kernels")
    for command in (
        ["cmake", "-S", str(source), "-B", str(folder), *settings],
        ["cmake", "--build", str(folder), "--target", target],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stdout + done.stderr
    (path,) = (path for path in folder.rglob(f"*{target}.*") if path.suffix in (".so", ".dll", ".dylib"))
    return ViewKernels(path)


def on_processor(root: Path, folder: Path) -> ViewKernels:
    """The arithmetic for the processor, where an address is one of host memory."""
    return build(folder, root / "sdk/native/cuda/on_host", "clickmask_view_on_host", ("cmake", "c++"))


def on_cuda(root: Path, folder: Path) -> ViewKernels:
    """The CUDA library of a checkout."""
    settings = ("-DCLICKMASK_CUDA=ON", "-DCLICKMASK_TESTS=OFF")
    return build(folder, root, "clickmask_native_cuda", ("cmake", "nvcc"), *settings)
