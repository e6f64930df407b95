"""Training configuration: a TOML file checked into a frozen dataclass."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clickmask_models.presets import DEFAULT, PRESETS
from clickmask_training.checks import TINY, ConfigError, choice, number, parse, share
from clickmask_training.settings import (
    ClickSettings,
    ColourSettings,
    DataSettings,
    LossSettings,
    ValidationSettings,
    ViewSettings,
)

__all__ = ["ConfigError", "TrainingConfig", "read_config"]

_BLOCKS = 18  # of MobileNetV2
_STEP = 32  # the coarsest stride of any network


@dataclass(frozen=True)
class TrainingConfig:
    """One training run.

    Attributes:
        mixture: data-set folder -> share of the samples.
        steps: optimiser steps in all.
        network: preset (``clickmask_models.presets``) whose network a new run has and whose crop policy
            the ``run_time`` views follow; the validation follows its sizes too.
        crop_sizes: side in pixels, or "HEIGHTxWIDTH" -> share of the batches.
        batch_pixels: pixels per batch; the batch size follows the crop size.
        accumulate: batches per optimiser step.
        optimizer: ``adamw``, or ``adam``, whose weight decay is part of the gradient.
        learning_rate: of the new parts.
        backbone_rate: of the pretrained backbone and context head.
        frozen_blocks: first blocks of MobileNetV2 that keep their pretrained weights.
        backbone_from: share of the steps after which the backbone learns too; until then the new parts
            learn alone, at half the time per step.
        weight_decay: on convolution weights.
        warmup: steps of linear warm-up; 0 for none.
        schedule: ``cosine`` lets the learning rate fall to zero over the steps, ``steps`` divides it by 10 at
            each of ``drops``, ``constant`` keeps it.
        drops: steps at which it does so.
        clip: largest norm of the gradient; 0 for no limit.
        precision: of the forward pass: ``bf16``, ``fp16`` (CUDA only, with a scaled loss) or ``fp32``.
        iterative_share: share of the samples that get corrective clicks and the previous mask.
        mask_share: share of the samples that start from a damaged true mask, as ``set_mask`` does.
        auxiliary_weight: weight of the loss of FDM's destination head, or OCR's auxiliary one.
        average_decay: per-step decay of the averaged weights that are shipped.
        frozen_norm_share: last share of the steps with fixed batch-norm statistics.
        seed: with n processes, process r's batch of a step is a function of (seed, step n + r), and its
            corrective clicks of (seed, step, r) and the network's predictions.
        view, colour, clicks, loss, data, validation: see ``settings``.
    """

    mixture: Mapping[str, float]
    steps: int
    network: str = DEFAULT
    crop_sizes: Mapping[int | str, float] = field(default_factory=lambda: {256: 0.75, 384: 0.25})
    batch_pixels: int = 16 * 256 * 256
    accumulate: int = 1
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = 1e-3
    backbone_rate: float = 2e-4
    frozen_blocks: int = 4
    backbone_from: float = 0.35
    weight_decay: float = 1e-4
    warmup: int = 200
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    drops: tuple[int, ...] = ()
    clip: float = 3.0
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    iterative_share: float = 0.55
    mask_share: float = 0.08
    auxiliary_weight: float = 0.4
    average_decay: float = 0.998
    frozen_norm_share: float = 0.1
    seed: int = 0
    view: ViewSettings = field(default_factory=ViewSettings)
    colour: ColourSettings = field(default_factory=ColourSettings)
    clicks: ClickSettings = field(default_factory=ClickSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    data: DataSettings = field(default_factory=DataSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_pixels", "accumulate"):
            number(name, getattr(self, name), "a positive number", 1, whole=True)
        for name in ("learning_rate", "backbone_rate"):
            number(name, getattr(self, name), "a positive number", TINY)
        for name in ("weight_decay", "auxiliary_weight", "clip"):
            number(name, getattr(self, name), "a number of at least 0", 0)
        for name in ("backbone_from", "iterative_share", "mask_share", "average_decay", "frozen_norm_share"):
            share(name, getattr(self, name))
        number("frozen_blocks", self.frozen_blocks, f"0 to {_BLOCKS} blocks", 0, _BLOCKS, whole=True)
        number("warmup", self.warmup, "a number of at least 0", 0, whole=True)
        number("seed", self.seed, "a number of at least 0", 0, whole=True)
        choice("network", self.network, tuple(PRESETS))
        choice("optimizer", self.optimizer, ("adamw", "adam"))
        choice("precision", self.precision, ("bf16", "fp16", "fp32"))
        self._check_schedule()
        for name, what in (("mixture", "data-set folder"), ("crop_sizes", "size")):
            shares = getattr(self, name)
            if not isinstance(shares, Mapping) or not shares:
                raise ConfigError(f"{name}: expected at least one {what} and its share, got {shares!r}")
            for key, value in shares.items():
                number(f"{name}.{key}", value, "a positive share", TINY)
        self._check_sizes()
        if not self.loss.of_masks and self.backbone_from:
            raise ConfigError(
                f"backbone_from: expected 0 where loss.features is all there is, got {self.backbone_from}: "
                "the new parts have nothing to learn before the backbone does"
            )

    @property
    def crop_shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of the crop sizes, in their order."""
        return tuple(_shape(size) for size in self.crop_sizes)

    def _check_schedule(self) -> None:
        choice("schedule", self.schedule, ("cosine", "steps", "constant"))
        if not isinstance(self.drops, tuple):
            raise ConfigError(f"drops: expected a list of steps, got {self.drops!r}")
        for drop in self.drops:
            number("drops", drop, "steps of at least 1", 1, whole=True)
        if (self.schedule == "steps") != bool(self.drops):
            raise ConfigError(
                "drops: expected at least one step with schedule 'steps' and none with another, got "
                f"{list(self.drops)} with {self.schedule!r}"
            )

    def _check_sizes(self) -> None:
        for height, width in self.crop_shapes:
            if self.view.kind == "run_time" and height != width:
                raise ConfigError(
                    f"crop_sizes: expected squares with view.kind 'run_time', got {height}x{width}"
                )


def _shape(size: int | str) -> tuple[int, int]:
    """(height, width) of 256 or "320x480"."""
    found = re.fullmatch(r"(\d+)x(\d+)", size) if isinstance(size, str) else None
    shape = (int(found[1]), int(found[2])) if found else (size, size)
    if not all(type(side) is int and side >= _STEP and side % _STEP == 0 for side in shape):
        raise ConfigError(f'crop_sizes: expected multiples of {_STEP}, such as 256 or "320x480", got {size}')
    return shape  # type: ignore[return-value]


def read_config(path: Path) -> TrainingConfig:
    """Reads a TOML file; unknown or missing keys are refused by name."""
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"expected a training configuration at {path}, got: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    if isinstance(sizes := values.get("crop_sizes"), dict):  # TOML keys are strings
        values["crop_sizes"] = {int(key) if key.isdecimal() else key: sizes[key] for key in sizes}
    try:
        config: TrainingConfig = parse(TrainingConfig, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return config
