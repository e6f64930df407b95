"""State: what a session knows after an operation, and the masks that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import encode
from .clicks import Click
from .mask import Mask, Rle, mask_box, rle_decode
from .paste import Painted
from .view import Box, View

if TYPE_CHECKING:
    from .backends.cuda_memory import DeviceArray
    from .pixels import Pixels


@dataclass(frozen=True, eq=False, repr=False)
class State:
    """A pure function of the initial mask and the clicks, given image, bundle and options.

    Attributes:
        clicks: all clicks, in order.
        initial: the mask the session was started from, as run lengths; None for none.
        view: where the network looked (first) for the newest click; None before the first.
        logits: the network's output there, as `Pixels.decode` or `Pixels.blend` gave it, where the image is;
            likewise None.
        before: the state that the newest click was made on; None before the first.
    """

    clicks: tuple[Click, ...] = ()
    initial: Rle | None = None
    view: View | None = None
    logits: Any = None
    before: State | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held beyond those of `before`: the logits, or before the first click the initial mask."""
        if self.logits is not None:
            return int(self.logits.nbytes)
        return len(self.initial["counts"]) if self.initial else 0


def paint(state: State, pixels: Pixels) -> Painted:
    """The mask of a state, (H, W) bool, read-only."""
    if state.view is not None and state.logits is not None:
        painted = pixels.paint(state.logits, state.view)
    elif state.initial is not None:
        mask = rle_decode(state.initial)
        painted = Painted(mask, _box_of(mask))
    else:
        painted = Painted(np.zeros(pixels.image_size[::-1], np.bool_), None)
    painted.mask.setflags(write=False)
    return painted


def find(state: State, pixels: Pixels) -> Box | None:
    """The tight box of a state's mask without painting that; None where it is empty."""
    if state.view is not None and state.logits is not None:
        return pixels.find(state.logits, state.view)
    return None if state.initial is None else _box_of(rle_decode(state.initial))


def _box_of(mask: Mask) -> Box | None:
    found = mask_box(mask)
    return Box(*found) if found else None


def previous_mask(
    state: State, view: View, pixels: Pixels, mask: Mask | None = None
) -> NDArray[np.float32] | DeviceArray:
    """What the network is told of a state when it looks at a view.

    Args:
        state: the state before the click.
        view: where the network will look.
        pixels: of the image.
        mask: the state's, where it is painted anyhow: an initial one is then not decoded again.

    Returns:
        (1, 1, S, S) float32 in [0, 1]; zeros without clicks and initial mask.
    """
    if state.logits is not None or state.initial is None:
        return pixels.previous_mask(state.logits, state.view, view)
    tensor, valid = encode.blank_previous(view)
    valid[:] = encode.mask_probability(rle_decode(state.initial) if mask is None else mask, view)
    return tensor
