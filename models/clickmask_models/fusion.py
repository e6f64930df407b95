"""How clicks meet the image at the stem of a published network.

``MapFusion`` makes a three-channel image of the image and the click maps (f-BRS, CDNet paper);
``Conv1S`` adds features of the maps to the output of the backbone's stem (RITM, CSFP, public CDNet code).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MapFusion(nn.Module):
    """Mixes image and maps by two 1x1 convolutions into the three channels that a backbone expects."""

    def __init__(self, map_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3 + map_channels, 8, 1),
            nn.LeakyReLU(0.2),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 3, 1),
        )

    def forward(self, image: Tensor, maps: Tensor) -> Tensor:
        """(B, 3, H, W) normalised image and (B, C, H, W) maps -> (B, 3, H, W)."""
        return self.layers(torch.cat([image, maps.to(image.dtype)], dim=1))


class Conv1S(nn.Module):
    """Features of the maps at stride 2, times a learned scalar's absolute value."""

    def __init__(self, map_channels: int, out_channels: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(map_channels, 16, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, out_channels, 3, stride=2, padding=1),
        )
        self.scale = nn.Parameter(torch.full((1,), 0.05))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H/2, W/2), odd sizes rounded up."""
        return self.layers(maps.to(self.scale.dtype)) * self.scale.abs()
