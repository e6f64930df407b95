"""The networks of a bundle: one, or two of the same architecture for the global-to-local strategy."""

from __future__ import annotations

import copy
from dataclasses import fields
from pathlib import Path

from torch import nn

from clickmask_export.errors import BuildError, RecipeError
from clickmask_export.graphs import LOCAL_NETWORK, NETWORK
from clickmask_export.progress import Progress
from clickmask_export.recipes import Recipe
from clickmask_models.checkpoint_files import CheckpointError
from clickmask_models.feature_diffusion import FeatureDiffusion
from clickmask_models.public_checkpoints import open_checkpoint


def open_networks(
    checkpoint: Path, index: int | None, local_checkpoint: Path | None, progress: Progress
) -> dict[str, nn.Module]:
    """Reads the checkpoints and says what they are.

    Args:
        checkpoint: of the only network, or of the one that sees the whole image.
        index: which network of ``checkpoint``, if it holds a list of them.
        local_checkpoint: of the network that sees the crop, or None.
        progress: told what was recognised.

    Returns:
        ``NETWORK`` and, if there are two, ``LOCAL_NETWORK`` to the network in float32 and eval mode.

    Raises:
        BuildError: a file is no checkpoint that can be read.
        RecipeError: the two networks cannot share a bundle.
    """
    networks = {NETWORK: _open(checkpoint, index, progress)}
    if local_checkpoint is not None:
        networks[LOCAL_NETWORK] = _open(local_checkpoint, None, progress)
        _check_pair(networks[NETWORK], networks[LOCAL_NETWORK])
    return networks


def check_strategy(networks: dict[str, nn.Module], recipe: Recipe) -> None:
    """Raises RecipeError if there is a local network and nothing that would run it."""
    if LOCAL_NETWORK in networks and recipe.crop.kind != "global_to_local":
        raise RecipeError(
            "--local-checkpoint is the second network of the crop policy 'global_to_local', and preset "
            f"{recipe.preset!r} has the policy {recipe.crop.kind!r}: leave it out, or choose another --preset"
        )


def with_sparse_keys(network: nn.Module) -> nn.Module:
    """A copy of a network whose Feature Diffusion attends to the cells near clicks only, which must then come
    by label.

    Raises:
        RecipeError: it has no Feature Diffusion, or one that would compute something else.
    """
    body = copy.deepcopy(network)
    modules = [module for module in body.modules() if isinstance(module, FeatureDiffusion)]
    if not modules:
        raise RecipeError("--fdm sparse: this network has no Feature Diffusion; leave the option out")
    try:
        for module in modules:
            module.use_sparse_keys()
    except ValueError as exc:
        raise RecipeError(f"{exc}: use --fdm dense") from exc
    return body


def _open(path: Path, index: int | None, progress: Progress) -> nn.Module:
    with progress.stage(f"load {path.name}"):
        try:
            opened = open_checkpoint(path, index)
        except CheckpointError as exc:
            raise BuildError(str(exc)) from exc
    progress.note(opened.description)
    return opened.network


def _check_pair(network: nn.Module, local: nn.Module) -> None:
    """What the manifest says once must hold for both."""
    if hasattr(network, "encode"):
        raise RecipeError(
            "--local-checkpoint is for networks without a click-independent encoder; this one encodes a crop "
            "once for all its clicks, and one network sees image and crop: leave it out"
        )
    ours, other = network.config, local.config
    if type(ours) is not type(other):
        raise RecipeError(
            f"--local-checkpoint: expected a network of the same family as --checkpoint's, "
            f"{type(ours).__name__}, got {type(other).__name__}"
        )
    differing = [f.name for f in fields(ours) if getattr(ours, f.name) != getattr(other, f.name)]
    if differing:
        raise RecipeError(
            "--local-checkpoint: expected the architecture of --checkpoint's network, got one that differs "
            f"in {', '.join(differing)}"
        )
