"""Checkpoint files as the public implementations write them: of recordings, or of a list of tensors.

The lists are written out from the public code, not derived from our networks, which are what they test.
"""

from __future__ import annotations

from pathlib import Path

import torch
from golden import Recording
from torch import Tensor, nn

from clickmask_models.public_checkpoints import open_checkpoint

Shapes = dict[str, tuple[int, ...]]

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def official_network(folder: Path, recording: Recording) -> nn.Module:
    """The network of a recording, by way of a file in ``folder``."""
    write_public(folder / "official.pth", recording)
    return open_checkpoint(folder / "official.pth").network


def write_public(path: Path, recording: Recording, *, config: bool = True) -> dict[str, Tensor]:
    """Writes a recorded network as its code does, with or without its settings; returns its tensors."""
    tensors = recording.state_dict()
    contents = {"state_dict": tensors}
    if config:
        contents["config"] = recording.keys["checkpoint"]["config"]
    torch.save(contents, path)
    return tensors


def stored_config(**values) -> dict:
    """Settings in the form that RITM's code stores."""
    params = {name: {"type": "builtin", "value": value, "specified": True} for name, value in values.items()}
    return {"class": "isegm.model.is_deeplab_model.DeeplabModel", "params": params}


def conv1s_shapes(maps: int = 2) -> Shapes:
    """Tensors of RITM's fusion; 3 maps where a previous mask is among them."""
    return {
        "maps_transform.0.weight": (16, maps, 1, 1),
        "maps_transform.0.bias": (16,),
        "maps_transform.2.weight": (64, 16, 3, 3),
        "maps_transform.2.bias": (64,),
        "maps_transform.3.scale": (1,),
    }


def map_fusion_shapes() -> Shapes:
    """Tensors of f-BRS's fusion, whose batch norm follows the activation."""
    return {
        "rgb_conv.0.weight": (8, 5, 1, 1),
        "rgb_conv.0.bias": (8,),
        **_norm("rgb_conv.2", 8),
        "rgb_conv.3.weight": (3, 8, 1, 1),
        "rgb_conv.3.bias": (3,),
    }


def deeplab_shapes(depth: int, channels: int) -> Shapes:
    """All tensors of DeepLabV3+ and its head, without the fusion of clicks."""
    early, deep = (64, 512) if depth < 50 else (256, 2048)
    extractor = "feature_extractor"
    shapes = _resnet_shapes(f"{extractor}.backbone", depth)
    aspp = f"{extractor}.aspp.concurent"
    for index, kernel in enumerate((1, 3, 3, 3)):
        shapes |= _conv_norm(f"{aspp}.{index}.0", f"{aspp}.{index}.1", (channels, deep, kernel, kernel))
    shapes |= _conv_norm(f"{aspp}.4.gap.1", f"{aspp}.4.gap.2", (channels, deep, 1, 1))
    project = f"{extractor}.aspp.project"
    shapes |= _conv_norm(f"{project}.0", f"{project}.1", (channels, 5 * channels, 1, 1))
    skip = f"{extractor}.skip_project.skip_project"
    shapes |= _conv_norm(f"{skip}.0", f"{skip}.1", (32, early, 1, 1))
    for name, widths, outputs in (
        (f"{extractor}.head.block", (channels + 32, channels, channels), channels),
        ("head.layers", (channels, channels // 2, channels // 2), 1),
    ):
        for index in range(2):
            body = f"{name}.{index}.body"
            shapes[f"{body}.0.weight"] = (widths[index], 1, 3, 3)
            shapes |= _conv_norm(f"{body}.1", f"{body}.2", (widths[index + 1], widths[index], 1, 1))
        shapes[f"{name}.2.weight"] = (outputs, widths[2], 1, 1)
        shapes[f"{name}.2.bias"] = (outputs,)
    return shapes


def random_tensors(shapes: Shapes) -> dict[str, Tensor]:
    """One tensor of each shape, small and positive."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.tensor(1)
        if name.endswith("num_batches_tracked")
        else torch.rand(shape, generator=generator) * 0.1
        for name, shape in shapes.items()
    }


def _resnet_shapes(prefix: str, depth: int) -> Shapes:
    bottlenecks = depth >= 50
    if bottlenecks:  # deep stem
        stem = {f"{prefix}.conv1.0.weight": (64, 3, 3, 3), **_norm(f"{prefix}.conv1.1", 64)}
        stem |= {f"{prefix}.conv1.3.weight": (64, 64, 3, 3), **_norm(f"{prefix}.conv1.4", 64)}
        stem |= {f"{prefix}.conv1.6.weight": (128, 64, 3, 3), **_norm(f"{prefix}.bn1", 128)}
    else:
        stem = _conv_norm(f"{prefix}.conv1", f"{prefix}.bn1", (64, 3, 7, 7))
    shapes, inputs = stem, 128 if bottlenecks else 64
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        width = 32 * 2**stage
        kernels = (1, 3, 1) if bottlenecks else (3, 3)
        widths = (width, width, 4 * width) if bottlenecks else (width, width)
        for block in range(blocks):
            name, before = f"{prefix}.layer{stage}.{block}", inputs
            for index, (kernel, after) in enumerate(zip(kernels, widths, strict=True), start=1):
                shapes |= _conv_norm(
                    f"{name}.conv{index}", f"{name}.bn{index}", (after, before, kernel, kernel)
                )
                before = after
            if block == 0 and (stage > 1 or inputs != before):
                shapes |= _conv_norm(f"{name}.downsample.0", f"{name}.downsample.1", (before, inputs, 1, 1))
            inputs = before
    return shapes


def _conv_norm(conv: str, norm: str, shape: tuple[int, ...]) -> Shapes:
    return {f"{conv}.weight": shape, **_norm(norm, shape[0])}


def _norm(name: str, channels: int) -> Shapes:
    per_channel = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in per_channel} | {f"{name}.num_batches_tracked": ()}
