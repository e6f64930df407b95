"""Tiny networks with the calling convention of clickmask_models, for tests that need no real one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickmask_models.click_maps import ClickMapConfig, click_maps

DISK = ClickMapConfig("disk", 3.0)


class EarlyFusion(nn.Module):
    """Clicks at the stem, two strided layers, logits of some size."""

    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, previous_mask: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.takes_previous_mask = previous_mask
        self.stem = nn.Sequential(nn.Conv2d(5 + previous_mask, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, 1, 1)
        nn.init.normal_(self.head.weight, std=4)
        self.eval()

    def forward(self, image: Tensor, clicks: Tensor, previous_mask: Tensor | None) -> Tensor:
        planes = [(image - 0.5) / 0.5, click_maps(clicks, *image.shape[-2:], DISK).to(image.dtype)]
        if previous_mask is not None:
            planes.append(previous_mask.to(image.dtype))
        logits = self.head(self.stem(torch.cat(planes, dim=1))).float()
        return F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)


class EncodeOnce(nn.Module):
    """Clicks after the encoder, features at strides 2 and 4."""

    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, previous_mask: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.takes_previous_mask = previous_mask
        self.first, self.second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 4, 3, 2, 1)
        self.hint, self.head = nn.Conv2d(2 + previous_mask, 6, 3, 2, 1), nn.Conv2d(10, 1, 1)
        nn.init.normal_(self.head.weight, std=4)
        self.eval()

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        first = F.relu(self.first((image - 0.5) / 0.5))
        return first, self.second(first)

    def decode(self, features: tuple[Tensor, ...], clicks: Tensor, previous_mask: Tensor | None) -> Tensor:
        first, second = features
        maps = click_maps(clicks, 2 * first.shape[-2], 2 * first.shape[-1], DISK)
        hint = torch.cat([maps, previous_mask], dim=1) if previous_mask is not None else maps
        upper = F.interpolate(second, scale_factor=2.0, mode="nearest")
        joined = torch.cat([first + self.hint(hint.to(first.dtype)), upper], dim=1)
        return F.interpolate(
            self.head(joined).float(), scale_factor=2.0, mode="bilinear", align_corners=False
        )

    def forward(self, image: Tensor, clicks: Tensor, previous_mask: Tensor | None) -> Tensor:
        return self.decode(self.encode(image), clicks, previous_mask)


def inputs(batch: int, clicks: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Image, clicks (every third absent) and previous mask with extents of choice."""
    generator = torch.Generator().manual_seed(batch + clicks + size)
    image = torch.rand(batch, 3, size, size, generator=generator)
    image[..., : size // 2, : size // 2] = 0.25  # a flat part, where lost epsilons show
    rows = torch.rand(batch, clicks, 3, generator=generator) * (size - 1)
    rows[..., 2] = (torch.arange(clicks) % 3 - 1).float()
    return image, rows, torch.rand(batch, 1, size, size, generator=generator)


def flipped_average(network: nn.Module, image: Tensor, clicks: Tensor, mask: Tensor | None) -> Tensor:
    """Flip averaging written out: the mirrored image is segmented on its own and mirrored back."""
    mirrored = clicks.clone()
    mirrored[..., 0] = image.shape[-1] - 1 - mirrored[..., 0]
    with torch.no_grad():
        straight = network(image, clicks, mask)
        turned = network(image.flip(3), mirrored, None if mask is None else mask.flip(3))
    return (straight + turned.flip(3)) / 2
