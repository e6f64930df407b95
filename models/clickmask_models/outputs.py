"""What a network returns in training."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Outputs(NamedTuple):
    """``logits`` (B, 1, H, W); ``auxiliary`` (B, 1, h, w) of the auxiliary head, FDM's or OCR's, or None."""

    logits: Tensor
    auxiliary: Tensor | None
