"""RITM: clicks and the previous mask at the stem of an HRNet, whose features OCR classifies.

Source: Sofiiuk et al., "Reviving Iterative Training with Mask Guidance for Interactive Segmentation" (2021),
in the form of its public code. Its DeepLabV3+ is a ``cdnet.CDNet`` without its two diffusions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from clickmask_models.backbones import resnet
from clickmask_models.backbones.hrnet import HRNETS, HRNet
from clickmask_models.click_maps import ClickMapConfig
from clickmask_models.click_network import ClickNetwork
from clickmask_models.fusion import Conv1S
from clickmask_models.ocr import OCR
from clickmask_models.outputs import Outputs
from clickmask_models.pixel_diffusion import PixelDiffusionConfig


@dataclass(frozen=True)
class RITMConfig:
    """Architecture of a RITM network. The defaults are those of the public HRNet-18s.

    Attributes:
        backbone: ``hrnet18s``, ``hrnet18`` or ``hrnet32``.
        ocr_channels: of OCR's context: 48, 64 and 128 in the published networks.
        dropout: before the classification head.
        click_map: how clicks are drawn, in network-input pixels.
        previous_mask: whether the previous mask enters beside the click maps.
        pixel_diffusion: PDM after the logits, at inference only, which works on any network's; RITM has none.
    """

    backbone: Literal["hrnet18s", "hrnet18", "hrnet32"] = "hrnet18s"
    ocr_channels: int = 48
    dropout: float = 0.05
    click_map: ClickMapConfig = field(default_factory=ClickMapConfig)
    previous_mask: bool = True
    pixel_diffusion: PixelDiffusionConfig | None = None

    def __post_init__(self) -> None:
        if self.backbone not in HRNETS:
            raise ValueError(f"backbone must be one of {', '.join(HRNETS)}, got {self.backbone!r}")
        if self.ocr_channels < 1:
            raise ValueError(f"ocr_channels must be positive, got {self.ocr_channels}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class RITM(ClickNetwork):
    """The network; any H and W (feature sizes round up). Its auxiliary logits are OCR's, at stride 4."""

    def __init__(self, config: RITMConfig | None = None) -> None:
        config = config or RITMConfig()
        super().__init__(config, resnet.MEAN, resnet.STD)
        self.fusion = Conv1S(self._map_channels)
        self.backbone = HRNet(*HRNETS[config.backbone])
        self.ocr = OCR(self.backbone.channels, config.ocr_channels, config.dropout)
        self._initialise()

    def _segment(self, image: Tensor, maps: Tensor, clicks: Tensor) -> Outputs:  # noqa: ARG002
        features = self.backbone(self.backbone.stem(image, self.fusion(maps)))
        auxiliary = self.ocr.aux_head(features)
        return Outputs(self.ocr(features, auxiliary), auxiliary)
