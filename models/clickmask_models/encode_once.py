"""Encode-once CDNet: the image alone through the backbone, clicks after it.

The published networks take clicks at the stem, so every click pays the whole backbone. Here the
encoder sees only the image and its features are kept; a click pays the decoder. Clicks and previous
mask enter through a small strided stem whose maps are added at strides 2, 4, 8 and 16; Feature
Diffusion (CDNet, Eq. 1-4) runs at stride 16, where its N is small.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickmask_models.backbones.mobilenet_v2 import MEAN, STD, ContextHead, MobileNetV2
from clickmask_models.click_maps import ClickMapConfig, cell_clicks, click_maps
from clickmask_models.feature_diffusion import FeatureDiffusion, FeatureDiffusionConfig
from clickmask_models.layers import InvertedResidual, separable
from clickmask_models.outputs import Outputs
from clickmask_models.pixel_diffusion import PixelDiffusionConfig


@dataclass(frozen=True)
class EncodeOnceConfig:
    """Architecture of an encode-once CDNet on MobileNetV2.

    Attributes:
        widths: decoder channels at strides 2, 4, 8 and 16.
        click_widths: click-stem channels at the same strides.
        click_map: how clicks are drawn for the stem, in network-input pixels.
        feature_diffusion: FDM at stride 16.
        pixel_diffusion: PDM after the logits, at inference only; None for none. The public code's
            affinity did better than the paper's on held-out training images (docs/presets.md).
    """

    widths: tuple[int, int, int, int] = (32, 64, 128, 192)
    click_widths: tuple[int, int, int, int] = (16, 24, 32, 64)
    click_map: ClickMapConfig = field(default_factory=ClickMapConfig)
    feature_diffusion: FeatureDiffusionConfig = field(
        default_factory=lambda: FeatureDiffusionConfig(inner_channels=64)
    )
    pixel_diffusion: PixelDiffusionConfig | None = field(
        default_factory=lambda: PixelDiffusionConfig(affinity="official", eps=1e-5)
    )

    def __post_init__(self) -> None:
        for name in ("widths", "click_widths"):
            widths = getattr(self, name)
            if len(widths) != 4 or min(widths) < 1:
                raise ValueError(f"{name} must be four positive numbers (strides 2 to 16), got {widths}")
        if self.feature_diffusion.source_kind != "gaussian":
            raise ValueError(
                "encode-once networks draw FDM's clicks as Gaussians, got "
                f"source_kind={self.feature_diffusion.source_kind!r}"
            )


class EncodeOnceCDNet(nn.Module):
    """Encode-once CDNet; H and W must be multiples of 32, so that every stride divides them."""

    mean = MEAN
    std = STD
    takes_previous_mask = True

    def __init__(self, config: EncodeOnceConfig | None = None) -> None:
        super().__init__()
        self.config = config or EncodeOnceConfig()
        self.backbone = MobileNetV2()
        self.context = ContextHead()
        sources = (*MobileNetV2.channels[:3], ContextHead.channels)
        self.lateral = nn.ModuleList(
            nn.Conv2d(source, width, 1) for source, width in zip(sources, self.config.widths, strict=True)
        )
        self.decoder = _Decoder(self.config)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) RGB in [0, 1] -> features at strides 2, 4, 8, 16; independent of clicks."""
        pyramid = self.backbone((image - 0.5) * 2.0)  # (x - MEAN) / STD, exact in binary
        levels = (*pyramid[:3], self.context(pyramid.s16))
        return tuple(lateral(level) for lateral, level in zip(self.lateral, levels, strict=True))

    def decode(self, features: tuple[Tensor, ...], clicks: Tensor, previous_mask: Tensor) -> Tensor:
        """Features of ``encode``, clicks (B, M, 3), previous mask (B, 1, H, W) -> logits (B, 1, H, W)."""
        return self.decode_with_auxiliary(features, clicks, previous_mask).logits

    def decode_with_auxiliary(
        self, features: tuple[Tensor, ...], clicks: Tensor, previous_mask: Tensor
    ) -> Outputs:
        """As ``decode``, with the logits that FDM's auxiliary loss supervises."""
        return self.decoder(features, clicks, previous_mask)

    def forward(self, image: Tensor, clicks: Tensor, previous_mask: Tensor) -> Tensor:
        return self.decode(self.encode(image), clicks, previous_mask)

    def forward_with_auxiliary(self, image: Tensor, clicks: Tensor, previous_mask: Tensor) -> Outputs:
        return self.decode_with_auxiliary(self.encode(image), clicks, previous_mask)


class _Decoder(nn.Module):
    """What a click costs: click stem, stride-16 reasoning with FDM, and a path back to stride 2."""

    def __init__(self, config: EncodeOnceConfig) -> None:
        super().__init__()
        self.config = config
        s2, s4, s8, s16 = config.widths
        self.click_stem = nn.ModuleList()
        self.click_lateral = nn.ModuleList()
        in_channels = 3  # positive, negative, previous mask
        for width, click_width in zip(config.widths, config.click_widths, strict=True):
            self.click_stem.append(nn.Conv2d(in_channels, click_width, 3, stride=2, padding=1))
            self.click_lateral.append(nn.Conv2d(click_width, width, 1))
            in_channels = click_width
        self.fuse = nn.ModuleList(nn.BatchNorm2d(width) for width in config.widths)
        self.reduce = nn.ModuleList(
            nn.Conv2d(source, target, 1, bias=False) for source, target in ((s4, s2), (s8, s4), (s16, s8))
        )
        self.global_blocks = nn.Sequential(
            *(InvertedResidual(s16, 5, expansion=2, dilation=dilation) for dilation in (1, 2, 3))
        )
        self.feature_diffusion = FeatureDiffusion(s16, config.feature_diffusion)
        self.refine = nn.ModuleList(
            [
                separable(s2, s2, 3),
                nn.Sequential(separable(s4, s4, 3), separable(s4, s4, 3)),
                nn.Sequential(separable(s8, s8, 5), separable(s8, s8, 5)),
            ]
        )
        self.head = nn.Conv2d(s2, 1, 1)

    def forward(self, features: tuple[Tensor, ...], clicks: Tensor, previous_mask: Tensor) -> Outputs:
        height, width = previous_mask.shape[-2:]
        maps = click_maps(clicks, height, width, self.config.click_map)
        hint = torch.cat([maps, previous_mask.float()], dim=1).to(features[0].dtype)
        hints = []
        for stem, lateral in zip(self.click_stem, self.click_lateral, strict=True):
            hint = F.relu(stem(hint))
            hints.append(lateral(hint))

        x = F.relu(self.fuse[3](features[3] + hints[3]))
        x = self.global_blocks(x)
        kind = ClickMapConfig("gaussian", self.config.feature_diffusion.source_size)
        sources = click_maps(clicks, height // 16, width // 16, kind, stride=16)
        x, auxiliary = self.feature_diffusion(x, sources, cell_clicks(clicks, stride=16))
        for level in (2, 1, 0):
            # Reduced before it is enlarged: the same result (both are linear), a quarter of the work.
            upper = F.interpolate(
                self.reduce[level](x), scale_factor=2.0, mode="bilinear", align_corners=False
            )
            x = self.refine[level](F.relu(self.fuse[level](features[level] + hints[level] + upper)))
        logits = F.interpolate(self.head(x).float(), scale_factor=2.0, mode="bilinear", align_corners=False)
        return Outputs(logits, auxiliary)
