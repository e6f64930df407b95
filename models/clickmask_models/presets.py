"""Named configurations: networks, and how their inputs are prepared.

Neither a paper's tables nor its public code's come from the other's settings, so both are kept whole:
``paper`` follows the text, ``official`` the public code, whose checkpoints need it. ``docs/presets.md``
compares them point by point and says where each value comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from clickmask_models.cdnet import CDNet, CDNetConfig
from clickmask_models.click_maps import ClickMapConfig
from clickmask_models.csfp import CSFP, CSFPConfig
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_models.encode_once_csfp import EncodeOnceCSFP, EncodeOnceCSFPConfig
from clickmask_models.feature_diffusion import FeatureDiffusionConfig
from clickmask_models.pixel_diffusion import PixelDiffusionConfig
from clickmask_models.ritm import RITM, RITMConfig
from clickmask_models.sparse_propagation import SparsePropagationConfig

NetworkConfig = CDNetConfig | EncodeOnceConfig | EncodeOnceCSFPConfig | CSFPConfig | RITMConfig

DEFAULT = "encode_once_mobilenet_v2"


@dataclass(frozen=True)
class Crop:
    """The crop policy, field by field as in a bundle's manifest (``clickmask.crop.CropPolicy`` explains)."""

    kind: Literal["paper", "fbrs", "stable", "global_to_local", "none"]
    start_click: int
    expansion: float
    min_size: int
    min_fraction: float
    hysteresis_iou: float
    small_object_expansion: float = 1.0  # off
    close_above: float | None = None  # off


@dataclass(frozen=True)
class Pipeline:
    """What happens around a network at run time, field by field as in a bundle's manifest.

    Attributes:
        sizes: square network inputs, in pixels, ascending.
        fit: ``letterbox`` keeps the crop's aspect and pads; ``squash`` does not.
        coordinates: ``half_pixel`` or ``public`` (resizes align corners, clicks scale about the first pixel).
        crop: where the network looks.
        flip_averaging: whether logits are averaged with those of the mirrored input, before Pixel Diffusion.
        threshold: probability above which a pixel is object.
        momentum: share of the logits before a click in those after it, away from the click.
    """

    sizes: tuple[int, ...]
    fit: Literal["letterbox", "squash"]
    coordinates: Literal["half_pixel", "public"]
    crop: Crop
    flip_averaging: bool
    threshold: float
    momentum: float


@dataclass(frozen=True)
class Preset:
    """A network's configuration and the pipeline around it."""

    network: NetworkConfig
    pipeline: Pipeline


_PAPER_PIPELINE = Pipeline(
    sizes=(384, 608),
    fit="letterbox",
    coordinates="public",
    crop=Crop("fbrs", start_click=3, expansion=1.4, min_size=200, min_fraction=0.0, hysteresis_iou=0.5),
    flip_averaging=True,
    threshold=0.5,
    momentum=0.0,
)

_OFFICIAL = Preset(
    network=CDNetConfig(
        backbone="resnet34",
        stem="v1b",
        click_map=ClickMapConfig("disk", 5.0),
        fusion="conv1s",
        feature_diffusion=FeatureDiffusionConfig("v3", source_kind="disk_24px"),
        pixel_diffusion=PixelDiffusionConfig(
            iterations=5,
            amplitude=10.0,
            click_map=ClickMapConfig("disk", 5.0),
            cutoff=0.25,
            affinity="official",
            eps=1e-5,
            output="state",
        ),
    ),
    pipeline=Pipeline(
        sizes=(384,),
        fit="squash",
        coordinates="public",
        crop=Crop("paper", start_click=2, expansion=1.4, min_size=10, min_fraction=0.0, hysteresis_iou=0.0),
        flip_averaging=True,
        threshold=0.5,
        momentum=0.0,
    ),
)

_ENCODE_ONCE = Preset(
    network=EncodeOnceConfig(),
    pipeline=Pipeline(
        sizes=(384, 512, 608),
        fit="letterbox",
        coordinates="half_pixel",
        crop=Crop(
            "stable",
            start_click=2,
            expansion=1.3,
            min_size=64,
            min_fraction=0.35,
            hysteresis_iou=0.3,
            close_above=1.25,
        ),
        flip_averaging=False,
        threshold=0.5,
        momentum=0.25,
    ),
)

# Public code of f-BRS and, unchanged, of RITM.
_FBRS_PIPELINE = Pipeline(
    sizes=(256, 384, 512, 608),
    fit="letterbox",
    coordinates="public",
    crop=Crop("fbrs", start_click=2, expansion=1.4, min_size=200, min_fraction=0.0, hysteresis_iou=0.5),
    flip_averaging=True,
    threshold=0.49,
    momentum=0.0,
)

