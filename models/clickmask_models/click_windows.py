"""The cells near clicks: the only ones that a source map of compact support tells from the rest.

Feature Diffusion's sparse form attends to these cells one by one, and to all others through their mean.
Shapes depend on the number of clicks and the size of a window, never on where the clicks are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Added to a key's logit: its weight is exactly 0, since a softmax over cells always has a key without it.
_NEVER = -1.0e9


class WindowKeys(NamedTuple):
    """K = M (2 radius + 1)^2 cells of the windows around M places, and what to add to their logits.

    Attributes:
        index: (..., K) int64, flat cells (row * width + column); any cell where the bias excludes it.
        rest: (..., N) float32, 1 for the cells in no window, 0 for the others.
        bias: (..., K + 1) float32: -log(times that a cell is in the list), so that all its entries together
            count once; for the last key, which stands for the rest, log(number of cells); -1e9 for what is
            not there: a cell beyond the map, an absent place, an empty rest.
    """

    index: Tensor
    rest: Tensor
    bias: Tensor


def window_keys(places: Tensor, present: Tensor, height: int, width: int, radius: int) -> WindowKeys:
    """The cells of square windows around places.

    Args:
        places: (..., M, 2) float32 (x, y) in cells, centres at integers; they may lie beyond the map.
        present: (..., M) bool, which of them count.
        height: rows of the map.
        width: columns of the map.
        radius: cells on each side of the one that a place is nearest to.
    """
    present = present.unsqueeze(-1)  # (..., M, 1)
    nearest = torch.floor(places + 0.5)
    columns, in_columns, over_columns = _span(nearest[..., 0], width, radius)
    rows, in_rows, over_rows = _span(nearest[..., 1], height, radius)

    # A window is a product of spans, so how many windows lie over each cell is one product of matrices.
    over_rows = (over_rows & present).to(torch.float32)
    times = (over_rows.transpose(-2, -1) @ over_columns.to(torch.float32)).flatten(-2)  # (..., N)
    rest = (times == 0).to(torch.float32)
    size = rest.sum(dim=-1, keepdim=True)

    index = (rows.unsqueeze(-1) * width + columns.unsqueeze(-2)).flatten(-3)  # (..., K)
    there = ((in_rows & present).unsqueeze(-1) & in_columns.unsqueeze(-2)).flatten(-3)
    share = -torch.log(times.gather(-1, index).clamp(min=1.0))
    bias = torch.cat([_only(there, share), _only(size > 0, torch.log(size.clamp(min=1.0)))], dim=-1)
    return WindowKeys(index, rest, bias)


def _span(centre: Tensor, extent: int, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """One axis of the windows around (..., M) centres.

    Returns:
        The cells (..., M, 2 radius + 1) int64, moved into the map; whether each was in it; and (..., M,
        extent), whether the window lies over each cell of the map.
    """
    centre = centre.unsqueeze(-1)
    span = centre + torch.arange(-radius, radius + 1, device=centre.device, dtype=torch.float32)
    inside = (span >= 0) & (span <= extent - 1)
    cells = torch.arange(extent, device=centre.device, dtype=torch.float32)
    return span.clamp(0, extent - 1).to(torch.int64), inside, (cells - centre).abs() <= radius


def _only(where: Tensor, value: Tensor) -> Tensor:
    return torch.where(where, value, torch.full_like(value, _NEVER))
