"""CSFP: a click network whose clicked features are propagated twice, at stride 4 and, cascaded, at stride 2.

Source: "Cascaded Sparse Feature Propagation Network for Interactive Segmentation", Eq. 1-3. Features F at
stride 4 come from an HRNet, as in the public code, or from DeepLabV3+, as in the paper; the low-level
features at stride 2 are those of the backbone's stem, which the clicks have entered. Then SGM on F, HSGM on
both, and the classification of HSGM's output: by OCR on an HRNet, by a separable head on DeepLabV3+.

Looking twice, at the image and at a crop ("global to local"), is the run time's part: ``clickmask.crop``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from clickmask_models.backbones import resnet
from clickmask_models.backbones.hrnet import HRNETS, HRNet
from clickmask_models.click_maps import ClickMapConfig
from clickmask_models.click_network import ClickNetwork
from clickmask_models.deeplab import ASPP, Decoder, SeparableHead, resize
from clickmask_models.fusion import Conv1S
from clickmask_models.ocr import OCR
from clickmask_models.outputs import Outputs
from clickmask_models.pixel_diffusion import PixelDiffusionConfig
from clickmask_models.sparse_propagation import HSGM, SGM, SparsePropagationConfig, click_cells

_RESNETS: dict[str, tuple[resnet.Depth, resnet.Stem]] = {
    "resnet34": (34, "v1b"),
    "resnet50": (50, "v1s"),
    "resnet101": (101, "v1s"),
}
_RATES = (12, 24, 36)
_COARSE, _LOW = 4, 2  # strides of SGM and HSGM


@dataclass(frozen=True)
class CSFPConfig:
    """Architecture of a CSFP network. The defaults are the paper's HRNet-18.

    Attributes:
        backbone: an HRNet, followed by OCR, or a ResNet at stride 8, followed by ASPP and a decoder.
        channels: of OCR's context, or of ASPP and decoder.
        dropout: before the classification head, or after ASPP.
        click_map: how clicks are drawn, in network-input pixels.
        previous_mask: whether the previous mask enters beside the click maps.
        propagation: form of SGM and HSGM.
        pixel_diffusion: PDM after the logits, at inference only, which works on any network's; CSFP has none.
    """

    backbone: Literal["hrnet18s", "hrnet18", "hrnet32", "resnet34", "resnet50", "resnet101"] = "hrnet18"
    channels: int = 64
    dropout: float = 0.05
    click_map: ClickMapConfig = field(default_factory=ClickMapConfig)
    previous_mask: bool = True
    propagation: SparsePropagationConfig = field(default_factory=SparsePropagationConfig)
    pixel_diffusion: PixelDiffusionConfig | None = None

    def __post_init__(self) -> None:
        if self.backbone not in HRNETS and self.backbone not in _RESNETS:
            known = ", ".join((*HRNETS, *_RESNETS))
            raise ValueError(f"backbone must be one of {known}, got {self.backbone!r}")
        if self.channels < 2:
            raise ValueError(
                f"channels must be at least 2 (DeepLabV3+'s head halves them), got {self.channels}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class CSFP(ClickNetwork):
    """The network; any H and W (feature sizes round up).

    The auxiliary logits are OCR's, at stride 4, whose head sees F before SGM; DeepLabV3+ has none.
    """

    def __init__(self, config: CSFPConfig | None = None) -> None:
        config = config or CSFPConfig()
        super().__init__(config, resnet.MEAN, resnet.STD)
        self.fusion = Conv1S(self._map_channels)
        self._has_ocr = config.backbone in HRNETS
        if self._has_ocr:
            self._build_hrnet(config)
        else:
            self._build_deeplab(config)
        self._initialise()

    def _build_hrnet(self, config: CSFPConfig) -> None:
        self.backbone: nn.Module = HRNet(*HRNETS[config.backbone])
        channels = self.backbone.channels
        self.sgm = SGM(channels, config.propagation)
        self.hsgm = HSGM(channels, self.backbone.stem_channels, config.propagation)
        self.ocr = OCR(self.hsgm.channels, config.channels, config.dropout, auxiliary_channels=channels)

    def _build_deeplab(self, config: CSFPConfig) -> None:
        self.backbone = resnet.ResNet(*_RESNETS[config.backbone])
        skip_channels, deep_channels = self.backbone.channels
        self.aspp = ASPP(deep_channels, config.channels, _RATES, config.dropout)
        self.decoder = Decoder(config.channels, skip_channels, align_corners=True)
        self.sgm = SGM(config.channels, config.propagation)
        self.hsgm = HSGM(config.channels, self.backbone.stem_channels, config.propagation)
        self.head = SeparableHead(self.hsgm.channels)

    def _segment(self, image: Tensor, maps: Tensor, clicks: Tensor) -> Outputs:
        features, low = self._features(image, self.fusion(maps))
        propagated = self._propagate(features, low, clicks)
        if not self._has_ocr:
            return Outputs(self.head(propagated), None)
        auxiliary = self.ocr.aux_head(features)
        enlarged = resize(auxiliary, propagated.shape[-2:], align_corners=True)
        return Outputs(self.ocr(propagated, enlarged), auxiliary)

    def _features(self, image: Tensor, addition: Tensor) -> tuple[Tensor, Tensor]:
        """F at stride 4 and the stem's features at stride 2, from a normalised image and click features."""
        if self._has_ocr:
            low = self.backbone.stem(image, addition)
            return self.backbone(low), low
        features = self.backbone(image, addition)
        return self.decoder(self.aspp(features.s8), features.s4), features.s2

    def _propagate(self, features: Tensor, low: Tensor, clicks: Tensor) -> Tensor:
        """SGM, then HSGM: (B, C, H/4, W/4), (B, C', H/2, W/2) -> (B, C'', H/2, W/2)."""
        drops = self.config.propagation.drops_first_cell
        coarse, fine = (
            click_cells(clicks, *x.shape[-2:], stride, drops_first_cell=drops)
            for x, stride in ((features, _COARSE), (low, _LOW))
        )
        return self.hsgm(self.sgm(features, coarse), low, fine)
