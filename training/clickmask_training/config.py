"""Training configuration: a TOML file checked into a frozen dataclass."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

_TINY = sys.float_info.min  # the least positive number
_BLOCKS = 18  # of MobileNetV2


class ConfigError(ValueError):
    """A configuration file that cannot be used; the message says what was expected."""


@dataclass(frozen=True)
class TrainingConfig:
    """One training run.

    Attributes:
        mixture: data-set folder -> share of the samples.
        steps: optimiser steps in all; the learning rate falls to zero over them.
        crop_sizes: side in pixels -> share of the batches.
        batch_pixels: pixels per batch; the batch size follows the crop size.
        learning_rate: of the new parts.
        backbone_rate: of the pretrained backbone and context head.
        frozen_blocks: first blocks of the backbone that keep their pretrained weights.
        backbone_from: share of the steps after which the backbone learns too; until then the new parts
            learn alone, at half the time per step.
        weight_decay: AdamW's, on convolution weights.
        warmup: steps of linear warm-up.
        iterative_share: share of the samples that carry a previous mask and corrective clicks.
        mask_share: share of the samples that start from a damaged true mask, as ``set_mask`` does.
        auxiliary_weight: weight of FDM's destination loss.
        average_decay: per-step decay of the averaged weights that are shipped.
        frozen_norm_share: last share of the steps with fixed batch-norm statistics.
        seed: with n processes, process r's batch of a step is a function of (seed, step n + r), and its
            corrective clicks of (seed, step, r) and the network's predictions.
    """

    mixture: Mapping[str, float]
    steps: int
    crop_sizes: Mapping[int, float] = field(default_factory=lambda: {256: 0.75, 384: 0.25})
    batch_pixels: int = 16 * 256 * 256
    learning_rate: float = 1e-3
    backbone_rate: float = 2e-4
    frozen_blocks: int = 4
    backbone_from: float = 0.35
    weight_decay: float = 1e-4
    warmup: int = 200
    iterative_share: float = 0.55
    mask_share: float = 0.08
    auxiliary_weight: float = 0.4
    average_decay: float = 0.998
    frozen_norm_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_pixels", "warmup"):
            _check(name, getattr(self, name), "a positive number", 1, whole=True)
        for name in ("learning_rate", "backbone_rate"):
            _check(name, getattr(self, name), "a positive number", _TINY)
        for name in ("weight_decay", "auxiliary_weight"):
            _check(name, getattr(self, name), "a number of at least 0", 0)
        for name in ("backbone_from", "iterative_share", "mask_share", "average_decay", "frozen_norm_share"):
            _check(name, getattr(self, name), "a share in [0, 1]", 0, 1)
        _check("frozen_blocks", self.frozen_blocks, f"0 to {_BLOCKS} blocks", 0, _BLOCKS, whole=True)
        _check("seed", self.seed, "a number of at least 0", 0, whole=True)
        for name, what in (("mixture", "data-set folder"), ("crop_sizes", "size")):
            shares = getattr(self, name)
            if not isinstance(shares, Mapping) or not shares:
                raise ConfigError(f"{name}: expected at least one {what} and its share, got {shares!r}")
            for key, share in shares.items():
                _check(f"{name}.{key}", share, "a positive share", _TINY)
        for size in self.crop_sizes:
            if type(size) is not int or size < 32 or size % 32:
                raise ConfigError(f"crop_sizes: expected multiples of 32, got {size}")


def _check(
    name: str,
    value: object,
    wanted: str,
    low: float,
    high: float = sys.float_info.max,
    *,
    whole: bool = False,
) -> None:
    """Refuses a value that is no number in [low, high]; a whole number serves as any."""
    kinds = (int,) if whole else (int, float)
    if type(value) not in kinds or not low <= value <= high:  # type: ignore[operator]
        raise ConfigError(f"{name}: expected {wanted}{' (whole)' * whole}, got {value!r}")


def read_config(path: Path) -> TrainingConfig:
    """Reads a TOML file; unknown or missing keys are refused by name."""
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"expected a training configuration at {path}, found no such file") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    known = {item.name for item in fields(TrainingConfig)}
    if unknown := sorted(set(values) - known):
        raise ConfigError(f"{path}: unknown keys {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    if missing := sorted({"mixture", "steps"} - set(values)):
        raise ConfigError(f"{path}: missing keys {', '.join(missing)}")
    if isinstance(sizes := values.get("crop_sizes"), dict):  # TOML keys are strings
        values["crop_sizes"] = {int(key) if key.isdecimal() else key: sizes[key] for key in sizes}
    return TrainingConfig(**values)
