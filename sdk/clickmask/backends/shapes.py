"""Arrays against the manifest's tensor specifications: symbols B, M and S are bound as they are met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..manifest import GraphSpec, InputSpec, TensorSpec
from .cuda_memory import DeviceArray


def checked_input(
    spec: TensorSpec, array: Any, dims: dict[str, int], limits: InputSpec, on_device: bool = False
) -> Any:
    """A caller's array, C-contiguous, when it is what the manifest says; binds its symbols in ``dims``.

    Args:
        spec: What the manifest says.
        array: A NumPy array.
        dims: Symbols bound so far.
        limits: The manifest's.
        on_device: Whether it may be a ``DeviceArray``, too.

    Raises:
        InvalidInputError: Not an array, or of another shape or dtype, or larger than the manifest allows.
    """
    stays = on_device and isinstance(array, DeviceArray)
    if not stays and not isinstance(array, np.ndarray):
        raise InvalidInputError(f"{spec.name}: expected a NumPy array, got {type(array).__name__}.")
    if problem := mismatch(spec, array, dims):
        raise InvalidInputError(problem)
    if dims["S"] not in limits.sizes or dims["B"] < 1 or not 1 <= dims.get("M", 1) <= limits.max_clicks:
        wanted = f"S in {list(limits.sizes)}, B >= 1, 1 <= M <= {limits.max_clicks}"
        raise InvalidInputError(f"{spec.name}: expected {wanted}, got shape {list(array.shape)}.")
    return array if stays else np.ascontiguousarray(array)


def mismatch(spec: TensorSpec, array: Any, dims: dict[str, int]) -> str | None:
    """What is wrong with an array, if anything; symbols met for the first time are bound in ``dims``."""
    shape = list(map(int, array.shape))
    expected = [_dimension(want, got, dims) for want, got in zip(spec.shape, shape, strict=False)]
    fits = shape == expected and len(shape) == len(spec.shape)
    if fits and array.dtype == spec.dtype:  # NumPy takes its time to name a dtype
        return None
    dtype = str(array.dtype).removeprefix("torch.")
    if fits and dtype == spec.dtype:
        return None
    known = ", ".join(f"{symbol} = {n}" for symbol, n in sorted(dims.items()))
    wanted = f"{spec.dtype} {list(spec.shape)}" + (f" with {known}" if known else "")
    return f"{spec.name}: expected {wanted}, got {dtype} {shape}."


def _dimension(want: int | str, got: int, dims: dict[str, int]) -> int:
    if isinstance(want, int):
        return want
    symbol, _, divisor = want.partition("/")
    return dims[symbol] // int(divisor) if divisor else dims.setdefault(symbol, got)


def extents(specs: tuple[TensorSpec, ...], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """B, M and S of arrays that fit their specifications, as far as these name them."""
    found: dict[str, int] = {}
    for spec in specs:
        for want, got in zip(spec.shape, shapes[spec.name], strict=True):
            if isinstance(want, str):
                symbol, _, divisor = want.partition("/")
                found[symbol] = got * int(divisor or 1)
    return found


def named_extents(graph: GraphSpec, dims: Mapping[str, int]) -> dict[str, int]:
    """What a graph's symbolic extents are, by name ("S/4"), where `dims` binds their symbols."""
    extents = (extent for spec in (*graph.inputs, *graph.outputs) for extent in spec.shape)
    names = {extent for extent in extents if isinstance(extent, str) and extent.partition("/")[0] in dims}
    return {name: _dimension(name, 0, dict(dims)) for name in names}
