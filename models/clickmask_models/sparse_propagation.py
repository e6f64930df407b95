"""Sparse propagation: features of the clicked cells flow to all positions (CSFP's SGM and HSGM).

CSFP, Eq. 1-3: position n receives, from the cells u_1 ... u_M of the M clicks,

    sum_j alpha(n, j) W v[u_j],     alpha = softmax_j(theta(f[n]) . phi(f[u_j]))

N x M weights in place of attention's N x N. The softmax runs over the clicks that are there; without any the
message is exactly 0. Positive and negative clicks are alike: features tell them apart, since click maps went
into them. Two clicks in one cell are two of the M and so weigh twice.

Columns of the clicks are gathered first and only they pass through phi and W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clickmask_models.deeplab import resize
from clickmask_models.layers import conv_norm_act

# Logit of an absent click, below any other's; the softmax is float32. Where all are absent it is still
# finite, which it is not with -inf; multiplying by the clicks' presence then makes the weights exactly 0.
_ABSENT = -1.0e9


@dataclass(frozen=True)
class SparsePropagationConfig:
    """Form of SGM and HSGM. The defaults are the paper's.

    Attributes:
        heads: of SGM, which are averaged. More than one (public code: 3) are followed by a 1x1 convolution,
            batch norm and ReLU.
        key_reduction: channels of the features per channel of queries and keys (public code: 3).
        scaled: whether logits are divided by the root of the queries' channels (public code).
        gamma: whether the message is multiplied by a learned number that starts at 0 (public code).
        reduced_channels: of HSGM from its start to its output, which cost most of the network. None keeps
            those of the coarse features, as paper and public code do.
        drops_first_cell: whether a click in the top-left cell sends no message. Public code confuses it with
            an absent one; its weights saw no other behaviour.
    """

    heads: int = 1
    key_reduction: int = 1
    scaled: bool = False
    gamma: bool = False
    reduced_channels: int | None = None
    drops_first_cell: bool = False

    def __post_init__(self) -> None:
        for name in ("heads", "key_reduction"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.reduced_channels is not None and self.reduced_channels < 2:
            raise ValueError(f"reduced_channels must be None or at least 2, got {self.reduced_channels}")


class ClickCells(NamedTuple):
    """Where clicks are in a feature map.

    Attributes:
        index: (B, M) int64, flat cell (row * width + column); any cell where not ``valid``.
        valid: (B, M) bool, whether the click sends a message.
    """

    index: Tensor
    valid: Tensor


def click_cells(
    clicks: Tensor, height: int, width: int, stride: int, *, drops_first_cell: bool = False
) -> ClickCells:
    """The cell that each click lies in; cell i holds the pixels stride * i to stride * (i + 1) - 1.

    A click outside the map sends no message, though its disk may reach into the click map. In float32, since
    half precision has no odd pixels beyond 2048.

    Args:
        clicks: (B, M, 3) float (x, y, label) in network-input pixels; label 1, 0, or -1 where absent.
        height: rows of the feature map.
        width: columns of the feature map.
        stride: network pixels per cell.
        drops_first_cell: see ``SparsePropagationConfig``.
    """
    x, y, label = clicks.float().unbind(-1)
    columns, in_columns = _cells(x, width, stride)
    rows, in_rows = _cells(y, height, stride)
    index = rows * width + columns
    valid = ((label == 0) | (label == 1)) & in_columns & in_rows
    if drops_first_cell:
        valid = valid & (index > 0)
    return ClickCells(index, valid)


class SparseAttention(nn.Module):
    """The messages of the clicks to all positions: one head.

    Args:
        channels: of the features that are compared, and of those that are sent.
        config: form of the logits, and whether there is a gamma.
    """

    def __init__(self, channels: int, config: SparsePropagationConfig) -> None:
        super().__init__()
        compared = max(channels // config.key_reduction, 1)
        self._scale = compared**-0.5 if config.scaled else 1.0
        self.query_conv = nn.Conv2d(channels, compared, 1)
        self.key_conv = nn.Conv2d(channels, compared, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1)) if config.gamma else None

    def forward(self, compared: Tensor, sent: Tensor, cells: ClickCells) -> Tensor:
        """Sends messages.

        Args:
            compared: (B, C, h, w) features that make queries and keys.
            sent: (B, C, h, w) features that make values.
            cells: of the clicks, in this map.

        Returns:
            (B, C, h, w); exactly 0 where no click of the batch's item is valid.
        """
        values = self.value_conv(_columns(sent, cells.index)).squeeze(3)  # (B, C, M)
        weights = self.weights(compared, cells)
        message = (values @ weights.to(values.dtype)).unflatten(2, sent.shape[-2:])
        return message if self.gamma is None else self.gamma * message

    def weights(self, compared: Tensor, cells: ClickCells) -> Tensor:
        """alpha, (B, M, N) float32: of each click at each position, N = h * w; invalid clicks have 0."""
        queries = self.query_conv(compared).flatten(2).float()  # (B, D, N)
        keys = self.key_conv(_columns(compared, cells.index)).squeeze(3).float()  # (B, D, M)
        valid = cells.valid.unsqueeze(2)
        with torch.autocast(compared.device.type, enabled=False):
            logits = (keys * self._scale).transpose(1, 2) @ queries
            return torch.softmax(torch.where(valid, logits, _ABSENT), dim=1) * valid


class SGM(nn.Module):
    """Sparse graph module (Eq. 1): features plus messages; ``channels`` in and out."""

    def __init__(self, channels: int, config: SparsePropagationConfig) -> None:
        super().__init__()
        self.channels = channels
        self.heads = nn.ModuleList(SparseAttention(channels, config) for _ in range(config.heads))
        self.projection = conv_norm_act(channels, channels, 1) if config.heads > 1 else nn.Identity()

    def forward(self, features: Tensor, cells: ClickCells) -> Tensor:
        """(B, channels, h, w), and the clicks' cells in that map -> (B, channels, h, w)."""
        messages = sum(head(features, features, cells) for head in self.heads)
        return self.projection(features + messages / len(self.heads))


