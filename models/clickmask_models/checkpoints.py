"""Checkpoints: one .safetensors file with the weights and, in its metadata, the architecture.

Nothing here unpickles anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from clickmask_models.cdnet import CDNet
from clickmask_models.config_json import config_from_json, config_to_json
from clickmask_models.encode_once import EncodeOnceCDNet
from clickmask_models.presets import build_network

_METADATA_KEY = "clickmask"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why and what to do."""


def save_checkpoint(
    path: Path, network: nn.Module, extra: Mapping[str, str] | None = None, *, half: bool = True
) -> None:
    """Writes weights and configuration, whole or not at all.

    Args:
        path: target ``.safetensors`` file.
        network: any network of this package.
        extra: further string metadata, such as the training step.
        half: matrices in FP16, the rest in FP32; False keeps FP32, as weights that were not trained
            here may need.

    Raises:
        CheckpointError: a weight does not fit FP16.
    """
    tensors = {}
    for name, value in network.state_dict().items():
        stored = value.half() if half and value.is_floating_point() and value.ndim > 1 else value
        if not stored.isfinite().all():
            raise CheckpointError(f"{name}: weights beyond FP16's range or not finite; save with half=False")
        tensors[name] = stored.contiguous()
    metadata = {**(extra or {}), _METADATA_KEY: json.dumps(config_to_json(network.config), sort_keys=True)}
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(save(tensors, metadata))
    os.replace(partial, path)


def load_checkpoint(path: Path) -> nn.Module:
    """Builds the network that a checkpoint describes, in FP32 and eval mode; keys must match exactly."""
    tensors, metadata = _read(path)
    if _METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{path}: expected a clickmask checkpoint, whose metadata holds the key '{_METADATA_KEY}', got "
            f"{sorted(metadata) or 'no metadata'}; save one with clickmask_models.checkpoints.save_checkpoint"
        )
    try:
        network = build_network(config_from_json(json.loads(metadata[_METADATA_KEY])))
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: its configuration is not one this version knows: {error}") from error
    _load_strictly(path, network, tensors)
    return network.eval()


def load_backbone(path: Path, network: CDNet | EncodeOnceCDNet) -> None:
    """Loads pretrained MobileNetV2 weights, and the context head's where file and network have one."""
    tensors, _ = _read(path)
    backbone = {name: value for name, value in tensors.items() if name.startswith("features.")}
    backbone = {name: value for name, value in backbone.items() if not name.startswith("features.18.")}
    _load_strictly(path, network.backbone, backbone)
    head = getattr(network, "context", None)
    if head is None:
        return
    context = {name: value for name, value in tensors.items() if name in head.state_dict()}
    if context:
        _load_strictly(path, head, context)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise CheckpointError(f"expected a checkpoint at {path}, found no such file") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: expected a .safetensors file, and reading it failed: {error}"
        ) from error


def _load_strictly(path: Path, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    got = {name: tuple(value.shape) for name, value in tensors.items()}
    problems = [f"missing {name}" for name in sorted(expected.keys() - got.keys())]
    problems += [f"unknown {name}" for name in sorted(got.keys() - expected.keys())]
    problems += [
        f"{name} has shape {got[name]}, expected {expected[name]}"
        for name in sorted(expected.keys() & got.keys())
        if got[name] != expected[name]
    ]
    if problems:
        listed = "; ".join(problems[:20]) + ("; ..." if len(problems) > 20 else "")
        raise CheckpointError(f"{path}: its weights do not fit {type(module).__name__}: {listed}")
    module.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    )
