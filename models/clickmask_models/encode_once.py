"""Encode-once networks: the image alone through the backbone, clicks after it; and CDNet so.

The published networks take clicks at the stem, so every click pays the whole backbone. Here the
encoder sees only the image and its features are kept; a click pays the decoder. Clicks and previous
mask enter through a small strided stem whose maps are added at strides 2, 4, 8 and 16; Feature
Diffusion (CDNet, Eq. 1-4) runs at stride 16, where its N is small.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickmask_models.backbones.mobilenet_v2 import HIDDEN, MEAN, STD, ContextHead, MobileNetV2
from clickmask_models.click_maps import ClickMapConfig, cell_clicks, click_maps, click_planes
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
        hidden: channels inside the blocks of the backbone, see ``MobileNetV2``; fewer than published is a
            faster encoder, cut from a trained one.
        click_map: how clicks are drawn for the stem, in network-input pixels.
        feature_diffusion: FDM at stride 16.
        pixel_diffusion: PDM after the logits, at inference only; None for none. The public code's
            affinity did better than the paper's on held-out training images (docs/presets.md).
    """

    widths: tuple[int, int, int, int] = (16, 32, 96, 128)
    click_widths: tuple[int, int, int, int] = (16, 16, 32, 48)
    hidden: tuple[int, ...] = field(default=HIDDEN, metadata={"before": HIDDEN, "inner": True})
    click_map: ClickMapConfig = field(default_factory=ClickMapConfig)
    feature_diffusion: FeatureDiffusionConfig = field(
        default_factory=lambda: FeatureDiffusionConfig(inner_channels=64)
    )
    pixel_diffusion: PixelDiffusionConfig | None = field(
        default_factory=lambda: PixelDiffusionConfig(affinity="official", eps=1e-5)
    )

    def __post_init__(self) -> None:
        check_widths(self.widths, self.click_widths)
        if self.feature_diffusion.source_kind != "gaussian":
            raise ValueError(
                "encode-once networks draw FDM's clicks as Gaussians, got "
                f"source_kind={self.feature_diffusion.source_kind!r}"
            )


def check_widths(widths: tuple[int, ...], click_widths: tuple[int, ...]) -> None:
    """Raises ValueError unless both are four positive numbers."""
    for name, found in (("widths", widths), ("click_widths", click_widths)):
        if len(found) != 4 or min(found) < 1:
            raise ValueError(f"{name} must be four positive numbers (strides 2 to 16), got {found}")


class EncodeOnce(nn.Module):
    """A network in two halves; H and W must be multiples of 32, so that every stride divides them.

    Args:
        config: with ``widths`` of the decoder and ``hidden`` of the backbone.
        decoder: takes features of those widths, clicks and previous mask, and gives ``Outputs``.
    """

    mean = MEAN
    std = STD
    takes_previous_mask = True

    def __init__(self, config: Any, decoder: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.backbone = MobileNetV2(config.hidden)
        self.context = ContextHead()
        sources = (*MobileNetV2.channels[:3], ContextHead.channels)
        self.lateral = nn.ModuleList(
            nn.Conv2d(source, width, 1) for source, width in zip(sources, config.widths, strict=True)
        )
        self.coarse: nn.Module = nn.Identity()  # see folding.py
        self.decoder = decoder

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) RGB in [0, 1] -> features at strides 2, 4, 8, 16; independent of clicks.

        The fine ones are the backbone's own, of few channels, since they are what a cached crop holds; the
        coarse one is as wide as the decoder.
        """
        pyramid = self.backbone((image - 0.5) * 2.0)  # (x - MEAN) / STD, exact in binary
        return (*pyramid[:3], self.lateral[3](self.context(pyramid.s16)))

    def decode(self, features: tuple[Tensor, ...], clicks: Tensor, previous_mask: Tensor) -> Tensor:
        """Features of ``encode``, clicks (B, M, 3), previous mask (B, 1, H, W) -> logits (B, 1, H, W)."""
        return self.decode_with_auxiliary(features, clicks, previous_mask).logits

    def decode_with_auxiliary(
        self, features: tuple[Tensor, ...], clicks: Tensor, previous_mask: Tensor
    ) -> Outputs:
        """As ``decode``, with the logits that FDM's auxiliary loss supervises."""
        fine = (lateral(feature) for lateral, feature in zip(self.lateral[:3], features[:3], strict=True))
        return self.decoder((*fine, self.coarse(features[3])), clicks, previous_mask)

    def forward(self, image: Tensor, clicks: Tensor, previous_mask: Tensor) -> Tensor:
        return self.decode(self.encode(image), clicks, previous_mask)

    def forward_with_auxiliary(self, image: Tensor, clicks: Tensor, previous_mask: Tensor) -> Outputs:
        return self.decode_with_auxiliary(self.encode(image), clicks, previous_mask)


