"""The files of a run: its state, the weights to ship, and what changed since they were written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clickmask_models.checkpoints import save_checkpoint

STATE_NAME = "state.pt"
WEIGHTS_NAME = "averaged.safetensors"
LOG_NAME = "log.csv"
PREVIEW_NAME = "preview.png"


def read_state(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The state of a run, or None where there is none."""
    path = folder / STATE_NAME
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location=device)
    return state


def write_run(folder: Path, averaged: nn.Module, state: Mapping[str, Any]) -> None:
    """Writes the averaged weights and the state, each whole or not at all."""
    save_checkpoint(folder / WEIGHTS_NAME, averaged, {"step": str(state["step"])})
    partial = folder / (STATE_NAME + ".partial")
    torch.save(dict(state), partial)
    os.replace(partial, folder / STATE_NAME)


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
