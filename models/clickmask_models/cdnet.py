"""CDNet as published: clicks at the stem, DeepLabV3+, Feature Diffusion at ASPP's output.

Since clicks enter at the stem, nothing can be kept from one click to the next: every click pays the whole
network. ``encode_once.EncodeOnceCDNet`` is the form that does not. Pixel Diffusion follows the logits at
inference (after flip averaging, if any) and is no part of ``forward``: see ``pixel_diffusion``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from clickmask_models.backbones import mobilenet_v2, resnet
from clickmask_models.click_maps import ClickMapConfig, cell_clicks, click_maps
from clickmask_models.click_network import ClickNetwork
from clickmask_models.deeplab import ASPP, Decoder, SeparableHead, resize
from clickmask_models.feature_diffusion import FeatureDiffusion, FeatureDiffusionConfig
from clickmask_models.fusion import Conv1S, MapFusion
from clickmask_models.outputs import Outputs
from clickmask_models.pixel_diffusion import PixelDiffusionConfig

_RESNETS: dict[str, resnet.Depth] = {"resnet18": 18, "resnet34": 34, "resnet50": 50, "resnet101": 101}
_FDM_DISK = ClickMapConfig("disk", 24.0)


@dataclass(frozen=True)
class CDNetConfig:
    """Architecture of a CDNet with clicks at the stem. The defaults are the paper's.

    Attributes:
        backbone: ``resnet18`` to ``resnet101`` at stride 8, or ``mobilenet_v2`` at stride 16 (not published).
        stem: of a ResNet, ``v1b`` (7x7) or ``v1s`` (three 3x3, 128 channels).
        channels: width of ASPP, FDM and the decoder.
        rates: dilations of ASPP's 3x3 branches.
        dropout: after ASPP.
        align_corners: of every bilinear resize; the published networks align.
        click_map: how clicks are drawn for the stem, in network-input pixels.
        fusion: ``map_fusion`` makes three channels of image and maps (paper); ``conv1s`` adds features of
            the maps to the stem's output (public code).
        previous_mask: whether a previous mask enters beside the click maps (no released one has it).
        feature_diffusion: FDM at ASPP's output; None for the baseline without it.
        pixel_diffusion: PDM after the logits, at inference only; None for none.
    """

    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2"] = "resnet50"
    stem: resnet.Stem = "v1s"
    channels: int = 128
    rates: tuple[int, ...] = (12, 24, 36)
    dropout: float = 0.2
    align_corners: bool = True
    click_map: ClickMapConfig = field(default_factory=lambda: ClickMapConfig("gaussian", 10.0))
    fusion: Literal["map_fusion", "conv1s"] = "map_fusion"
    previous_mask: bool = False
    feature_diffusion: FeatureDiffusionConfig | None = field(default_factory=FeatureDiffusionConfig)
    pixel_diffusion: PixelDiffusionConfig | None = field(default_factory=PixelDiffusionConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rates", tuple(self.rates))  # JSON gives a list
        if self.backbone not in (*_RESNETS, "mobilenet_v2"):
            raise ValueError(f"backbone must be mobilenet_v2 or {', '.join(_RESNETS)}, got {self.backbone!r}")
        if self.fusion not in ("map_fusion", "conv1s"):
            raise ValueError(f"fusion must be 'map_fusion' or 'conv1s', got {self.fusion!r}")
        if self.channels < 2 or self.channels % 2:
            raise ValueError(f"channels must be even (the head halves them), got {self.channels}")


class CDNet(ClickNetwork):
    """CDNet; any H and W with ResNets (feature sizes round up), multiples of 16 with MobileNetV2.

    The auxiliary logits are those of FDM's destination map, at the stride of the deep features.
    """

    def __init__(self, config: CDNetConfig | None = None) -> None:
        config = config or CDNetConfig()
        source = mobilenet_v2 if config.backbone == "mobilenet_v2" else resnet
        super().__init__(config, source.MEAN, source.STD, align_corners=config.align_corners)
        self.backbone: nn.Module
        if config.backbone == "mobilenet_v2":
            self.backbone = mobilenet_v2.MobileNetV2()
            _, skip_channels, _, deep_channels = self.backbone.channels
            stem_channels, self.stride = 32, 16
        else:
            self.backbone = resnet.ResNet(_RESNETS[config.backbone], config.stem)
            skip_channels, deep_channels = self.backbone.channels
            stem_channels, self.stride = 64, 8
        self.fusion: nn.Module = MapFusion(self._map_channels)
        if config.fusion == "conv1s":
            self.fusion = Conv1S(self._map_channels, stem_channels)
        self.aspp = ASPP(deep_channels, config.channels, config.rates, config.dropout)
        if config.feature_diffusion is not None:
            self.feature_diffusion = FeatureDiffusion(config.channels, config.feature_diffusion)
        self.decoder = Decoder(config.channels, skip_channels, config.align_corners)
        self.head = SeparableHead(config.channels)
        self._initialise()

    def _segment(self, image: Tensor, maps: Tensor, clicks: Tensor) -> Outputs:
        early, deep = self._features(image, maps)
        x, auxiliary = self.aspp(deep), None
        if self.config.feature_diffusion is not None:
            sources = self._sources(clicks, self.config.feature_diffusion, image.shape[-2:], x.shape[-2:])
            x, auxiliary = self.feature_diffusion(x, sources, self._cell_clicks(clicks))
        return Outputs(self.head(self.decoder(x, early)), auxiliary)

    def _features(self, image: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Early (stride 4) and deep features of the backbone, clicks fused at its stem."""
        if self.config.fusion == "map_fusion":
            features = self.backbone(self.fusion(image, maps))
        else:
            features = self.backbone(image, self.fusion(maps))
        return features.s4, features[-1]

    def _sources(
        self, clicks: Tensor, config: FeatureDiffusionConfig, size: tuple[int, ...], cells: tuple[int, ...]
    ) -> Tensor:
        """FDM's S from the clicks, (B, 2, h, w); ``size`` is the image's (H, W), ``cells`` (h, w)."""
        if config.source_kind == "disk_24px":
            maps = click_maps(clicks, size[0], size[1], _FDM_DISK)
            return resize(maps, cells, self.config.align_corners)
        gaussian = ClickMapConfig("gaussian", config.source_size)
        return click_maps(self._cell_clicks(clicks), cells[0], cells[1], gaussian)

    def _cell_clicks(self, clicks: Tensor) -> Tensor:
        """Clicks in cells of the deep features, (B, M, 3)."""
        return cell_clicks(clicks, self.stride, align_corners=self.config.align_corners)
