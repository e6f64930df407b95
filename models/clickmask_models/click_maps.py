"""Click maps: what a list of clicks looks like to a convolution.

Clicks are (B, M, 3) float rows (x, y, label) in pixels of the network input, pixel centres at
integers; label 1 is positive, 0 negative, -1 an absent row. Maps are drawn inside the graph, so that
training, export and run time draw the same ones. All arithmetic is float32: squared distances
overflow half precision beyond 256 px.

A disk is drawn pixel by pixel of the square around its click, so that its cost is that of the clicks; the
other kinds reach everywhere, and measure every pixel's distance to every click.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# Added to the squared distance of clicks that a map must not show: far beyond any image (46,000 px).
_ABSENT = 2.0e9
# Where a Gaussian ends, in squared sigmas: at 1e-30. Next to zero it would be subnormal in a ring of pixels,
# and many processors take a hundred cycles for each product with such a number.
_FAINTEST = 138.0


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
    if config.kind == "disk":
        blank = clicks.new_zeros(clicks.shape[0], 3, height, width, dtype=torch.float32)
        return _with_disks(blank, clicks, config.size, stride)[:, :2]
    squared = squared_distances(clicks, height, width, stride)  # (B, 2, height, width)
    if config.kind == "distance":
        # Squares are never negative: the clamp is for the export's lint, which allows no unguarded root.
        return torch.tanh(squared.clamp(min=0.0).sqrt() * (2 / config.size))
    maps = torch.exp(squared * (-0.5 / config.size**2))
    return torch.where(squared < _FAINTEST * config.size**2, maps, 0.0)


def click_planes(clicks: Tensor, previous_mask: Tensor, config: ClickMapConfig) -> Tensor:
    """Click maps and, below them, the previous mask (B, 1, H, W): (B, 3, H, W) float32."""
    if config.kind == "disk":
        return _with_disks(F.pad(previous_mask.float(), (0, 0, 0, 0, 2, 0)), clicks, config.size, stride=1)
    maps = click_maps(clicks, *previous_mask.shape[-2:], config)
    return torch.cat([maps, previous_mask.float()], dim=1)


def _with_disks(planes: Tensor, clicks: Tensor, radius: float, stride: int) -> Tensor:
    """Planes (B, 3, H, W) with ones in the first two, where a disk of that label is; the third stays."""
    height, width = planes.shape[-2:]
    # The pixel nearest to a click is half a pixel off at most: this reach leaves nothing out. Nor does
    # rounding, since where a disk just fits the square on one side, that is wider on the other.
    reach = math.floor(radius + 0.5)
    line = torch.arange(-reach, reach + 1, device=clicks.device, dtype=torch.float32)
    x, y, label = _split(clicks, stride)
    columns, dx2 = _near(x, line.repeat(len(line)), width)  # (B, M, K): the square's pixels, row by row
    rows, dy2 = _near(y, line.repeat_interleave(len(line)), height)
    seen = (dy2 + dx2 <= radius**2) & (label >= 0)
    rows = rows + (label == 0).to(torch.int64) * height  # the negative map lies below the positive one
    # What is not to be seen goes to the last pixel of the third plane, as what is there.
    flat = planes.flatten(1)
    pixels = torch.where(seen, rows * width + columns, 3 * height * width - 1)
    values = torch.where(seen, 1.0, flat[:, -1:].unsqueeze(2))
    return flat.scatter(1, pixels.flatten(1), values.flatten(1)).view_as(planes)


def _near(centre: Tensor, offsets: Tensor, extent: int) -> tuple[Tensor, Tensor]:
    """One axis of the pixels around (B, M, 1) centres: (B, M, K) int64, and their squared distance, float32.

    A pixel beyond the border becomes the one at the border, whose own distance then decides.
    """
    pixels = (torch.floor(centre + 0.5) + offsets).clamp(0, extent - 1)
    return pixels.to(torch.int64), (pixels - centre).square()


def squared_distances(clicks: Tensor, height: int, width: int, stride: int = 1) -> Tensor:
    """Squared distance, in map pixels, of each pixel to the nearest positive and negative click.

    Returns:
        (B, 2, height, width) float32; at least 2e9 where there is no such click.
    """
    x, y, label = _split(clicks, stride)  # (B, M, 1)
    columns = torch.arange(width, device=clicks.device, dtype=torch.float32)
    rows = torch.arange(height, device=clicks.device, dtype=torch.float32)
    dx2 = (columns - x).square().unsqueeze(-2)  # (B, M, 1, width)
    dy2 = (rows - y).square()  # (B, M, height)
    maps = []
    for wanted in (1.0, 0.0):  # one after the other: all distances to all clicks are large
        shown = dy2 + torch.where(label == wanted, 0.0, _ABSENT)
        maps.append((shown.unsqueeze(-1) + dx2).amin(dim=1))  # (B, height, width)
    return torch.stack(maps, dim=1)


def _split(clicks: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clicks in cells as columns, (B, M, 1) float32: x, y and label."""
    x, y, label = clicks.float().split(1, dim=-1)
    return _cell(x, stride), _cell(y, stride), label


def _cell(places: Tensor, stride: int) -> Tensor:
    return places if stride == 1 else (places + 0.5) / stride - 0.5


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
    places = places / stride if align_corners else _cell(places, stride)
    return torch.cat([places, label], dim=-1)
