"""The outlines of a mask: COCO's polygons, and regions with their holes.

Pixel coordinates here are COCO's, where pixel (0, 0) covers [0, 1) x [0, 1): outlines run along pixel edges,
so their corners are whole numbers, and filling them gives the mask back exactly. A click, whose coordinates
have pixel *centres* at whole numbers, lies at (x + 0.5, y + 0.5) in this frame.
"""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Iterator
from itertools import compress, count, pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from . import native_library
from .errors import InvalidInputError
from .mask import Mask, as_mask, mask_box
from .native_pixels import Runs
from .view import Box

Ring = NDArray[np.int32]


class Region(NamedTuple):
    """One 4-connected piece of a mask.

    Attributes:
        outer: (N, 2) int32 corners (x, y) along pixel edges, clockwise on screen, not closed.
        holes: rings of the same form, counter-clockwise.
    """

    outer: Ring
    holes: list[Ring]


def polygons(
    mask: Mask, box: Box | None = None, runs: Runs | None = None, tolerance: float = 0.0
) -> list[list[float]]:
    """COCO `segmentation` of a mask: one flat [x0, y0, x1, y1, ...] per 4-connected piece.

    The format has no holes: each polygon is an outer outline, and filling it fills the holes as well. Use
    `regions` to keep them, or `rle`, which COCO itself reads for such objects.

    Args:
        mask: (H, W) bool.
        box: holds the whole object, where it is known: only that part is looked at.
        runs: of the mask, where they are known: it is not looked at.
        tolerance: pixels that an outline may be away from the exact one, for fewer corners (Ramer, Douglas
            and Peucker); 0 for the exact ones. One that would have fewer than three stays exact.

    Returns:
        Outlines along pixel edges (COCO frame: pixel (0, 0) covers [0, 1) x [0, 1)); [] for an empty mask.

    Raises:
        InvalidInputError: the tolerance is no number of at least 0.
    """
    if not isinstance(tolerance, numbers.Real) or not 0 <= tolerance < math.inf:
        raise InvalidInputError(f"tolerance must be a number of pixels of at least 0, but got {tolerance!r}")
    found = _outlines(as_mask(mask), box, runs)
    if tolerance:
        rings = (found.corners[start:end] for start, end in compress(found.spans, found.outer))
        return [_simpler(ring, float(tolerance)).astype(float).ravel().tolist() for ring in rings]
    flat = _floats(1 << max(mask.shape).bit_length())[found.corners.ravel()]
    return [flat[2 * start : 2 * end].tolist() for start, end in compress(found.spans, found.outer)]


def _simpler(ring: Ring, tolerance: float) -> Ring:
    fewer = cv2.approxPolyDP(ring[:, None], tolerance, closed=True)[:, 0]
    return ring if len(fewer) < 3 else np.asarray(fewer)


@functools.cache
def _floats(most: int) -> NDArray[np.object_]:
    """0.0, 1.0 ... as Python has them: quicker shared by all corners than made for each."""
    return np.arange(most + 1, dtype=float).astype(object)


def regions(mask: Mask, box: Box | None = None, runs: Runs | None = None) -> list[Region]:
    """The outlines of a mask, exactly: outer rings with their holes.

    Pieces that meet at a corner only are apart (4-connected), so no ring crosses itself.

    Args:
        mask: (H, W) bool.
        box: holds the whole object, where it is known: outlines are looked for there only.
        runs: as for `polygons`.

    Returns:
        Regions in the order of their top row; [] for an empty mask. Filling the outer rings by the even-odd
        rule and taking the holes out gives the mask back exactly.
    """
    mask = as_mask(mask)
    found = _outlines(mask, box, runs)
    owners = _owners(mask, found) if found.owners is None else found.owners
    rings = [found.corners[start:end].copy() for start, end in found.spans]  # one that is kept keeps no other
    holes: dict[int, list[Ring]] = {number: [] for number in compress(count(), found.outer)}
    for ring, owner, outer in zip(rings, owners.tolist(), found.outer, strict=True):
        if not outer:
            holes[owner].append(ring)
    return [Region(rings[number], inner) for number, inner in holes.items()]


