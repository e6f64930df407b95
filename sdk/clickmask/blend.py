"""Blend: what the network said of one part of the image into what it said of another, weighted by place.

A close look is blended into its crop: in its middle its logits replace the crop's. And the logits before a
click are blended into those after it, by a share that the manifest calls momentum, except around the click:
what the click does not concern was seen twice then, and the mean of two estimates is the better one (as in
temporal ensembling, Laine and Aila 2017, over clicks instead of epochs).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import encode, native_library, native_pixels
from .clicks import Click
from .view import View

FADE = 0.125
"""Share, along an axis, of what both views show over which the other fades at its edges inside the view."""

REACH = 0.05
"""Part of the view's longer side, in network pixels, over which the share grows around the click."""


def blend_into(
    logits: NDArray[np.float32],
    view: View,
    other: NDArray[np.float32],
    seen: View,
    largest: float = 1.0,
    click: Click | None = None,
) -> None:
    """Put other logits into those of a view, where both show the image.

    The other ones are bilinear samples, averaged first where their grid is finer. Along each axis a share
    grows from 0 at an edge to 1 at `FADE` of their part of the view, unless that is an edge of the view too;
    the smaller of both, times `largest`, is theirs, and the rest the view's own.

    Args:
        logits: (h', w') float32 on the valid part of `view`, to be changed.
        view: the crop.
        other: (h'', w'') float32 on the valid part of `seen`.
        seen: the close look, or the crop of the click before.
        largest: the largest share of the other logits, in [0, 1].
        click: where they have none, in image pixels: from there their share grows to `largest` at `REACH` to
            the left and right, above and below. None where they have all of it.
    """
    across, down = encode.old_samples(seen, view)
    rows, columns = slice(down.first, down.last), slice(across.first, across.last)
    width, height = view.valid_size
    most = np.float32(largest)
    shares = most * _share(down, height), most * _share(across, width)
    x, y = (None, None) if click is None else view.to_network(click.x, click.y)
    away = _away(down, y, view), _away(across, x, view)
    own = logits[rows, columns]
    told = (other if seen == view else encode.resample(other, seen, view))[
        rows, columns
    ]  # the views mostly are
    if native_library.available():
        native_pixels.blend(own, told, shares, away)
    else:
        own += np.minimum.outer(*shares) * np.maximum.outer(*away) * (told - own)


def reach_of(view: View) -> float:
    """`REACH` in network pixels."""
    return REACH * max(view.valid_size)


def _share(samples: encode.Samples, count: int) -> NDArray[np.float32]:
    """Along an axis of a view of `count` pixels: how much what is seen there has of those that lie in it."""
    length = samples.last - samples.first
    share = np.ones(length, np.float32)
    grown = (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(FADE * length)
    if samples.first > 0:
        share = np.minimum(share, grown)
    if samples.last < count:
        share = np.minimum(share, grown[::-1])
    return share


def _away(samples: encode.Samples, place: float | None, view: View) -> NDArray[np.float32]:
    """Along an axis: how far those pixels are from a place, 1 at `REACH` and beyond; from none, 1 too."""
    if place is None:
        return np.ones(samples.last - samples.first, np.float32)
    pixels = np.arange(samples.first, samples.last, dtype=np.float32)
    away: NDArray[np.float32] = np.abs(pixels - np.float32(place)) / np.float32(reach_of(view))
    return away.clip(max=1)
