"""Click maps: what a list of clicks looks like to a convolution.

Clicks are (B, M, 3) float rows (x, y, label) in pixels of the network input, pixel centres at
integers; label 1 is positive, 0 negative, -1 an absent row. Maps are drawn inside the graph, so that
training, export and run time draw the same ones. All arithmetic is float32: squared distances
overflow half precision beyond 256 px.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

# Added to the squared distance of clicks that a map must not show. Far beyond any image (46,000 px),
# yet finite: an infinite distance would turn into NaN when a Gaussian multiplies it.
_ABSENT = 2.0e9


@dataclass(frozen=True)
class ClickMapConfig:
    """How clicks are drawn.

    Attributes:
        kind: ``disk`` (1 where distance d <= size; RITM, CSFP, ClickSEG), ``gaussian``
            (exp(-d^2 / (2 size^2)); CDNet paper) or ``distance`` (tanh(2 d / size), which is 0 at a click
            and 1 far from all; f-BRS).
        size: disk radius, Gaussian sigma or the distance that gives tanh(2), in pixels of the map.
    """

    kind: Literal["disk", "gaussian", "distance"] = "disk"
    size: float = 5.0

    def __post_init__(self) -> None:
        if self.kind not in ("disk", "gaussian", "distance"):
            raise ValueError(f"click map kind must be 'disk', 'gaussian' or 'distance', got {self.kind!r}")
        if not self.size > 0:
            raise ValueError(f"click map size must be positive, got {self.size}")


def click_maps(clicks: Tensor, height: int, width: int, config: ClickMapConfig, stride: int = 1) -> Tensor:
    """Draws positive and negative maps; of several clicks the nearest counts, so order is irrelevant.

    Args:
        clicks: (B, M, 3) float (x, y, label), in network-input pixels.
        height: rows of the map.
        width: columns of the map.
        config: shape of one click; its ``size`` is in pixels of the map.
        stride: network pixels per map pixel; cell i covers input pixels [i*stride, (i+1)*stride).

    Returns:
        (B, 2, height, width) float32 in [0, 1]; channel 0 positive, channel 1 negative.
    """
    squared = squared_distances(clicks, height, width, stride)  # (B, 2, height, width)
    if config.kind == "disk":
        return (squared <= config.size**2).to(torch.float32)
    if config.kind == "distance":
        # Squares are never negative: the clamp is for the export's lint, which allows no unguarded root.
        return torch.tanh(squared.clamp(min=0.0).sqrt() * (2 / config.size))
    return torch.exp(squared.clamp(max=_ABSENT) * (-0.5 / config.size**2))


def squared_distances(clicks: Tensor, height: int, width: int, stride: int = 1) -> Tensor:
    """Squared distance, in map pixels, of each pixel to the nearest positive and negative click.

    Returns:
        (B, 2, height, width) float32; at least 2e9 where there is no such click.
    """
    x, y, label = cell_clicks(clicks, stride).unbind(-1)  # (B, M)
    columns = torch.arange(width, device=clicks.device, dtype=torch.float32)
    rows = torch.arange(height, device=clicks.device, dtype=torch.float32)
    dx2 = (columns - x.unsqueeze(-1)).square()  # (B, M, width)
    dy2 = (rows - y.unsqueeze(-1)).square()  # (B, M, height)
    maps = []
    for wanted in (1.0, 0.0):
        hidden = (label != wanted).to(torch.float32) * _ABSENT
        shown = dy2 + hidden.unsqueeze(-1)
        maps.append((shown.unsqueeze(-1) + dx2.unsqueeze(-2)).amin(dim=1))  # (B, height, width)
    return torch.stack(maps, dim=1)


def cell_clicks(clicks: Tensor, stride: int, *, align_corners: bool = False) -> Tensor:
    """Clicks in pixels of a map, (B, M, 3) float32, from clicks in network pixels; labels stay.

    Args:
        clicks: (B, M, 3) (x, y, label).
        stride: network pixels per map pixel.
        align_corners: whether map pixel i looks at network pixel stride * i, or at the middle of its
            stride pixels, (stride - 1) / 2 after the first.
    """
    clicks = clicks.float()
    places, label = clicks[..., :2], clicks[..., 2:]
    places = places / stride if align_corners else (places + 0.5) / stride - 0.5
    return torch.cat([places, label], dim=-1)
