"""Masks: what is one, its bounding box and COCO's run lengths. `outlines` has its polygons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError

Mask = NDArray[np.bool_]

_BAND_PIXELS = 1 << 20  # columns are laid end to end in bands of this many, never all at once


class Rle(TypedDict):
    """COCO run lengths. size: [height, width]; counts: the compressed string, or the list of run lengths.

    Runs go down the columns, left to right, and alternate background, object, beginning with background.
    """

    size: list[int]
    counts: str | list[int]


def as_mask(mask: NDArray[Any], image_size: tuple[int, int] | None = None) -> Mask:
    """Check a mask.

    Args:
        mask: (H, W), bool, or uint8 where every value is 0 or 1, or every value 0 or 255.
        image_size: (width, height) that it must have, if any.

    Returns:
        (H, W) bool, C-contiguous; the same memory where it already is so.

    Raises:
        InvalidInputError: another type, dtype, shape or value.
    """
    if not isinstance(mask, np.ndarray) or mask.ndim != 2:
        came = f"shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise InvalidInputError(f"mask must be a NumPy array of shape (H, W), but got {came}")
    if mask.size == 0:
        raise InvalidInputError(f"mask must have at least one pixel, but got shape {mask.shape}")
    if image_size is not None and mask.shape != image_size[::-1]:
        raise InvalidInputError(f"mask must have the image's shape {image_size[::-1]}, but got {mask.shape}")
    if mask.dtype == np.uint8:
        top = int(mask.max(initial=0))
        if top in (0, 1, 255) and not np.any((mask != 0) & (mask != top)):
            mask = mask != 0
    if mask.dtype != np.bool_:
        raise InvalidInputError(
            f"mask must be bool, or uint8 of 0 and 1 or of 0 and 255, but got {mask.dtype}"
            f"{' with other values' if mask.dtype == np.uint8 else ''}; "
            "convert labels or probabilities with a comparison, for example mask > 0.5"
        )
    return np.ascontiguousarray(mask)


def mask_box(mask: Mask) -> tuple[int, int, int, int] | None:
    """Tight half-open box (x0, y0, x1, y1) of an (H, W) bool mask; None where it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))  # several times quicker than cv2.boundingRect
    if not rows.size:
        return None
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[y0:y1].any(axis=0))
    return int(columns[0]), y0, int(columns[-1]) + 1, y1


def rle(mask: Mask, compressed: bool = True) -> Rle:
    """COCO run lengths of a mask, exact.

    Args:
        mask: (H, W) bool.
        compressed: counts as COCO's string (as pycocotools writes it, decoded to str) or as a list of int.

    Returns:
        {"size": [H, W], "counts": ...}, ready for JSON.
    """
    mask = as_mask(mask)
    bounds = _column_runs(mask)
    # background comes first, of length 0 if need be; a last run of length 0 is not written
    last = [] if bounds.size and bounds[-1] == mask.size else [mask.size]
    bounds = np.concatenate([[0], bounds, last]).astype(np.int64)
    counts = bounds[1:] - bounds[:-1]
    size = [int(mask.shape[0]), int(mask.shape[1])]
    return {"size": size, "counts": _compress(counts) if compressed else counts.tolist()}


