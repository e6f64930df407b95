"""Fused Pixel Diffusion on the CPU: the compiled library beside this package, where there is one.

It does what the graph's Pixel Diffusion does (CDNet, Eq. 5-8), in two steps, because the weights depend
on the image alone: an :class:`Affinity` for each crop, then :meth:`Affinity.diffuse` for each click. The
library is optional. Without it, or for options that it does not have, the graph form is the one to take.
"""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BackendUnavailableError, InvalidInputError
from .manifest import PixelDiffusionSpec
from .native_library import check, library

_MAX_DILATIONS, _MAX_DISTANCE = 8, 128
# The library's numbers for named choices; those of clickmask_native.h.
_CHOICES = {
    "click_map": ("disk", "gaussian"),
    "norm": ("tanh_half", "tanh_twice"),
    "affinity": ("paper", "official"),
    "deviation": ("unbiased_36", "biased_32"),
    "output": ("logits", "state"),
}
# Bounds of the library's numbers, in options.h; the manifest's reader bounds the others more tightly.
_RANGES = {"eps": (1e-12, 1.0), "click_map_size": (1e-3, 9999.0), "cutoff": (0.0, 1e6)}


@dataclass(frozen=True)
class DiffusionOptions:
    """Pixel Diffusion's settings: ``PixelDiffusionConfig`` of clickmask_models, in plain values.

    Attributes:
        iterations: Diffusion steps.
        dilations: Distances of the 8 neighbours, pixels.
        amplitude: What a click adds to the source.
        eps: Smallest divisor of the affinity.
        norm: "tanh_half" or "tanh_twice" (Eq. 6).
        click_map: "disk" or "gaussian".
        click_map_size: Radius or sigma, pixels.
        affinity: "paper" or "official" (Eq. 8).
        deviation: "unbiased_36" or "biased_32".
        output: "logits" or "state".
        cutoff: Confidences up to this are no source; None keeps all.
    """

    iterations: int
    dilations: tuple[int, ...]
    amplitude: float
    eps: float
    norm: str
    click_map: str
    click_map_size: float
    affinity: str
    deviation: str
    output: str
    cutoff: float | None = None

    @classmethod
    def from_spec(cls, spec: PixelDiffusionSpec) -> DiffusionOptions:
        """The settings that a manifest states.

        Raises:
            InvalidInputError: One is missing, of the wrong type, or unknown to the library; the graph form
                knows it.
        """
        named = {f.name: getattr(spec, f.name) for f in fields(spec) if f.name != "options"}
        known = {f.name for f in fields(cls)} - set(named)  # the manifest's own are no options
        unknown = sorted(set(spec.options) - known)
        missing = sorted(known - {"cutoff"} - set(spec.options))
        if unknown or missing:
            raise InvalidInputError(
                f"pixel_diffusion: expected the options of the native library, got unknown {unknown} and "
                f"missing {missing}; use the graph form."
            )
        for name, value in spec.options.items():
            kind, types = ("a string", str) if name in _CHOICES else ("a number", (int, float))
            if isinstance(value, bool) or not isinstance(value, types):
                raise InvalidInputError(
                    f"pixel_diffusion: expected {kind} as {name}, got {value!r}; use the graph form."
                )
        values: dict[str, Any] = {**named, **spec.options}
        return cls(**values)

    def problem(self) -> str | None:
        """Why the library cannot do this, or None; the graph form then is the way."""
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                return f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}"
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                return f"{name}: expected a number from {low:g} to {high:g}, got {value:g}"
        near = all(1 <= d <= _MAX_DISTANCE for d in self.dilations)
        if not near or not 1 <= len(self.dilations) <= _MAX_DILATIONS:
            return (
                f"dilations: expected 1 to {_MAX_DILATIONS} distances up to {_MAX_DISTANCE} pixels, "
                f"got {self.dilations}"
            )
        return None


class _Options(ctypes.Structure):
    """clickmask_diffusion_options."""

    _fields_ = (
        ("iterations", ctypes.c_int32),
        ("dilation_count", ctypes.c_int32),
        ("dilations", ctypes.c_int32 * _MAX_DILATIONS),
        ("amplitude", ctypes.c_float),
        ("click_map", ctypes.c_int32),
        ("click_map_size", ctypes.c_float),
        ("cutoff", ctypes.c_float),
        ("norm", ctypes.c_int32),
        ("affinity", ctypes.c_int32),
        ("deviation", ctypes.c_int32),
        ("eps", ctypes.c_float),
        ("output", ctypes.c_int32),
    )