# DeepLabV3+ of both, without CDNet's diffusions.
_RITM_DEEPLAB = CDNetConfig(
    backbone="resnet34",
    stem="v1b",
    click_map=ClickMapConfig("disk", 5.0),
    fusion="conv1s",
    feature_diffusion=None,
    pixel_diffusion=None,
)
_FBRS_DEEPLAB = replace(_RITM_DEEPLAB, click_map=ClickMapConfig("distance", 260.0), fusion="map_fusion")

_CSFP_PAPER_PIPELINE = replace(
    _FBRS_PIPELINE,
    crop=Crop(
        "global_to_local", start_click=1, expansion=1.4, min_size=1, min_fraction=0.0, hysteresis_iou=0.0
    ),
)
_CSFP_OFFICIAL = Preset(
    network=CSFPConfig(
        propagation=SparsePropagationConfig(
            heads=3, key_reduction=3, scaled=True, gamma=True, drops_first_cell=True
        )
    ),
    pipeline=replace(
        _CSFP_PAPER_PIPELINE, crop=replace(_CSFP_PAPER_PIPELINE.crop, small_object_expansion=2.5)
    ),
)

PRESETS: dict[str, Preset] = {
    DEFAULT: _ENCODE_ONCE,
    "paper": Preset(CDNetConfig(), _PAPER_PIPELINE),
    "paper_resnet34": Preset(CDNetConfig(backbone="resnet34", stem="v1b"), _PAPER_PIPELINE),
    "paper_resnet101": Preset(CDNetConfig(backbone="resnet101", channels=256, dropout=0.5), _PAPER_PIPELINE),
    "official": _OFFICIAL,
    "csfp_paper": Preset(CSFPConfig(), _CSFP_PAPER_PIPELINE),
    "csfp_paper_resnet50": Preset(CSFPConfig("resnet50", channels=128, dropout=0.2), _CSFP_PAPER_PIPELINE),
    "csfp_paper_resnet101": Preset(CSFPConfig("resnet101", channels=256, dropout=0.5), _CSFP_PAPER_PIPELINE),
    "csfp_official": _CSFP_OFFICIAL,
    "encode_once_csfp": Preset(EncodeOnceCSFPConfig(), _ENCODE_ONCE.pipeline),
    "ritm_hrnet18s": Preset(RITMConfig("hrnet18s", ocr_channels=48), _FBRS_PIPELINE),
    "ritm_hrnet18": Preset(RITMConfig("hrnet18", ocr_channels=64), _FBRS_PIPELINE),
    "ritm_hrnet32": Preset(RITMConfig("hrnet32", ocr_channels=128), _FBRS_PIPELINE),
    "ritm_resnet34": Preset(_RITM_DEEPLAB, _FBRS_PIPELINE),
    "fbrs_resnet34": Preset(_FBRS_DEEPLAB, _FBRS_PIPELINE),
    "fbrs_resnet50": Preset(replace(_FBRS_DEEPLAB, backbone="resnet50", stem="v1s"), _FBRS_PIPELINE),
    "fbrs_resnet101": Preset(
        replace(_FBRS_DEEPLAB, backbone="resnet101", stem="v1s", channels=256, dropout=0.5), _FBRS_PIPELINE
    ),
}

_NETWORKS: dict[type, Callable[[Any], nn.Module]] = {
    CDNetConfig: CDNet,
    EncodeOnceConfig: EncodeOnceCDNet,
    EncodeOnceCSFPConfig: EncodeOnceCSFP,
    CSFPConfig: CSFP,
    RITMConfig: RITM,
}


def preset(name: str) -> NetworkConfig:
    """The network configuration of a preset.

    Raises:
        ValueError: there is no preset of that name.
    """
    return _find(name).network


def pipeline(name: str) -> Pipeline:
    """The pipeline of a preset.

    Raises:
        ValueError: there is no preset of that name.
    """
    return _find(name).pipeline


def build_network(config: NetworkConfig) -> nn.Module:
    """The network of a configuration, freshly initialised, in training mode.

    Raises:
        TypeError: not a configuration of a network of this package.
    """
    if type(config) not in _NETWORKS:
        expected = ", ".join(kind.__name__ for kind in _NETWORKS)
        raise TypeError(f"expected a configuration among {expected}, got {type(config).__name__}")
    return _NETWORKS[type(config)](config)


def _find(name: str) -> Preset:
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
