"""Masks in the formats of COCO: run lengths, polygons, bounding box.

Pixel coordinates here are COCO's, where pixel (0, 0) covers [0, 1) x [0, 1): polygons run along pixel edges,
so their corners are whole numbers, and filling them gives the mask back exactly. A click, whose coordinates
have pixel *centres* at whole numbers, lies at (x + 0.5, y + 0.5) in this frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError

Mask = NDArray[np.bool_]
Ring = NDArray[np.int32]


class Rle(TypedDict):
    """COCO run lengths. size: [height, width]; counts: the compressed string, or the list of run lengths.

    Runs go down the columns, left to right, and alternate background, object, beginning with background.
    """

    size: list[int]
    counts: str | list[int]


class Region(NamedTuple):
    """One 4-connected piece of a mask.

    Attributes:
        outer: (N, 2) int32 corners (x, y) along pixel edges, clockwise on screen, not closed.
        holes: rings of the same form, counter-clockwise.
    """

    outer: Ring
    holes: list[Ring]


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
            f"mask must be bool, or uint8 of 0 and 1 or of 0 and 255, but got {mask.dtype} with others; "
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


def bbox(mask: Mask) -> list[int]:
    """COCO bounding box [x, y, width, height] of an (H, W) bool mask; [0, 0, 0, 0] where it is empty."""
    box = mask_box(as_mask(mask))
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]] if box else [0, 0, 0, 0]


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
    (x0, y0, x1, y1), height = box, mask.shape[0]
    tall = y1 - y0 + 1  # with a pixel of background below each column, so that no run leaves it
    columns = np.zeros((x1 - x0, tall), np.uint8)
    cv2.transpose(mask[y0:y1, x0:x1].view(np.uint8), dst=columns[:, :-1])
    flat = columns.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    column, row = np.divmod(np.concatenate([[0], edges]) if flat[0] else edges, tall)
    bounds = (x0 + column) * height + y0 + row
    touches = np.flatnonzero(bounds[1:-1:2] == bounds[2::2])  # a run to the bottom that goes on at the top
    return np.delete(bounds, np.concatenate([2 * touches + 1, 2 * touches + 2]))


def rle_decode(encoded: Rle | Mapping[str, Any]) -> Mask:
    """The mask of COCO run lengths.

    Args:
        encoded: {"size": [H, W], "counts": compressed str or bytes, or list of int}.

    Returns:
        (H, W) bool.

    Raises:
        InvalidInputError: another structure, or runs that do not add up to H * W.
    """
    try:
        height, width = (_length(side) for side in encoded["size"])
        counts = encoded["counts"]
        if isinstance(counts, (str, bytes)):
            runs = _decompress(counts.encode("ascii") if isinstance(counts, str) else counts)
        else:
            runs = np.array([_length(run) for run in counts], np.int64)
    except (KeyError, TypeError, ValueError) as error:
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
    flat = np.repeat((np.arange(runs.size) % 2).astype(np.uint8), runs)
    return np.asarray(cv2.transpose(flat.reshape(width, height))).view(np.bool_)


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


def polygons(mask: Mask) -> list[list[float]]:
    """COCO `segmentation` of a mask: one flat [x0, y0, x1, y1, ...] per 4-connected piece.

    The format has no holes: each polygon is an outer outline, and filling it fills the holes as well. Use
    `regions` to keep them, or `rle`, which COCO itself reads for such objects.

    Args:
        mask: (H, W) bool.

    Returns:
        Outlines along pixel edges (COCO frame: pixel (0, 0) covers [0, 1) x [0, 1)); [] for an empty mask.
    """
    rings, _ = _outlines(as_mask(mask))
    return [ring.astype(float).ravel().tolist() for ring in rings]


def regions(mask: Mask) -> list[Region]:
    """The outlines of a mask, exactly: outer rings with their holes.

    Pieces that meet at a corner only are apart (4-connected), so no ring crosses itself.

    Args:
        mask: (H, W) bool.

    Returns:
        Regions in the order of their top row; [] for an empty mask. Filling the outer rings by the even-odd
        rule and taking the holes out gives the mask back exactly.
    """
    mask = as_mask(mask)
    outer, inner = _outlines(mask)
    if not inner:
        return [Region(ring, []) for ring in outer]
    labels: NDArray[Any] = cv2.connectedComponents(mask.view(np.uint8), connectivity=4)[1]
    holes: dict[int, list[Ring]] = {}
    for ring in inner:  # the object is to the left of a hole's top left corner
        x, y = ring[0]
        holes.setdefault(int(labels[y, x - 1]), []).append(ring)
    # and below and to the right of an outer ring's
    return [Region(ring, holes.get(int(labels[ring[0, 1], ring[0, 0]]), [])) for ring in outer]


def _outlines(mask: Mask) -> tuple[list[Ring], list[Ring]]:
    """The outer rings of a mask and the rings of its holes, each from its top left corner.

    With the object on its right hand, an outer ring leaves that corner to the right, a hole's ring downwards.
    """
    box = mask_box(mask)
    if box is None:
        return [], []
    x0, y0, x1, y1 = box
    outer: list[Ring] = []
    holes: list[Ring] = []
    for ring in _rings(mask[y0:y1, x0:x1], np.array([x0, y0], np.int32)):
        (outer if ring[1, 0] > ring[0, 0] else holes).append(ring)
    return outer, holes


# Around a corner of the pixel grid lie four pixels: code = NW + 2 NE + 4 SW + 8 SE. An outline that turns
# there has a horizontal arm (-1 left, 1 right; 0 is no turn) and a vertical one (-1 up, 1 down), and leaves
# along one of them with the object on its right hand. Pixels that face each other diagonally make two turns.
_HORIZONTAL = np.array([0, -1, 1, 0, -1, 0, 1, 1, 1, -1, 0, -1, 0, 1, -1, 0], np.int8)
_VERTICAL = np.array([0, -1, -1, 0, 1, 0, -1, 1, 1, -1, 0, 1, 0, -1, -1, 0], np.int8)
_LEAVES_FLAT = np.array([0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 0, 1, 0, 0], np.bool_)
_CROSSING = (6, 9)  # their second turn is the first one mirrored in the corner, leaving along the same axis


def _rings(mask: Mask, offset: Ring) -> list[Ring]:
    """All outlines along pixel edges, each from its top left corner, in raster order, plus `offset`."""
    y, x, code = _turns(mask)
    crossing = np.isin(code, _CROSSING)
    horizontal, vertical = _HORIZONTAL[code], _VERTICAL[code]
    horizontal = np.concatenate([horizontal, -horizontal[crossing]])
    vertical = np.concatenate([vertical, -vertical[crossing]])
    flat = np.concatenate([_LEAVES_FLAT[code], _LEAVES_FLAT[code[crossing]]])
    x, y = np.concatenate([x, x[crossing]]), np.concatenate([y, y[crossing]])
    # along a grid line the corners pair up: an edge starts at every other one
    raster = np.lexsort((horizontal, x, y))
    following = np.where(flat, _pairs(raster), _pairs(np.lexsort((vertical, y, x))))
    corners = np.stack([x, y], axis=1).astype(np.int32) + offset
    return [corners[ring] for ring in _cycles(following.tolist(), raster.tolist())]


def _turns(mask: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]:
    """Row, column and code of the corners of the pixel grid where an outline turns, in raster order."""
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), np.uint8)
    padded[1:-1, 1:-1] = mask
    flat, stride = padded.reshape(-1), width + 2
    # an outline that turns at a corner has an upright piece above or below it; there are few of those
    upright = np.flatnonzero(flat[1:] != flat[:-1])
    corner = np.unique(np.concatenate([upright - stride, upright]))
    code = flat[corner] | flat[corner + 1] << 1 | flat[corner + stride] << 2 | flat[corner + stride + 1] << 3
    turns = _HORIZONTAL[code] != 0
    y, x = np.divmod(corner[turns], stride)
    return y, x, code[turns]


def _pairs(order: NDArray[np.intp]) -> NDArray[np.intp]:
    partner = np.empty_like(order)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner


def _cycles(following: list[int], starts: list[int]) -> list[list[int]]:
    """The cycles of a permutation, each from its first element in `starts`."""
    seen = bytearray(len(following))
    cycles = []
    for start in starts:
        if seen[start]:
            continue
        cycle, at = [], start
        while not seen[at]:
            seen[at] = 1
            cycle.append(at)
            at = following[at]
        cycles.append(cycle)
    return cycles