class Affinity:
    """The weights of one crop. Safe to use from many threads at once; calls let other Python threads run.

    Attributes:
        options: The settings it was made for.
        bytes: Memory it holds.
    """

    def __init__(
        self,
        image: NDArray[np.float32],
        options: DiffusionOptions,
        threads: int | None = None,
        instruction_set: str | None = None,
    ) -> None:
        """Weigh the neighbours of every pixel (Eq. 8).

        Args:
            image: (3, H, W) float32 RGB in [0, 1], as the network sees it, padding included.
            options: The settings.
            threads: None for the cores that this process may use.
            instruction_set: One of `native_library.instruction_sets`; None for the best. Results differ in
                rounding.

        Raises:
            BackendUnavailableError: There is no library, or it cannot do this.
            InvalidInputError: An array of the wrong shape or dtype.
        """
        if image.ndim != 3 or image.shape[0] != 3 or image.dtype != np.float32 or not image.size:
            raise InvalidInputError(
                f"image: expected (3, H, W) float32, got {image.shape} {image.dtype}; convert it."
            )
        native = library()
        if problem := options.problem():
            raise BackendUnavailableError(f"native Pixel Diffusion: {problem}; use the graph form.")
        image = np.ascontiguousarray(image)
        self.options, self._shape, self._handle = options, image.shape[1:], ctypes.c_void_p()
        check(
            native.clickmask_affinity_create(
                ctypes.byref(as_struct(options)),
                image.ctypes.data,
                *self._shape,
                threads or 0,
                instruction_set.encode() if instruction_set else None,
                ctypes.byref(self._handle),
            )
        )
        self._free = weakref.finalize(self, native.clickmask_affinity_free, self._handle)
        self._free.atexit = False  # a daemon thread may be in a call on it when the process ends
        self.bytes: int = native.clickmask_affinity_bytes(self._handle)

    def diffuse(
        self,
        logits: NDArray[np.float32],
        clicks: NDArray[np.float32],
        threads: int | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Refine the logits of a network (Eq. 5-7).

        Args:
            logits: (H, W) float32, finite.
            clicks: (M, 3) float32 rows (x, y, label), pixels of the image; 1 positive, 0 negative, -1 absent.
            threads: None for the cores that this process may use.
            out: (H, W) float32, C-contiguous, to write to; None for a new array.

        Returns:
            (H, W) float32; the mask is where it is above 0.

        Raises:
            InvalidInputError: An array of the wrong shape or dtype.
            BackendError: A logit is NaN or infinite.
            BackendUnavailableError: There is not enough memory.
        """
        if logits.shape != self._shape or logits.dtype != np.float32:
            raise InvalidInputError(
                f"logits: expected {self._shape} float32, as the image, got {logits.shape} {logits.dtype}."
            )
        if clicks.ndim != 2 or clicks.shape[1] != 3 or clicks.dtype != np.float32:
            raise InvalidInputError(f"clicks: expected (M, 3) float32, got {clicks.shape} {clicks.dtype}.")
        if out is not None and not (
            out.shape == self._shape and out.dtype == np.float32 and out.flags.carray
        ):
            raise InvalidInputError(
                f"out: expected {self._shape} float32, C-contiguous, got {out.shape} {out.dtype}."
            )
        logits, clicks = np.ascontiguousarray(logits), np.ascontiguousarray(clicks)
        result = np.empty(self._shape, np.float32) if out is None else out
        check(
            library().clickmask_diffuse(
                self._handle,
                logits.ctypes.data,
                clicks.ctypes.data,
                len(clicks),
                threads or 0,
                result.ctypes.data,
            )
        )
        return result


def as_struct(options: DiffusionOptions) -> _Options:
    """Settings without a ``problem``, as the libraries take them."""
    struct = _Options(
        iterations=options.iterations,
        dilation_count=len(options.dilations),
        amplitude=options.amplitude,
        click_map_size=options.click_map_size,
        cutoff=-1.0 if options.cutoff is None else options.cutoff,
        eps=options.eps,
        **{name: allowed.index(getattr(options, name)) for name, allowed in _CHOICES.items()},
    )
    struct.dilations[: len(options.dilations)] = options.dilations
    return struct
