"""How clicks meet the image at the stem of a published network.

``MapFusion`` makes a three-channel image of the image and the click maps (f-BRS, CDNet paper);
``Conv1S`` adds features of the maps to the output of the backbone's stem (RITM, CSFP, public CDNet code).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clickmask_models.click_maps import ClickMapConfig, click_maps


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

    def __init__(self, map_channels: int, out_channels: int = 64, initial_scale: float = 0.05) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(map_channels, 16, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, out_channels, 3, stride=2, padding=1),
        )
        self.scale = nn.Parameter(torch.full((1,), initial_scale))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H/2, W/2), odd sizes rounded up."""
        return self.layers(maps.to(self.scale.dtype)) * self.scale.abs()


def input_maps(
    clicks: Tensor,
    click_map: ClickMapConfig,
    size: tuple[int, ...],
    previous_mask: Tensor | None,
    takes_previous_mask: bool,
) -> Tensor:
    """What is fused with an image: the previous mask, if the network takes one, then the clicks.

    Args:
        clicks: (B, M, 3) float (x, y, label) in pixels of the image.
        click_map: how clicks are drawn.
        size: H and W of the image.
        previous_mask: (B, 1, H, W) probability, ignored by a network that does not take it.
        takes_previous_mask: whether the network does.

    Returns:
        (B, C, H, W) float32 in [0, 1]: previous mask (C = 3 only), positive clicks, negative clicks.

    Raises:
        ValueError: there is no previous mask for a network that takes one.
    """
    maps = click_maps(clicks, size[0], size[1], click_map)
    if not takes_previous_mask:
        return maps
    if previous_mask is None:
        raise ValueError("this network takes a previous mask (B, 1, H, W); zeros stand for none")
    return torch.cat([previous_mask.float(), maps], dim=1)
