"""The files of a run: its state, the weights to ship, and what changed since they were written."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clickmask.whole_files import write_whole
from clickmask_models.checkpoints import save_checkpoint
from clickmask_training.checks import ConfigError

STATE_NAME = "state.pt"
WEIGHTS_NAME = "averaged.safetensors"
LOG_NAME = "log.csv"
PREVIEW_NAME = "preview.png"

_NEEDED = {"network", "averaged", "optimizer", "step"}


def make_folder(folder: Path) -> None:
    """Makes a run's folder, unless it is there.

    Raises:
        ConfigError: the place holds something else, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--output: expected a folder, or a place to make one, got {folder}: {error.strerror}"
        ) from error


def read_state(folder: Path) -> dict[str, Any] | None:
    """The state of a run, its tensors on the CPU, or None where there is none.

    Raises:
        ConfigError: a damaged file, or one that ``write_run`` did not write.
    """
    path, weights = folder / STATE_NAME, folder / WEIGHTS_NAME
    if not path.exists():
        return None
    try:
        # On the CPU, so that a full graphics card is not taken for a damaged file.
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        whole = state.keys() >= _NEEDED
    except Exception as error:  # a damaged pickle can raise anything
        raise ConfigError(_damaged(path, weights)) from error
    if not whole:
        raise ConfigError(_damaged(path, weights))
    return state


def _damaged(path: Path, weights: Path) -> str:
    start = f" from {weights} with --checkpoint" if weights.exists() else ""
    return (
        f"{path}: expected the state that this command saved, got a file that cannot be read; start a new "
        f"--output{start}"
    )


def write_run(folder: Path, averaged: nn.Module, state: Mapping[str, Any]) -> None:
    """Writes the averaged weights and the state, each whole or not at all.

    Raises:
        CheckpointError: weights that do not fit FP16, or that cannot be written.
        InvalidInputError: the state cannot be written.
    """
    save_checkpoint(folder / WEIGHTS_NAME, averaged, {"step": str(state["step"])})
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_whole(folder / STATE_NAME, buffer.getvalue())


def changes(saved: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The saved keys whose values are others now, as "key: old -> new"; tables key by key."""
    found = []
    for key, old in saved.items():
        new = now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            both = dict.fromkeys((*old, *new))
            found += changes({k: old.get(k) for k in both}, new, f"{prefix}{key}.")
        elif new != old:
            found.append(f"{prefix}{key}: {old} -> {new}")
    return found
