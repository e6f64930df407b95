"""Named configurations: networks, and how their inputs are prepared.

Neither the CDNet paper's table nor the public code's comes from the other's settings, so both are kept whole:
``paper`` follows the text, ``official`` the public code, whose checkpoints need it. ``docs/presets.md``
compares them point by point and says where each value comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from clickmask_models.cdnet import CDNet, CDNetConfig
from clickmask_models.click_maps import ClickMapConfig
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_models.feature_diffusion import FeatureDiffusionConfig
from clickmask_models.pixel_diffusion import PixelDiffusionConfig

NetworkConfig = CDNetConfig | EncodeOnceConfig

DEFAULT = "encode_once_mobilenet_v2"


@dataclass(frozen=True)
class Crop:
    """The crop policy, field by field as in a bundle's manifest."""

    kind: Literal["paper", "fbrs", "none"]
    start_click: int
    expansion: float
    min_size: int
    min_fraction: float
    hysteresis_iou: float


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
    """

    sizes: tuple[int, ...]
    fit: Literal["letterbox", "squash"]
    coordinates: Literal["half_pixel", "public"]
    crop: Crop
    flip_averaging: bool
    threshold: float


@dataclass(frozen=True)
class Preset:
    """A network's configuration and the pipeline around it."""

    network: NetworkConfig
    pipeline: Pipeline


_PAPER_PIPELINE = Pipeline(
    sizes=(384, 608),
    fit="letterbox",
    coordinates="public",
    crop=Crop("paper", start_click=3, expansion=1.4, min_size=200, min_fraction=0.0, hysteresis_iou=0.5),
    flip_averaging=True,
    threshold=0.5,
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
    ),
)

_ENCODE_ONCE = Preset(
    network=EncodeOnceConfig(),
    pipeline=Pipeline(
        sizes=(256, 384, 512, 608),
        fit="letterbox",
        coordinates="half_pixel",
        crop=Crop("fbrs", start_click=2, expansion=1.4, min_size=64, min_fraction=0.35, hysteresis_iou=0.5),
        flip_averaging=False,
        threshold=0.5,
    ),
)

PRESETS: dict[str, Preset] = {
    DEFAULT: _ENCODE_ONCE,
    "paper": Preset(CDNetConfig(), _PAPER_PIPELINE),
    "paper_resnet34": Preset(CDNetConfig(backbone="resnet34", stem="v1b"), _PAPER_PIPELINE),
    "paper_resnet101": Preset(CDNetConfig(backbone="resnet101", channels=256, dropout=0.5), _PAPER_PIPELINE),
    "official": _OFFICIAL,
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
    if isinstance(config, CDNetConfig):
        return CDNet(config)
    if isinstance(config, EncodeOnceConfig):
        return EncodeOnceCDNet(config)
    raise TypeError(f"expected a CDNetConfig or an EncodeOnceConfig, got {type(config).__name__}")


def _find(name: str) -> Preset:
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
