"""Masks of another crop: what a session tells the network of a crop that has just moved."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_COARSEST = 3.0  # of held-out sessions' moved masks 95 % were enlarged by less
_CUT = 0.5  # share of moved crops that show what the one before did not


def as_moved(logits: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Logits as if some had been seen in another view, which showed the object and was larger.

    Args:
        logits: (N, 1, H, W) float32.
        share: of those that are changed.
        rng: source of every choice.

    Returns:
        (N, 1, H, W) logits, some as coarse as a view up to 3 times as long would have them; and (N, 1, H, W)
        bool, where that view showed the image: a rectangle with all of the object that they find.
    """
    logits, shown = logits.clone(), torch.ones_like(logits, dtype=torch.bool)
    size = logits.shape[2:]
    for index in np.flatnonzero(rng.random(len(logits)) < share).tolist():
        longer = rng.uniform(1, _COARSEST)
        shrunk = [max(1, round(side / longer)) for side in size]
        cells = F.interpolate(logits[index : index + 1], shrunk, mode="area")
        logits[index] = F.interpolate(cells, size, mode="bilinear")[0]
        if rng.random() < _CUT:
            found = logits[index, 0] > 0
            down, across = (_span(found.any(axis).cpu().numpy(), rng) for axis in (1, 0))
            shown[index] = False
            shown[index, 0, down, across] = True
    return logits, shown


def _span(found: np.ndarray, rng: np.random.Generator) -> slice:
    """A span of an axis with all that is found along it; the whole axis where nothing is."""
    places = np.flatnonzero(found)
    if not len(places):
        return slice(None)
    return slice(int(rng.integers(0, places[0] + 1)), int(rng.integers(places[-1] + 1, len(found) + 1)))
