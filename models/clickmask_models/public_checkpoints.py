"""Opening any checkpoint: our own, or one that ClickSEG, RITM, CSFPN or f-BRS published.

What a file is comes from its content, never from its name; ``docs/checkpoints.md`` lists what is read. The
mapping is strict both ways: every tensor of the network comes from the file, and every tensor of the file is
used, dropped for a named reason, or reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clickmask_models.checkpoint_files import CheckpointError, read_checkpoint
from clickmask_models.checkpoints import build_filled, is_ours, restore
from clickmask_models.config_json import config_to_json
from clickmask_models.public_keys import public_names
from clickmask_models.public_networks import PublicNetwork, recognise
from clickmask_models.public_settings import check_settings, public_settings

# DataParallel's, before every name.
_WRAPPER = "module."
_MEAN = ".running_mean"


class OpenedCheckpoint(NamedTuple):
    """``network`` in FP32 and eval mode; ``description`` says in words what was recognised and dropped."""

    network: nn.Module
    description: str


def open_checkpoint(path: Path, index: int | None = None) -> OpenedCheckpoint:
    """Builds and fills the network that a checkpoint holds.

    Args:
        path: a file of ``checkpoints.save_checkpoint``, or a public checkpoint: what ``torch.save`` wrote, or
            the same tensors in a safetensors file.
        index: which one of a file that holds a list of networks, from 0.

    Raises:
        CheckpointError: a file that cannot be read without running code, that is damaged, or whose network
            is not one of ours; the message names what does not fit.
    """
    contents = read_checkpoint(path, index)
    if is_ours(contents):
        network = restore(path, contents)
        return OpenedCheckpoint(network, f"clickmask checkpoint, {config_to_json(network.config)['family']}.")
    tensors = _unwrapped(contents.tensors)
    try:
        settings = public_settings(contents.config)
        public = recognise({name: tuple(value.shape) for name, value in tensors.items()}, settings)
        check_settings(settings, public.shown)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    dropped = [name for name in tensors if name.startswith(tuple(public.dropped))]
    used = {name: value for name, value in tensors.items() if name not in dropped}
    network = build_filled(
        path, public.config, _with_counters(used), lambda ours: public_names(ours, public.names)
    )
    return OpenedCheckpoint(network, _describe(public, dropped, says_clicks="use_disks" in settings))


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if all(name.startswith(_WRAPPER) for name in tensors):
        return {name.removeprefix(_WRAPPER): value for name, value in tensors.items()}
    return dict(tensors)


def _with_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With batch norm's counters, which converted checkpoints lack and evaluation never reads."""
    norms = [name.removesuffix(_MEAN) for name in tensors if name.endswith(_MEAN)]
    return {f"{norm}.num_batches_tracked": torch.tensor(0) for norm in norms} | dict(tensors)


def _describe(public: PublicNetwork, dropped: Sequence[str], *, says_clicks: bool) -> str:
    maps = public.config.click_map
    clicks = f"{'disks' if maps.kind == 'disk' else 'distance maps'} of {maps.size:g} px"
    text = f"{public.title}, {clicks}, {'a' if public.config.previous_mask else 'no'} previous mask."
    if not says_clicks:
        text += (
            " Settings that the file does not store (how clicks are drawn, activations, normalisation) are "
            "assumed to be as released."
        )
    for prefix, reason in public.dropped.items():
        if count := sum(name.startswith(prefix) for name in dropped):
            text += f" Dropped {prefix}* ({count}): {reason}."
    return text
