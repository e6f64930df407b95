"""The compiled kernels for a CUDA device beside this package, where there are any: found, and checked.

They are optional. What they do, the host or a bundle's graph does as well.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from ..errors import BackendError, BackendUnavailableError

_ABI = 6  # CLICKMASK_VIEW_ABI of the header that the bindings were written for
_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
_NAME = ("" if sys.platform == "win32" else "lib") + "clickmask_native_cuda" + _SUFFIX
_LIBRARY = Path(__file__).parents[1] / _NAME
_INSTALL = (
    "where nvcc is installed, in a checkout: cmake -S . -B build/native -DCLICKMASK_CUDA=ON && "
    "cmake --build build/native && cmake --install build/native --prefix sdk/clickmask --component cuda"
)
_FAILED = 1000  # from here on a status is a cudaError_t


def installed() -> Path:
    """Where the library is.

    Raises:
        BackendUnavailableError: there is none; the message says how to build it.
    """
    if not _LIBRARY.is_file():
        raise BackendUnavailableError(
            f"CUDA kernels: expected {_NAME} in {_LIBRARY.parent}, got none; {_INSTALL}"
        )
    return _LIBRARY


def load(path: Path) -> ctypes.CDLL:
    """A library, whose functions are yet to be declared.

    Raises:
        BackendUnavailableError: it does not load, or is of another version.
    """
    try:
        library = ctypes.CDLL(str(path))
        abi = library.clickmask_view_abi()
    except (OSError, AttributeError) as exc:
        raise BackendUnavailableError(f"{path} does not load: {exc}; build it again: {_INSTALL}") from exc
    if abi != _ABI:
        raise BackendUnavailableError(
            f"expected version {_ABI} of {path}, got {abi}; build it again: {_INSTALL}"
        )
    return library


def check(status: int, what: str, wanted: str) -> None:
    """Turn a function's status into an exception.

    Args:
        status: what it gave.
        what: it was for.
        wanted: what its arguments have to be.

    Raises:
        BackendError: it is not 0.
    """
    if status >= _FAILED:
        raise BackendError(f"{what}: a launch failed with CUDA error {status - _FAILED}")
    if status:
        raise BackendError(f"{what}: the kernels refused an argument ({status}): expected {wanted}")