class _Outlines(NamedTuple):
    """All outlines of a mask, each from its top left corner, in raster order of those.

    Attributes:
        corners: (N, 2) int32 (x, y) of one after the other, object on the right hand.
        ends: (K,) where each ends among them.
        owners: (K,) the number of the outer one of its piece; None where that was not found along with them.
    """

    corners: Ring
    ends: NDArray[np.int32]
    owners: NDArray[np.int32] | None = None

    @property
    def starts(self) -> NDArray[np.intp]:
        """(K,) where each begins."""
        return np.concatenate([[0], self.ends])[:-1].astype(np.intp)

    @property
    def spans(self) -> Iterator[tuple[int, int]]:
        """Where each begins and ends."""
        return pairwise([0, *self.ends.tolist()])

    @property
    def outer(self) -> list[bool]:
        """Which are outer ones: those leave their top left corner to the right, a hole's downwards."""
        if self.owners is not None:
            return [owner == number for number, owner in enumerate(self.owners.tolist())]
        starts = self.starts
        found: list[bool] = (self.corners[starts + 1, 0] > self.corners[starts, 0]).tolist()
        return found


def _outlines(mask: Mask, box: Box | None, runs: Runs | None) -> _Outlines:
    if runs is not None:
        return _Outlines(*runs.outlines())
    if box is None:
        found = mask_box(mask)
        if found is None:
            return _Outlines(np.zeros((0, 2), np.int32), np.zeros(0, np.int32), np.zeros(0, np.int32))
        box = Box(*found)
    part, corner = mask[box.slices], (box.x0, box.y0)
    if native_library.available():
        return _Outlines(*Runs.of(part, corner).outlines())
    rings = _rings(part)
    corners = np.concatenate([np.zeros((0, 2), np.int32), *rings]) + np.array(corner, np.int32)
    return _Outlines(corners, np.cumsum([len(ring) for ring in rings], dtype=np.int32))


def _owners(mask: Mask, found: _Outlines) -> NDArray[np.int32]:
    """The `owners` of outlines, by labelling the mask's pieces."""
    outer = np.array(found.outer, np.bool_)
    numbers = np.arange(len(outer), dtype=np.int32)
    if outer.all():
        return numbers
    labels: NDArray[Any] = cv2.connectedComponents(mask.view(np.uint8), connectivity=4)[1]
    x, y = found.corners[found.starts].T  # the object is below and to the right there, or to a hole's left
    pieces = labels[y, x - ~outer]
    owners = np.zeros(pieces.max() + 1, np.int32)  # of each piece
    owners[pieces[outer]] = numbers[outer]
    found_owners: NDArray[np.int32] = owners[pieces]
    return found_owners


# Around a corner of the pixel grid lie four pixels: code = NW + 2 NE + 4 SW + 8 SE. An outline that turns
# there has a horizontal arm (-1 left, 1 right; 0 is no turn) and a vertical one (-1 up, 1 down), and leaves
# along one of them with the object on its right hand. Pixels that face each other diagonally make two turns.
_HORIZONTAL = np.array([0, -1, 1, 0, -1, 0, 1, 1, 1, -1, 0, -1, 0, 1, -1, 0], np.int8)
_VERTICAL = np.array([0, -1, -1, 0, 1, 0, -1, 1, 1, -1, 0, 1, 0, -1, -1, 0], np.int8)
_LEAVES_FLAT = np.array([0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 0, 1, 0, 0], np.bool_)
_CROSSING = (6, 9)  # their second turn is the first one mirrored in the corner, leaving along the same axis


def _rings(mask: Mask) -> list[Ring]:
    """All outlines along pixel edges, each from its top left corner, in raster order; see `Runs.outlines`."""
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
    corners = np.stack([x, y], axis=1).astype(np.int32)
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