class HSGM(nn.Module):
    """High-resolution SGM (Eq. 2, 3): coarse features say who is alike, fused ones are sent.

    Args:
        channels: of the coarse features.
        low_channels: of the low-level features.
        config: ``reduced_channels`` of it, if any, is what a 1x1 convolution brings the coarse features to
            before they are enlarged; the two orders are equal, and this one costs less.
        align_corners: of enlarging; the published networks align.
    """

    def __init__(
        self,
        channels: int,
        low_channels: int,
        config: SparsePropagationConfig,
        *,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self._align_corners = align_corners
        self.channels = config.reduced_channels or channels
        self.reduction = nn.Identity()
        if config.reduced_channels is not None:
            self.reduction = nn.Conv2d(channels, self.channels, 1)
        self.fusion = nn.Sequential(
            *conv_norm_act(self.channels + low_channels, self.channels, 3, bias=True),
            *conv_norm_act(self.channels, self.channels, 3, bias=True),
        )
        self.attention = SparseAttention(self.channels, config)

    def forward(self, coarse: Tensor, low: Tensor, cells: ClickCells) -> Tensor:
        """Propagates at the resolution of the low-level features.

        Args:
            coarse: (B, channels, h, w) output of SGM.
            low: (B, low_channels, H, W) low-level features.
            cells: of the clicks, in the map of ``low``.

        Returns:
            (B, ``self.channels``, H, W).
        """
        enlarged = resize(self.reduction(coarse), low.shape[-2:], self._align_corners)
        fused = self.fusion(torch.cat([enlarged, low], dim=1))
        return fused + self.attention(enlarged, fused, cells)


def _cells(places: Tensor, extent: int, stride: int) -> tuple[Tensor, Tensor]:
    """One axis: cells (B, M) int64, moved into the map, and whether they were in it.

    The first pixel reaches from -0.5: resizing about pixel centres puts clicks on it there.
    """
    cells = torch.floor(places.clamp(min=0) / stride)
    return cells.clamp(max=extent - 1).to(torch.int64), (places >= -0.5) & (cells <= extent - 1)


def _columns(features: Tensor, index: Tensor) -> Tensor:
    """Features (B, C, h, w) of the cells (B, M) -> (B, C, M, 1)."""
    index = index.unsqueeze(1).expand(-1, features.shape[1], -1)
    return features.flatten(2).gather(2, index).unsqueeze(3)
