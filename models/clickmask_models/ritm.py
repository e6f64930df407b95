"""RITM: clicks and the previous mask at the stem of an HRNet, whose features OCR classifies.

Source: Sofiiuk et al., "Reviving Iterative Training with Mask Guidance for Interactive Segmentation" (2021),
in the form of its public code. Its DeepLabV3+ is a ``cdnet.CDNet`` without its two diffusions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from clickmask_models.backbones import resnet
from clickmask_models.backbones.hrnet import HRNet
from clickmask_models.click_maps import ClickMapConfig
from clickmask_models.deeplab import initialise, resize
from clickmask_models.fusion import Conv1S, input_maps
from clickmask_models.ocr import OCR
from clickmask_models.outputs import Outputs
from clickmask_models.pixel_diffusion import PixelDiffusionConfig

# Name -> width, and whether it is the small form.
HRNETS: dict[str, tuple[int, bool]] = {"hrnet18s": (18, True), "hrnet18": (18, False), "hrnet32": (32, False)}


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


class RITM(nn.Module):
    """The network; any H and W (feature sizes round up)."""

    _mean: Tensor
    _std: Tensor

    def __init__(self, config: RITMConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RITMConfig()
        self.takes_previous_mask = config.previous_mask
        self.mean, self.std = resnet.MEAN, resnet.STD
        self.fusion = Conv1S(3 if config.previous_mask else 2)
        self.backbone = HRNet(*HRNETS[config.backbone])
        self.ocr = OCR(self.backbone.channels, config.ocr_channels, config.dropout)
        initialise(self.fusion)
        initialise(self.ocr)
        self.register_buffer("_mean", torch.tensor(self.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(self.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor, clicks: Tensor, previous_mask: Tensor | None = None) -> Tensor:
        """Segments what the clicks say.

        Args:
            image: (B, 3, H, W) float RGB in [0, 1].
            clicks: (B, M, 3) float (x, y, label) in pixels of the image.
            previous_mask: (B, 1, H, W) probability, where the configuration asks for one.

        Returns:
            (B, 1, H, W) float32 logits.

        Raises:
            ValueError: there is no previous mask, and the configuration asks for one.
        """
        return self.forward_with_auxiliary(image, clicks, previous_mask).logits

    def forward_with_auxiliary(
        self, image: Tensor, clicks: Tensor, previous_mask: Tensor | None = None
    ) -> Outputs:
        """As ``forward``, with the logits (B, 1, H/4, W/4) of OCR's auxiliary head."""
        size = image.shape[-2:]
        maps = input_maps(clicks, self.config.click_map, size, previous_mask, self.takes_previous_mask)
        x = (image - self._mean) / self._std
        features = self.backbone(self.backbone.stem(x, self.fusion(maps)))
        auxiliary = self.ocr.aux_head(features)
        logits = self.ocr(features, auxiliary)
        return Outputs(resize(logits.float(), size, align_corners=True), auxiliary)
