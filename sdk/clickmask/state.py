"""State: what a session knows after an operation, and the masks that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import encode
from .clicks import Click
from .mask import Mask, Rle, mask_box, rle_decode
from .pixels import Pixels
from .view import Box, View


@dataclass(frozen=True, eq=False, repr=False)
class State:
    """A pure function of the initial mask and the clicks, given image, bundle and options.

    Attributes:
        clicks: all clicks, in order.
        initial: the mask the session was started from, as run lengths; None for none.
        view: where the network looked for the newest click; None before the first.
        logits: (h', w') float32, read-only, the valid part of the network's output there; likewise None.
        before: the state that the newest click was made on; None before the first.
    """

    clicks: tuple[Click, ...] = ()
    initial: Rle | None = None
    view: View | None = None
    logits: NDArray[np.float32] | None = None
    before: State | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held beyond those of `before`: the logits, or before the first click the initial mask."""
        if self.logits is not None:
            return self.logits.nbytes
        return len(self.initial["counts"]) if self.initial else 0


def paint(state: State, pixels: Pixels) -> tuple[Mask, Box | None]:
    """The mask of a state, (H, W) bool, read-only, and its tight box, None where it is empty."""
    if state.view is not None and state.logits is not None:
        mask, box = pixels.paint(state.logits, state.view)
    elif state.initial is not None:
        mask = rle_decode(state.initial)
        box = _box_of(mask)
    else:
        mask, box = np.zeros(pixels.image_size[::-1], np.bool_), None
    mask.setflags(write=False)
    return mask, box


def find(state: State, pixels: Pixels) -> Box | None:
    """The tight box of a state's mask without painting that; None where it is empty."""
    if state.view is not None and state.logits is not None:
        return pixels.find(state.logits, state.view)
    return None if state.initial is None else _box_of(rle_decode(state.initial))


def _box_of(mask: Mask) -> Box | None:
    found = mask_box(mask)
    return Box(*found) if found else None


def previous_mask(state: State, view: View) -> NDArray[np.float32]:
    """What the network is told of a state when it looks at a view.

    Args:
        state: the state before the click.
        view: where the network will look.

    Returns:
        (1, 1, S, S) float32 in [0, 1]; zeros without clicks and initial mask.
    """
    probability = None
    if state.view is not None and state.logits is not None:
        probability = encode.sigmoid(state.logits)
        if state.view != view:
            probability = encode.resample_probability(probability, state.view, view)
    elif state.initial is not None:
        probability = encode.mask_probability(rle_decode(state.initial), view)
    return encode.previous_tensor(probability, view)
