"""The training loop of encode-once networks: resumable at any step, averaging its weights."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from clickmask_models.checkpoints import save_checkpoint
from clickmask_models.encode_once import EncodeOnceCDNet
from clickmask_training.clicks import ITERATIVE, RANDOM_NEGATIVE, RANDOM_POSITIVE, corrective_click
from clickmask_training.config import TrainingConfig
from clickmask_training.data import TrainingData
from clickmask_training.distributed import average_gradients, broadcast_buffers, rank_and_world, total
from clickmask_training.held_out import held_out_batches, held_out_iou
from clickmask_training.log import add_row, keep_rows
from clickmask_training.losses import auxiliary_bce, bce_dice, mean_iou
from clickmask_training.precision import float32_depthwise
from clickmask_training.samples import Batch, batches

STATE_NAME = "state.pt"
WEIGHTS_NAME = "averaged.safetensors"
_LOG_NAME = "log.csv"
_RATES = ("peak", "weight_decay")  # of a parameter group, as configured
_SAVE_SECONDS = 180
_LOG_STEPS = 20


class Trainer:
    """Network, averaged network and optimiser of one run, kept in one folder.

    The folder holds ``state.pt`` (resume), ``averaged.safetensors`` (the weights to ship) and ``log.csv``.
    """

    def __init__(self, network: EncodeOnceCDNet, config: TrainingConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.step = 0
        self.seconds = 0.0  # of training, over all sessions of the run
        self.samples = 0  # seen by all processes
        self.norms_frozen = False
        self.network = network.to(memory_format=torch.channels_last)
        self.network.backbone.features[: config.frozen_blocks].requires_grad_(False)
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        float32_depthwise(self.network)
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.network, config), fused=True)
        folder.mkdir(parents=True, exist_ok=True)

    def resume(self) -> bool:
        """Continues from the folder's state, if there is one; the configuration is this trainer's own."""
        path = self.folder / STATE_NAME
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        configured = [{key: group[key] for key in _RATES} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, rates in zip(self.optimizer.param_groups, configured, strict=True):
            group.update(rates)
        self.step = state["step"]
        self.seconds = state.get("seconds", 0.0)  # states of earlier versions lack this and what follows
        self.samples = state.get("samples", 0)
        self.norms_frozen = state.get("norms_frozen", False)
        rank, world = rank_and_world()
        if rank == 0:
            keep_rows(self.folder / _LOG_NAME, self.step)
            saved = {**state.get("config", {}), "world": state.get("world", world)}
            for change in changes(saved, {**asdict(self.config), "world": world}):
                print(f"changed since the run was saved: {change}")
        return True

    def save(self) -> None:
        """Writes the averaged weights and the state, each whole or not at all."""
        save_checkpoint(self.folder / WEIGHTS_NAME, self.averaged, {"step": str(self.step)})
        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "samples": self.samples,
            "norms_frozen": self.norms_frozen,
            "config": asdict(self.config),
            "world": rank_and_world()[1],
        }
        partial = self.folder / (STATE_NAME + ".partial")
        torch.save(state, partial)
        os.replace(partial, self.folder / STATE_NAME)

    def run(self, data: TrainingData, held_out: TrainingData | None = None) -> None:
        """Trains to the configured number of steps; with several processes, the first one writes.

        Args:
            data: what to train on.
            held_out: what to measure the averaged weights on at each save; None or no images for nothing.
        """
        rank, world = rank_and_world()
        probe = held_out_batches(held_out, self.config) if held_out is not None and rank == 0 else []
        saved = time.monotonic()
        began = saved - self.seconds
        window: list[tuple[float, float]] = []
        for batch in batches(data, self.config, self.step, rank, world):
            window.append(self.train_step(batch))
            self.seconds = time.monotonic() - began
            if rank > 0:
                continue
            saving = self.step == self.config.steps or time.monotonic() - saved > _SAVE_SECONDS
            if saving or self.step % _LOG_STEPS == 0:
                self._log(window, probe if saving else [])
                window.clear()
            if saving:
                self.save()
                saved = time.monotonic()

    def train_step(self, batch: Batch) -> tuple[float, float]:
        """One optimiser step; returns loss and mean IoU of the batch."""
        self._set_modes()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate_factor(self.step, self.config)
        rng = np.random.default_rng((self.config.seed, self.step, 1, rank_and_world()[0]))
        with torch.autocast("cpu", torch.bfloat16):
            features = self.network.encode(batch.image)
            clicks, previous = self._correct(features, batch, rng)
            outputs = self.network.decode_with_auxiliary(features, _compact(clicks), previous)
        loss = bce_dice(outputs.logits.float(), batch.mask)
        if outputs.auxiliary is not None:
            loss = loss + self.config.auxiliary_weight * auxiliary_bce(outputs.auxiliary.float(), batch.mask)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.network)
        nn.utils.clip_grad_norm_(self.network.parameters(), 3.0)
        self.optimizer.step()
        self._average()
        self.step += 1
        self.samples += total(len(batch.image))
        return float(loss.detach()), mean_iou(outputs.logits.detach(), batch.mask)

    @torch.no_grad()
    def _correct(
        self, features: tuple[Tensor, ...], batch: Batch, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Corrective clicks on the network's own errors; the encoder is paid once for all rounds.

        Samples with and without a previous mask stay in one batch, since batch norm would otherwise
        learn statistics that fit neither.
        """
        clicks, previous = batch.clicks.clone(), batch.previous_mask.clone()
        self.network.decoder.eval()
        for round_ in range(min(int(batch.rounds.max()), ITERATIVE)):
            active = torch.nonzero(batch.rounds > round_).squeeze(1)
            logits = self.network.decode(
                tuple(feature[active].detach() for feature in features),
                _compact(clicks[active]),
                previous[active],
            )
            previous[active] = torch.sigmoid(logits.float()) * batch.inside[active]
            for index in active.tolist():
                predicted = previous[index, 0].numpy() > 0.5
                click = corrective_click(predicted, batch.mask[index, 0].numpy(), rng)
                if click is not None:
                    clicks[index, RANDOM_POSITIVE + RANDOM_NEGATIVE + round_] = torch.from_numpy(click)
        self._set_modes()
        return clicks, previous

    def _set_modes(self) -> None:
        frozen = self.step >= (1 - self.config.frozen_norm_share) * self.config.steps
        if frozen and not self.norms_frozen:
            self._adopt_statistics()
        self.norms_frozen = frozen
        self.network.train(not frozen)
        backbone_learns = self.step >= self.config.backbone_from * self.config.steps
        for block in self.network.backbone.features[self.config.frozen_blocks :]:
            block.requires_grad_(backbone_learns)

    @torch.no_grad()
    def _adopt_statistics(self) -> None:
        """The averaged batch-norm statistics, the same in all processes, become the fixed ones."""
        averaged = dict(self.averaged.named_buffers())
        for name, buffer in self.network.named_buffers():
            if "running_" in name:
                buffer.copy_(averaged[name])
        broadcast_buffers(self.network)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.average_decay, (1 + self.step) / (10 + self.step))
        live = self.network.state_dict()
        for name, value in self.averaged.state_dict().items():
            if value.is_floating_point():
                value.lerp_(live[name], 1 - decay)
            else:
                value.copy_(live[name])

    def _log(self, window: list[tuple[float, float]], probe: list[Batch]) -> None:
        loss, iou = np.mean(window, axis=0)
        row: dict[str, object] = {
            "step": self.step,
            "loss": f"{loss:.4f}",
            "iou": f"{iou:.4f}",
            "seconds": f"{self.seconds:.0f}",
            "samples": self.samples,
        }
        text = f"step {self.step}/{self.config.steps}  loss {loss:.3f}  IoU {iou:.3f}"
        if probe:
            held_out = held_out_iou(self.averaged, probe)
            row["held_out_iou"] = f"{held_out:.4f}"
            text += f"  held-out IoU {held_out:.3f}"
        add_row(self.folder / _LOG_NAME, row)
        print(text, flush=True)


def changes(saved: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """The saved keys whose values are others now, as "key: old -> new"."""
    return [f"{key}: {value} -> {now.get(key)}" for key, value in saved.items() if now.get(key) != value]


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _compact(clicks: Tensor) -> Tensor:
    """Clicks with the used rows first and columns of absent ones cut: maps cost time per row."""
    used = clicks[..., 2] >= 0
    order = torch.argsort(used.int(), dim=1, descending=True, stable=True)
    return clicks.gather(1, order.unsqueeze(-1).expand_as(clicks))[:, : max(1, int(used.sum(1).max()))]


def _parameter_groups(network: EncodeOnceCDNet, config: TrainingConfig) -> list[dict[str, object]]:
    """Pretrained parts learn slowly; norms and biases carry no weight decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        pretrained = name.startswith(("backbone.", "context."))
        groups.setdefault((pretrained, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "peak": config.backbone_rate if pretrained else config.learning_rate,
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for (pretrained, decayed), parameters in groups.items()
    ]