class EncodeOnceCDNet(EncodeOnce):
    """Encode-once CDNet; the auxiliary logits are those of FDM's destination map, at stride 16."""

    def __init__(self, config: EncodeOnceConfig | None = None) -> None:
        config = config or EncodeOnceConfig()
        super().__init__(config, _Decoder(config))


class ClickDecoder(nn.Module):
    """Where clicks and previous mask enter: a strided stem, and a hint for the features of each stride.

    Args:
        config: with ``widths``, ``click_widths`` and ``click_map``.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.click_stem = nn.ModuleList()
        self.click_lateral = nn.ModuleList()
        in_channels = 3  # positive, negative, previous mask
        for width, click_width in zip(config.widths, config.click_widths, strict=True):
            self.click_stem.append(nn.Conv2d(in_channels, click_width, 3, stride=2, padding=1))
            self.click_lateral.append(nn.Conv2d(click_width, width, 1))
            in_channels = click_width
        self.fuse = nn.ModuleList(nn.BatchNorm2d(width) for width in config.widths)

    def reduction(self, level: int) -> nn.Conv2d | None:
        """What gives ``blend`` its ``upper`` at a stride, before that is enlarged."""
        raise NotImplementedError

    def hints(self, clicks: Tensor, previous_mask: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """What clicks and previous mask say at strides 2, 4, 8 and 16."""
        hint = click_planes(clicks, previous_mask, self.config.click_map).to(dtype)
        found = []
        for stem in self.click_stem:
            hint = F.relu(stem(hint))
            found.append(hint)
        return found

    def blend(self, level: int, hint: Tensor, feature: Tensor, upper: Tensor | None = None) -> Tensor:
        """Features of one stride: those of the image, of the stride above and of the clicks; normalised."""
        # One source at a time onto what there is: each sum is then part of the convolution before it.
        x = feature if upper is None else upper + feature
        return F.relu(self.fuse[level](x + self.click_lateral[level](hint)))


def enlarge(x: Tensor) -> Tensor:
    """To twice the size, about pixel centres."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def enlarge_plane(x: Tensor) -> Tensor:
    """As ``enlarge``, of a single channel, (B, 1, h, w), in float32.

    Runtimes that block channels by 16 would enlarge 15 channels of nothing beside it: without its channel for
    a moment, the plane leaves that layout.
    """
    return enlarge(x.float().squeeze(1).unsqueeze(1))


class _Decoder(ClickDecoder):
    """What a click costs: click stem, stride-16 reasoning with FDM, and a path back to stride 2."""

    def __init__(self, config: EncodeOnceConfig) -> None:
        super().__init__(config)
        s2, s4, s8, s16 = config.widths
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

    def reduction(self, level: int) -> nn.Conv2d | None:
        return self.reduce[level] if level < 3 else None

    def forward(self, features: tuple[Tensor, ...], clicks: Tensor, previous_mask: Tensor) -> Outputs:
        hints = self.hints(clicks, previous_mask, features[0].dtype)
        x = self.global_blocks(self.blend(3, hints[3], features[3]))
        kind = ClickMapConfig("gaussian", self.config.feature_diffusion.source_size)
        sources = click_maps(clicks, *x.shape[-2:], kind, stride=16)
        x, auxiliary = self.feature_diffusion(x, sources, cell_clicks(clicks, stride=16))
        for level in (2, 1, 0):
            # Reduced before it is enlarged: the same result (both are linear), a quarter of the work.
            upper = enlarge(self.reduce[level](x))
            x = self.refine[level](self.blend(level, hints[level], features[level], upper))
        return Outputs(enlarge_plane(self.head(x)), auxiliary)
