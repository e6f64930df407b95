"""Arms of the training ablation: one recipe and data, with and without each part of the papers' networks.

A TOML file such as training/ablation.toml names them. All arms get the same number of steps, the
same batches (a function of seed and step), and where their networks have a part in common, the same numbers
in it at the start.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clickmask_models.presets import build_network, preset
from clickmask_training.checks import ConfigError, flag, parse
from clickmask_training.config import TrainingConfig, read_config


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        weights_of: the arm whose weights it has, where it differs from that at run time alone; "" trains its
            own.
        change: keys of the recipe and their values here, tables key by key.
        network: the same of the network's configuration.
        pixel_diffusion: whether the fused kernel does Pixel Diffusion after the network.
        crop_policy: name of a run-time crop policy; "" for the preset's.
        papers: what the papers say, for the table.
    """

    weights_of: str = ""
    change: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    pixel_diffusion: bool = False
    crop_policy: str = ""
    papers: str = ""

    def __post_init__(self) -> None:
        flag("pixel_diffusion", self.pixel_diffusion)
        if self.weights_of and (self.change or self.network):
            raise ConfigError(
                "weights_of: expected no change or network beside it, got both: they would need training"
            )


@dataclass(frozen=True)
class Ablation:
    """Arms by name, the first of which the others are set beside, and the recipe that they change."""

    recipe: TrainingConfig
    arms: Mapping[str, Arm]

    def config(self, name: str) -> TrainingConfig:
        """The recipe of an arm."""
        config: TrainingConfig = changed(self.recipe, self.arms[name].change, f"arms.{name}.change.")
        return config

    def network(self, name: str) -> nn.Module:
        """An arm's untrained network; what it shares with the first arm's has the same numbers."""
        torch.manual_seed(self.recipe.seed)
        network = self._build(name)
        first = next(iter(self.arms))
        if name != first:
            torch.manual_seed(self.recipe.seed)
            reference = self._build(first).state_dict()
            own = network.state_dict()
            same = {k: v for k, v in reference.items() if k in own and own[k].shape == v.shape}
            network.load_state_dict(own | same)
        return network

    def _build(self, name: str) -> nn.Module:
        options = preset(self.config(name).network)
        return build_network(changed(options, self.arms[name].network, f"arms.{name}.network."))


def read_ablation(path: Path) -> Ablation:
    """Reads a TOML file of arms.

    Raises:
        ConfigError: a key or value that is not known, an arm without weights, or a recipe that does not read.
    """
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"expected a TOML file of arms at {path}, got: {error}") from error
    tables = values.get("arms")
    if set(values) != {"recipe", "arms"} or not isinstance(tables, dict) or not tables:
        raise ConfigError(f"{path}: expected recipe = FILE and tables [arms.NAME], got {sorted(values)}")
    arms = {name: parse(Arm, table, f"arms.{name}.") for name, table in tables.items()}
    for name, arm in arms.items():
        trained = [other for other in arms if not arms[other].weights_of]
        if arm.weights_of and arm.weights_of not in trained:
            raise ConfigError(
                f"arms.{name}.weights_of: expected one of {', '.join(trained)}, got {arm.weights_of!r}"
            )
    ablation = Ablation(read_config(path.parent / values["recipe"]), arms)
    for name in arms:
        ablation.network(name)  # refuses what does not fit before hours of training
    return ablation


def changed(config: Any, changes: Mapping[str, Any], path: str) -> Any:
    """A dataclass with some fields replaced, nested ones key by key.

    Raises:
        ConfigError: a key that it does not have, or a value that it refuses.
    """
    known = [item.name for item in fields(config)]
    if unknown := [key for key in changes if key not in known]:
        raise ConfigError(
            f"unknown keys {', '.join(path + key for key in unknown)}; known: {', '.join(known)}"
        )
    values = {}
    for key, value in changes.items():
        old = getattr(config, key)
        nested = is_dataclass(old) and isinstance(value, Mapping)
        values[key] = changed(old, value, f"{path}{key}.") if nested else value
    try:
        return replace(config, **values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path.rstrip('.')}: {error}") from error
