"""Encode-once CSFP: sparse propagation over features that are cached with the image.

SGM at stride 16 and HSGM at stride 4, as in the paper's text (Eq. 1-3); its HRNet takes clicks at the stem,
so that every click pays the backbone. Here clicked features are those of the cached map at the clicks' cells
plus the click stem's hints, and a click pays the decoder alone. No Feature Diffusion: SGM is what spreads a
click at stride 16.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from clickmask_models.backbones.mobilenet_v2 import HIDDEN
from clickmask_models.click_maps import ClickMapConfig
from clickmask_models.encode_once import ClickDecoder, EncodeOnce, check_widths, enlarge, enlarge_plane
from clickmask_models.layers import InvertedResidual, separable
from clickmask_models.outputs import Outputs
from clickmask_models.pixel_diffusion import PixelDiffusionConfig
from clickmask_models.sparse_propagation import (
    HSGM,
    SGM,
    ClickCells,
    SparsePropagationConfig,
    click_cells,
)

_COARSE, _FINE = 16, 4  # strides of SGM and HSGM


@dataclass(frozen=True)
class EncodeOnceCSFPConfig:
    """Architecture of an encode-once CSFP on MobileNetV2.

    Attributes:
        widths: decoder channels at strides 2, 4, 8 and 16.
        click_widths: click-stem channels at the same strides.
        hidden: channels inside the blocks of the backbone, see ``MobileNetV2``.
        click_map: how clicks are drawn for the stem, in network-input pixels.
        propagation: form of SGM and HSGM, the latter's channels reduced.
        sgm: False leaves SGM out (Table 3 of the paper).
        hsgm: False leaves HSGM out: stride 4 is then a step up like the one before it.
        pixel_diffusion: PDM after the logits, at inference only; CSFP has none.
    """

    widths: tuple[int, int, int, int] = (16, 32, 96, 128)
    click_widths: tuple[int, int, int, int] = (16, 16, 32, 48)
    hidden: tuple[int, ...] = field(default=HIDDEN, metadata={"before": HIDDEN, "inner": True})
    click_map: ClickMapConfig = field(default_factory=ClickMapConfig)
    propagation: SparsePropagationConfig = field(
        default_factory=lambda: SparsePropagationConfig(reduced_channels=32)
    )
    sgm: bool = True
    hsgm: bool = True
    pixel_diffusion: PixelDiffusionConfig | None = None

    def __post_init__(self) -> None:
        check_widths(self.widths, self.click_widths)


class EncodeOnceCSFP(EncodeOnce):
    """Encode-once CSFP; without auxiliary logits."""

    def __init__(self, config: EncodeOnceCSFPConfig | None = None) -> None:
        config = config or EncodeOnceCSFPConfig()
        super().__init__(config, _Decoder(config))


class _Decoder(ClickDecoder):
    """What a click costs: click stem, SGM, one step up, HSGM, and a path back to stride 2."""

    def __init__(self, config: EncodeOnceCSFPConfig) -> None:
        super().__init__(config)
        s2, s4, s8, s16 = config.widths
        self.global_blocks = nn.Sequential(
            *(InvertedResidual(s16, 5, expansion=2, dilation=dilation) for dilation in (1, 2, 3))
        )
        if config.sgm:
            self.sgm = SGM(s16, config.propagation)
        self.reduce_coarse = nn.Conv2d(s16, s8, 1, bias=False)
        self.refine_coarse = nn.Sequential(separable(s8, s8, 5), separable(s8, s8, 5))
        if config.hsgm:
            self.hsgm = HSGM(s8, s4, config.propagation, align_corners=False)
            s4 = self.hsgm.channels
        else:
            self.reduce_middle = nn.Conv2d(s8, s4, 1, bias=False)
            self.refine_middle = nn.Sequential(separable(s4, s4, 3), separable(s4, s4, 3))
        self.reduce_fine = nn.Conv2d(s4, s2, 1, bias=False)
        self.refine_fine = separable(s2, s2, 3)
        self.head = nn.Conv2d(s2, 1, 1)

    def reduction(self, level: int) -> nn.Conv2d | None:
        middle = None if self.config.hsgm else self.reduce_middle
        return (self.reduce_fine, middle, self.reduce_coarse, None)[level]

    def forward(self, features: tuple[Tensor, ...], clicks: Tensor, previous_mask: Tensor) -> Outputs:
        hints = self.hints(clicks, previous_mask, features[0].dtype)
        x = self.global_blocks(self.blend(3, hints[3], features[3]))
        if self.config.sgm:
            x = self.sgm(x, self._cells(clicks, x, _COARSE))
        x = self.refine_coarse(self.blend(2, hints[2], features[2], enlarge(self.reduce_coarse(x))))
        if self.config.hsgm:
            x = self.hsgm(x, self.blend(1, hints[1], features[1]), self._cells(clicks, hints[1], _FINE))
        else:
            x = self.refine_middle(self.blend(1, hints[1], features[1], enlarge(self.reduce_middle(x))))
        x = self.refine_fine(self.blend(0, hints[0], features[0], enlarge(self.reduce_fine(x))))
        return Outputs(enlarge_plane(self.head(x)), None)

    def _cells(self, clicks: Tensor, x: Tensor, stride: int) -> ClickCells:
        drops = self.config.propagation.drops_first_cell
        return click_cells(clicks, *x.shape[-2:], stride, drops_first_cell=drops)
