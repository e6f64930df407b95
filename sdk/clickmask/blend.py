"""Blend: what the network said of half a crop, seen closely, into what it said of the whole of it.

In the middle of the close look its logits replace those of the crop. Towards its edges they fade into them,
but not where those are edges of the crop, too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import encode
from .view import View

FADE = 0.125
"""Share of a close look's side over which it fades."""


def blend_into(logits: NDArray[np.float32], view: View, close: NDArray[np.float32], near: View) -> None:
    """Put the logits of a close look into those of its crop.

    They are bilinear samples of `close`, averaged first where that is finer. Along each axis a share grows
    from 0 at an edge to 1 at `FADE` of the box; the smaller of both is the close look's, the rest the crop's.

    Args:
        logits: (h', w') float32 on the valid part of `view`, to be changed.
        view: the crop.
        close: (h'', w'') float32 on the valid part of `near`.
        near: the close look, whose box lies in that of `view`.
    """
    across, down = encode.old_samples(near, view)
    rows, columns = slice(down.first, down.last), slice(across.first, across.last)
    width, height = view.valid_size
    share = np.minimum.outer(_share(down, height), _share(across, width))
    logits[rows, columns] += share * (
        encode.resample(close, near, view)[rows, columns] - logits[rows, columns]
    )


def _share(samples: encode.Samples, count: int) -> NDArray[np.float32]:
    """Along an axis of a crop of `count` pixels: how much the close look has of those that lie in it."""
    length = samples.last - samples.first
    share = np.ones(length, np.float32)
    grown = (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(FADE * length)
    if samples.first > 0:
        share = np.minimum(share, grown)
    if samples.last < count:
        share = np.minimum(share, grown[::-1])
    return share
