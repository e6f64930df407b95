"""The network that a run starts from: a checkpoint's, a preset's on pretrained weights, or a blank one."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from clickmask_models.backbones.mobilenet_v2 import MobileNetV2
from clickmask_models.checkpoint_files import CheckpointError, read_checkpoint
from clickmask_models.checkpoints import load_backbone, load_checkpoint
from clickmask_models.presets import build_network, preset
from clickmask_models.public_checkpoints import open_checkpoint
from clickmask_training.checks import ConfigError
from clickmask_training.config import TrainingConfig
from clickmask_training.run_folder import STATE_NAME, WEIGHTS_NAME

_COUNTER = "num_batches_tracked"


def starting_network(
    config: TrainingConfig, folder: Path, *, backbone: Path | None, checkpoint: Path | None, blank: bool
) -> nn.Module:
    """The network to train; that of the run in ``folder``, if there is one.

    Args:
        config: names the preset.
        folder: of the run.
        backbone: pretrained weights of the preset's backbone.
        checkpoint: a network to go on from, of the preset's family.
        blank: whether random weights will do.

    Raises:
        ConfigError: nothing to start from, or a checkpoint of another family than the preset.
        CheckpointError: a file that does not fit.
    """
    if (folder / STATE_NAME).exists():
        return _of_family(load_checkpoint(folder / WEIGHTS_NAME), config, "the run in --output")
    if checkpoint is not None:
        return _of_family(open_checkpoint(checkpoint).network, config, "--checkpoint")
    if backbone is None and not blank:
        raise ConfigError(
            "a new run needs --backbone FILE or --checkpoint FILE to start from (or --from-scratch: random "
            "weights, which take far longer)"
        )
    network = build_network(preset(config.network))
    if backbone is not None:
        load_pretrained(backbone, network)
    return network


def load_pretrained(path: Path, network: nn.Module) -> None:
    """Fills a network's backbone from classification weights.

    MobileNetV2's come with batch norms folded (and perhaps DeepLab's context head); ResNet's and HRNet's have
    the public names, and what their file holds beside the backbone (the classifier) is left out.

    Raises:
        CheckpointError: weights that are missing or do not fit.
    """
    if isinstance(network.backbone, MobileNetV2):
        load_backbone(path, network)
        return
    parts = {name for name, _ in network.backbone.named_children()}
    tensors = read_checkpoint(path).tensors
    kept = {name: value for name, value in tensors.items() if name.split(".")[0] in parts}
    try:
        network.backbone.load_state_dict(_counters(network.backbone) | kept)
    except RuntimeError as error:  # it lists what is missing, unknown or of another shape
        raise CheckpointError(
            f"{path}: expected classification weights of this {type(network.backbone).__name__}: {error}"
        ) from error


def _counters(backbone: nn.Module) -> dict[str, Tensor]:
    """Batch norm's counters, which old files lack."""
    return {name: value for name, value in backbone.state_dict().items() if name.endswith(_COUNTER)}


def _of_family(network: nn.Module, config: TrainingConfig, where: str) -> nn.Module:
    expected = type(preset(config.network))
    if type(network.config) is not expected:
        raise ConfigError(
            f"network: expected {where} to hold a {expected.__name__.removesuffix('Config')} network, the "
            f"family of {config.network!r}, got {type(network).__name__}; name one of its presets in the "
            "configuration (network = ...) or with --network"
        )
    return network
