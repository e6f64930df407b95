"""The compiled library beside this package, where there is one: found, checked, its signatures declared.

It is optional. What it does, slower code in Python or in a graph does as well.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

from .errors import BackendError, BackendUnavailableError

_ABI = 7  # CLICKMASK_ABI of the header that this file was written for
_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
_NAME = ("" if sys.platform == "win32" else "lib") + "clickmask_native" + _SUFFIX
_LIBRARY = os.path.join(os.path.dirname(__file__), _NAME)  # pathlib would take its share of the import
_NOT_FINITE = 4
_PROBLEMS = {
    1: "an argument of the wrong kind or size",
    2: "options or an instruction set that it does not have",
    3: "not enough memory",
}


class Canvas(ctypes.Structure):
    """clickmask_canvas."""

    _fields_ = (
        ("pixels", ctypes.c_void_p),
        ("stride", ctypes.c_ssize_t),
        *((name, ctypes.c_int32) for name in ("height", "width", "top", "left", "clear")),
    )


def available() -> bool:
    """Whether the library is there and fits this version; `unavailable_because` says why not."""
    return unavailable_because() is None


@functools.cache
def unavailable_because() -> str | None:
    """Why the library cannot be used, and what to do; None where it can."""
    try:
        library()
    except BackendUnavailableError as exc:
        return str(exc)
    return None


def instruction_sets() -> tuple[str, ...]:
    """What this machine can run, best first: of "avx512", "avx2", "neon" and "portable".

    Raises:
        BackendUnavailableError: There is no library.
    """
    names: bytes = library().clickmask_instruction_sets()
    return tuple(names.decode().split(","))


def check(status: int) -> None:
    """Turn the library's status into an exception.

    Raises:
        BackendError: Logits were not finite.
        BackendUnavailableError: It cannot do what it was asked for.
    """
    if status == _NOT_FINITE:
        raise BackendError("native Pixel Diffusion: expected finite logits, got NaN or infinity.")
    if status:
        raise BackendUnavailableError(f"native library: {_PROBLEMS.get(status, status)}.")


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        BackendUnavailableError: There is none, or one of another version.
    """
    if not os.path.isfile(_LIBRARY):
        raise BackendUnavailableError(
            f"native library: expected {_LIBRARY}, got no such file; where cmake "
            "and a C++ compiler are installed, installing clickmask from source builds it."
        )
    try:
        loaded = ctypes.CDLL(_LIBRARY)
        abi = loaded.clickmask_abi()
    except (OSError, AttributeError) as exc:
        raise BackendUnavailableError(
            f"native library: {_LIBRARY} does not load: {exc}; reinstall clickmask."
        ) from exc
    if abi != _ABI:
        raise BackendUnavailableError(
            f"native library: expected version {_ABI} of {_LIBRARY}, got {abi}; reinstall clickmask."
        )
    _declare(loaded)
    return loaded


def _declare(library: ctypes.CDLL) -> None:
    """The signatures of clickmask_native.h and clickmask_pixels.h."""
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    step, real, precise = ctypes.c_ssize_t, ctypes.c_float, ctypes.c_double
    library.clickmask_instruction_sets.restype = text
    library.clickmask_affinity_bytes.restype = ctypes.c_size_t
    library.clickmask_affinity_free.restype = library.clickmask_runs_free.restype = None
    for name, arguments in {
        "affinity_create": (pointer, pointer, number, number, number, text, pointer),
        "diffuse": (pointer, pointer, pointer, number, number, pointer),
        "affinity_bytes": (pointer,),
        "affinity_free": (pointer,),
        "area_mean": (pointer, step, *[number] * 5, text, pointer, step, step),
        "sigmoid": (pointer, step, number, number, pointer, step),
        "value_runs": (
            *(pointer, step, number, number, real, precise, precise, precise),
            *(number, number, number, pointer, pointer, pointer),
        ),
        "lerp": (pointer, number, number, pointer, number, pointer, number, text, pointer, step),
        "blend": (*(pointer, step) * 2, number, number, *[pointer] * 4, text),
        "mask_runs": (pointer, step, number, number, number, pointer, pointer),
        "runs_free": (pointer,),
        "outlines": (pointer, number, number, *[pointer] * 4),
    }.items():
        getattr(library, f"clickmask_{name}").argtypes = arguments
