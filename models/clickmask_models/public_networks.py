"""Which network a public checkpoint holds, told from the names and shapes of its tensors.

The class path that such a file stores names one class for several architectures, so it is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clickmask_models.backbones.hrnet import HRNETS
from clickmask_models.cdnet import CDNetConfig
from clickmask_models.click_maps import ClickMapConfig
from clickmask_models.csfp import CSFPConfig
from clickmask_models.feature_diffusion import FeatureDiffusionConfig
from clickmask_models.presets import NetworkConfig, preset
from clickmask_models.public_keys import (
    CONV1S,
    DEEPLAB,
    DROPPED_CDNET,
    DROPPED_DEEPLAB,
    DROPPED_HRNET,
    FEATURE_DIFFUSION,
    HRNET,
    MAP_FUSION,
    SPARSE_PROPAGATION,
)
from clickmask_models.public_settings import click_map, dropout
from clickmask_models.ritm import RITMConfig
from clickmask_models.sparse_propagation import SparsePropagationConfig

Shapes = Mapping[str, tuple[int, ...]]

# How the released networks draw clicks; f-BRS stores no settings, the others need not.
_DISKS = ClickMapConfig("disk", 5.0)
_DISTANCES = ClickMapConfig("distance", 260.0)

# Blocks of the four stages, and whether they are bottlenecks -> backbone.
_RESNETS = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
}

# Relatives that keep their files in the same form. Each has a tensor that no network here has.
_RELATIVES = {
    "refiner.": "FocalClick",
    "backbone.patch_embed.": "SimpleClick",
    "image_encoder.": "Segment Anything",
}


@dataclass(frozen=True)
class PublicNetwork:
    """A recognised network.

    Attributes:
        title: whose it is, and its architecture in words.
        config: ours for it.
        names: our prefixes to the public ones, as in ``public_keys``.
        dropped: public prefixes that have no part in inference, and why.
        shown: arguments of the public constructor, as the tensors show them.
    """

    title: str
    config: NetworkConfig
    names: Mapping[str, str]
    dropped: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)


def recognise(shapes: Shapes, settings: Mapping[str, Any]) -> PublicNetwork:
    """Tells a network from its tensors.

    Args:
        shapes: of all tensors, by their names.
        settings: arguments that the file stores beside them (``public_settings``); used where tensors do
            not show a thing, such as how clicks are drawn.

    Raises:
        ValueError: another architecture, or a form of these that is not built here.
    """
    for prefix, name in _RELATIVES.items():
        if _has(shapes, prefix):
            raise ValueError(
                f"it is a checkpoint of {name} (tensors {prefix}*), a network that clickmask does not have"
            )
    if _has(shapes, "feature_extractor.backbone.layer4."):
        return _deeplab(shapes, settings)
    if _has(shapes, "feature_extractor.stage4."):
        return _hrnet(shapes, settings)
    raise ValueError(
        "expected the tensors of a network of ClickSEG (CDNet), RITM, CSFPN or f-BRS, got others: "
        f"{', '.join(sorted(shapes)[:5])}, ..."
    )


def _deeplab(shapes: Shapes, settings: Mapping[str, Any]) -> PublicNetwork:
    backbone, stem = _resnet(shapes)
    channels = _shape(shapes, "feature_extractor.aspp.project.0.weight")[0]
    fusion, previous_mask = _fusion(shapes)
    shown = {
        "backbone": backbone,
        "deeplab_ch": channels,
        "with_prev_mask": previous_mask,
        "use_rgb_conv": fusion == "map_fusion",
    }
    config = CDNetConfig(
        backbone=backbone,
        stem=stem,
        channels=channels,
        dropout=dropout(settings, channels),
        click_map=click_map(settings, _DISKS if fusion == "conv1s" else _DISTANCES),
        fusion=fusion,
        previous_mask=previous_mask,
        feature_diffusion=None,
        pixel_diffusion=None,
    )
    names = DEEPLAB | (CONV1S if fusion == "conv1s" else MAP_FUSION)
    depth = backbone.replace("resnet", "ResNet-")
    if not _has(shapes, "feature_extractor.FDM."):
        owner = "RITM" if fusion == "conv1s" else "f-BRS"
        title = f"{owner} DeepLabV3+, {depth}, {channels} channels"
        return PublicNetwork(title, config, names, DROPPED_DEEPLAB, shown)
    config = _with_diffusion(shapes, config)
    title = f"ClickSEG CDNet, {depth}, {channels} channels"
    return PublicNetwork(title, config, names | FEATURE_DIFFUSION, DROPPED_CDNET, shown)


def _with_diffusion(shapes: Shapes, config: CDNetConfig) -> CDNetConfig:
    """As the ``official`` preset; the version of FDM leaves no trace in the tensors."""
    if config.click_map != _DISKS:
        raise ValueError(
            "ClickSEG's CDNet draws clicks as disks of 5 px whatever its settings say, and these say a "
            f"{config.click_map.kind} of {config.click_map.size:g}"
        )
    official = preset("official")
    inner = _shape(shapes, "feature_extractor.FDM.t.weight")[0]
    feature_diffusion: FeatureDiffusionConfig = replace(
        official.feature_diffusion, inner_channels=None if inner == config.channels else inner
    )
    return replace(config, feature_diffusion=feature_diffusion, pixel_diffusion=official.pixel_diffusion)


def _hrnet(shapes: Shapes, settings: Mapping[str, Any]) -> PublicNetwork:
    fusion, previous_mask = _fusion(shapes)
    if fusion == "map_fusion":
        raise ValueError(
            "an HRNet that fuses maps with the image (f-BRS) is not built here, only f-BRS's DeepLabV3+ and "
            "RITM's HRNets are"
        )
    branch = "feature_extractor.stage4.0.branches.0."
    width = _shape(shapes, f"{branch}0.conv1.weight")[0]
    small = _count(shapes, branch) == 2
    ocr_channels = _shape(shapes, "feature_extractor.ocr_distri_head.object_context_block.f_down.0.weight")[0]
    backbone = next((name for name, form in HRNETS.items() if form == (width, small)), None)
    if backbone is None:
        raise ValueError(
            f"an HRNet of width {width}{' (small)' if small else ''} is none of {', '.join(HRNETS)}"
        )
    propagates = _has(shapes, "feature_extractor.upatt.")
    shown = {
        "width": width,
        "small": small,
        "ocr_width": ocr_channels,
        "with_prev_mask": previous_mask,
        "use_rgb_conv": False,
        "is_att": propagates,
    }
    common = {"click_map": click_map(settings, _DISKS), "previous_mask": previous_mask}
    title = f"{backbone.replace('hrnet', 'HRNet-')}, OCR {ocr_channels}"
    names = HRNET | CONV1S
    if not propagates:
        config = RITMConfig(backbone, ocr_channels, **common)
        return PublicNetwork(f"RITM {title}", config, names, DROPPED_HRNET, shown)
    config = CSFPConfig(backbone, ocr_channels, propagation=_propagation(shapes), **common)
    return PublicNetwork(f"CSFPN {title}", config, names | SPARSE_PROPAGATION, DROPPED_HRNET, shown)


def _propagation(shapes: Shapes) -> SparsePropagationConfig:
    """SGM's and HSGM's form: what shapes show, and what the public code always does."""
    compared, channels = _shape(shapes, "feature_extractor.upatt.query_conv.weight")[:2]
    return SparsePropagationConfig(
        heads=_count(shapes, "feature_extractor.att.atts."),
        key_reduction=channels // max(compared, 1),
        scaled=True,
        gamma=True,
        drops_first_cell=True,
    )


def _resnet(shapes: Shapes) -> tuple[Any, Any]:
    """Backbone and stem."""
    prefix = "feature_extractor.backbone."
    blocks = tuple(_count(shapes, f"{prefix}layer{stage}.") for stage in (1, 2, 3, 4))
    bottlenecks = f"{prefix}layer1.0.conv3.weight" in shapes
    if (blocks, bottlenecks) not in _RESNETS:
        kind = "bottlenecks" if bottlenecks else "basic blocks"
        raise ValueError(f"a ResNet of {blocks} {kind} is none of {', '.join(_RESNETS.values())}")
    return _RESNETS[blocks, bottlenecks], "v1b" if f"{prefix}conv1.weight" in shapes else "v1s"


def _fusion(shapes: Shapes) -> tuple[Any, bool]:
    """How clicks meet the image, and whether a previous mask is among the maps."""
    if _has(shapes, "rgb_conv."):
        if "rgb_conv.2.running_mean" not in shapes:
            raise ValueError(
                "it fuses maps with the image in RITM's form (rgb_conv.1.*), only f-BRS's is built here"
            )
        return "map_fusion", _maps(_shape(shapes, "rgb_conv.0.weight")[1] - 3)
    return "conv1s", _maps(_shape(shapes, "maps_transform.0.weight")[1])


def _maps(channels: int) -> bool:
    if channels not in (2, 3):
        raise ValueError(f"expected 2 click maps, or 3 with a previous mask, got {channels} channels")
    return channels == 3


def _has(shapes: Shapes, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in shapes)


def _count(shapes: Shapes, prefix: str) -> int:
    """Number of modules right below a prefix."""
    return len({name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)})


def _shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    """Of a convolution's weight, without which the architecture cannot be told."""
    if name not in shapes:
        raise ValueError(f"missing {name}, without which its architecture cannot be told")
    if len(shapes[name]) != 4:
        raise ValueError(f"{name} has shape {shapes[name]}, expected that of a convolution")
    return shapes[name]