def _column_runs(mask: Mask) -> NDArray[np.int64]:
    """Where object begins, ends, begins ... in the columns of a mask laid end to end; a look at its box."""
    box = mask_box(mask)
    if box is None:
        return np.zeros(0, np.int64)
    x0, y0, x1, y1 = box
    step = max(1, _BAND_PIXELS // (y1 - y0))
    bands = [(first, min(first + step, x1)) for first in range(x0, x1, step)]
    bounds = np.concatenate([_band_runs(mask, first, last, y0, y1) for first, last in bands])
    touches = np.flatnonzero(bounds[1:-1:2] == bounds[2::2])  # a run to the bottom that goes on at the top
    return np.delete(bounds, np.concatenate([2 * touches + 1, 2 * touches + 2]))


def _band_runs(mask: Mask, x0: int, x1: int, y0: int, y1: int) -> NDArray[np.int64]:
    """Those of some columns, where no run leaves rows y0 .. y1 - 1; one that fills a column ends with it."""
    tall = y1 - y0 + 1  # with a pixel of background below each column, so that no run leaves it
    columns = np.zeros((x1 - x0, tall), np.uint8)
    cv2.transpose(mask[y0:y1, x0:x1].view(np.uint8), dst=columns[:, :-1])
    cv2.threshold(columns, 0, 1, cv2.THRESH_BINARY, columns)  # an array seen as bool may hold other bytes
    flat = columns.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    column, row = np.divmod(np.concatenate([[0], edges]) if flat[0] else edges, tall)
    bounds: NDArray[np.int64] = (x0 + column) * mask.shape[0] + y0 + row
    return bounds


def rle_decode(encoded: Rle | Mapping[str, Any]) -> Mask:
    """The mask of COCO run lengths.

    Args:
        encoded: {"size": [H, W], "counts": compressed str or bytes, or list of int}.

    Returns:
        (H, W) bool.

    Raises:
        InvalidInputError: another structure, runs that do not add up to H * W, or too many for memory.
    """
    try:
        height, width = (_length(side) for side in encoded["size"])
        counts = encoded["counts"]
        if isinstance(counts, (str, bytes, bytearray)):
            runs = _decompress(counts.encode("ascii") if isinstance(counts, str) else bytes(counts))
        else:
            runs = np.array([_length(run) for run in counts], np.int64)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f'run lengths must be {{"size": [height, width], "counts": COCO string or list}}; {error}'
        ) from error
    if (
        height * width == 0
        or (runs < 0).any()
        or (runs > height * width).any()
        or int(runs.sum()) != height * width
    ):
        raise InvalidInputError(
            f"run lengths must be >= 0 and add up to {height} x {width} = {height * width} pixels, "
            f"but they add up to {int(runs.sum())}; the counts do not belong to this size"
        )
    try:
        mask, ends = np.empty((height, width), np.bool_), np.cumsum(runs)
    except MemoryError as error:
        raise InvalidInputError(f"run lengths must be of a mask that memory holds; {error}") from error
    step = max(1, _BAND_PIXELS // height)
    for first in range(0, width, step):
        start, end = first * height, min(first + step, width) * height
        bounds = np.clip(np.concatenate([[0], ends]), start, end)  # most runs have nothing of the band
        some = np.flatnonzero(np.diff(bounds))
        flat = np.repeat((some % 2).astype(np.uint8), np.diff(bounds)[some])
        cv2.transpose(flat.reshape(-1, height), dst=mask[:, first : first + step].view(np.uint8))
    return mask


def _length(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < 2**31:
        raise ValueError(f"expected a length in pixels, got {value!r}")
    return int(value)


def _compress(counts: NDArray[np.int64]) -> str:
    """COCO's string: each run, from the fourth on minus the one two before, in groups of five bits.

    Low groups come first. A character is 48 + the five bits + 32 if more follow; the last group's top bit is
    the sign.
    """
    delta = counts.copy()
    delta[3:] -= counts[1:-2]
    rows: list[NDArray[np.int64]] = []
    more = np.ones(delta.shape, np.bool_)
    while more.any():
        group, rest = delta & 0x1F, delta >> 5
        ended = rest == np.where(group & 0x10, -1, 0)
        rows.append(np.where(more, group + 48 + 32 * ~ended, -1))
        more, delta = more & ~ended, rest
    characters = np.stack(rows, axis=1).ravel()
    return characters[characters >= 0].astype(np.uint8).tobytes().decode("ascii")


def _decompress(text: bytes) -> NDArray[np.int64]:
    """The inverse of `_compress`."""
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if codes.size == 0 or codes.min() < 0 or codes.max() > 63 or codes[-1] & 0x20:
        raise ValueError("the counts string is empty, cut short or holds characters that COCO does not use")
    last = np.flatnonzero((codes & 0x20) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(codes.size) - np.repeat(first, last - first + 1)
    if place.max() > 7:
        raise ValueError("the counts string holds a number of more than 40 bits")
    delta = np.add.reduceat((codes & 0x1F) << (5 * place), first)
    delta -= np.where(codes[last] & 0x10, np.int64(1) << (5 * (place[last] + 1)), 0)
    for start in (1, 2):  # each run from the fourth on was stored as its difference from two before
        delta[start::2] = np.cumsum(delta[start::2])
    return delta
