"""Our own checkpoints: one .safetensors file with the weights and, in its metadata, the architecture.

``public_checkpoints`` reads those of the public implementations.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from clickmask_models.cdnet import CDNet
from clickmask_models.checkpoint_files import CheckpointError, Contents, read_safetensors
from clickmask_models.config_json import config_from_json, config_to_json
from clickmask_models.encode_once import EncodeOnce
from clickmask_models.presets import NetworkConfig, build_network

_METADATA_KEY = "clickmask"


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
        CheckpointError: a weight does not fit FP16, or the place cannot be written.
    """
    tensors = {}
    for name, value in network.state_dict().items():
        stored = value.half() if half and value.is_floating_point() and value.ndim > 1 else value
        if not stored.isfinite().all():
            raise CheckpointError(f"{name}: weights beyond FP16's range or not finite; save with half=False")
        tensors[name] = stored.contiguous()
    metadata = {**(extra or {}), _METADATA_KEY: json.dumps(config_to_json(network.config), sort_keys=True)}
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(save(tensors, metadata))
        os.replace(partial, path)
    except OSError as error:
        raise CheckpointError(f"expected to write {path}, got: {error.strerror}") from error
    finally:
        with suppress(OSError):  # gone where all went well
            partial.unlink()


def load_checkpoint(path: Path) -> nn.Module:
    """Builds the network that a checkpoint describes, in FP32 and eval mode; keys must match exactly.

    Raises:
        CheckpointError: not a checkpoint of clickmask, or one that does not fit its own description.
    """
    contents = read_safetensors(path)
    if not is_ours(contents):
        raise CheckpointError(
            f"{path}: expected a clickmask checkpoint, whose metadata holds the key '{_METADATA_KEY}', got "
            f"{sorted(contents.metadata) or 'no metadata'}; save one with "
            "clickmask_models.checkpoints.save_checkpoint"
        )
    return restore(path, contents)


def is_ours(contents: Contents) -> bool:
    """Whether ``save_checkpoint`` wrote what was read."""
    return _METADATA_KEY in contents.metadata


def restore(path: Path, contents: Contents) -> nn.Module:
    """``load_checkpoint`` from what was read of one of our files; ``path`` is for error messages."""
    try:
        config = config_from_json(json.loads(contents.metadata[_METADATA_KEY]))
        return build_filled(path, config, contents.tensors)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path}: its configuration is not one this version knows: {error}") from error


def build_filled(
    path: Path,
    config: NetworkConfig,
    tensors: Mapping[str, Tensor],
    names: Callable[[Iterable[str]], dict[str, str]] | None = None,
) -> nn.Module:
    """Builds a network and fills it, every tensor of it by one of the file's and none of those left over.

    Whether all fits is known before memory is allocated: a small file cannot ask for a huge network.

    Args:
        path: of the file, for error messages.
        config: of the network.
        tensors: the file's.
        names: gives each of the network's tensor names the one in the file; None where they are the same.

    Returns:
        The network in eval mode, in the precision that it is built in (FP32), whatever the file's.

    Raises:
        CheckpointError: tensors that do not fit.
    """
    with torch.device("meta"):
        plan = build_network(config)
    named = names(plan.state_dict()) if names else None
    _check_fit(path, plan, tensors, named)
    network = build_network(config)
    _fill(network, tensors, named)
    return network.eval()


def load_backbone(path: Path, network: CDNet | EncodeOnce) -> None:
    """Loads pretrained MobileNetV2 weights, and the context head's where file and network have one."""
    tensors = read_safetensors(path).tensors
    backbone = {name: value for name, value in tensors.items() if name.startswith("features.")}
    backbone = {name: value for name, value in backbone.items() if not name.startswith("features.18.")}
    _load_strictly(path, network.backbone, backbone)
    head = getattr(network, "context", None)
    if head is None:
        return
    context = {name: value for name, value in tensors.items() if name in head.state_dict()}
    if context:
        _load_strictly(path, head, context)


def _load_strictly(path: Path, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    _check_fit(path, module, tensors)
    _fill(module, tensors)


def _check_fit(
    path: Path, module: nn.Module, tensors: Mapping[str, Tensor], names: Mapping[str, str] | None = None
) -> None:
    """Names tensors, as the file does, that are missing, unknown, of another shape or kind, or not finite."""
    expected = {names[name] if names else name: value for name, value in module.state_dict().items()}
    problems = [f"missing {name}" for name in sorted(expected.keys() - tensors.keys())]
    problems += [f"unknown {name}" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        if problem := _misfit(tensors[name], expected[name]):
            problems.append(f"{name} {problem}")
    if problems:
        listed = "; ".join(problems[:20]) + (f"; and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise CheckpointError(f"{path}: its weights do not fit {type(module).__name__}: {listed}")


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], names: Mapping[str, str] | None = None) -> None:
    ours = module.state_dict()
    module.load_state_dict(
        {name: tensors[names[name] if names else name].to(value.dtype) for name, value in ours.items()}
    )


def _misfit(got: Tensor, expected: Tensor) -> str | None:
    if got.shape != expected.shape:
        return f"has shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    if got.is_floating_point() != expected.is_floating_point():
        return f"holds {got.dtype}, expected {expected.dtype}"
    if not got.to(expected.dtype).isfinite().all():
        return "has values that are not finite"
    return None
