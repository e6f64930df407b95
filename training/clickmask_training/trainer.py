"""The training loop of any network: resumable at any step, averaging its weights."""

from __future__ import annotations

import copy
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from clickmask_models.presets import pipeline
from clickmask_training import passes
from clickmask_training.checks import ConfigError
from clickmask_training.config import TrainingConfig
from clickmask_training.data import TrainingData
from clickmask_training.distributed import (
    CPU,
    average_gradients,
    broadcast_buffers,
    rank_and_world,
    total,
)
from clickmask_training.latent import LatentHeads
from clickmask_training.log import keep_rows
from clickmask_training.losses import feature_distance, mean_iou
from clickmask_training.objective import Extras, objective
from clickmask_training.optimization import backbone_blocks, learning_rate_factor, make_optimizer
from clickmask_training.precision import autocast, float32_depthwise, scaler
from clickmask_training.preview import Seen, write_preview
from clickmask_training.run_folder import LOG_NAME, PREVIEW_NAME, changes, make_folder, read_state, write_run
from clickmask_training.samples import Batch, batches
from clickmask_training.teaching import check_teacher, taught
from clickmask_training.watching import Watch


class Trainer:
    """Network, averaged network and optimiser of one run, kept in one folder.

    The folder holds ``state.pt`` (resume), ``averaged.safetensors`` (the weights to ship), ``log.csv`` and
    ``preview.png`` (the newest samples at the last save, where masks are learnt).

    Args:
        network: what to train; any network of ``clickmask_models``.
        config: how.
        folder: where the run is kept.
        device: where the network lives.
        teacher: a network whose probabilities or features are learnt too, as ``config.loss`` weighs them.
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainingConfig,
        folder: Path,
        device: torch.device = CPU,
        teacher: nn.Module | None = None,
    ) -> None:
        check_teacher(network, teacher, config.loss)
        self.config, self.folder, self.device = config, folder, device
        self.step = 0
        self.seconds = 0.0  # of training, over all sessions of the run
        self.samples = 0  # seen by all processes
        self.norms_frozen = False
        self.network = network.to(device, memory_format=torch.channels_last)
        self._blocks = backbone_blocks(self.network, config)
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.heads: LatentHeads | None = None
        if config.loss.latent_heads:
            self.heads = LatentHeads(self.network, config.loss.latent_heads).to(device)
        self._modules = [self.network] if self.heads is None else [self.network, self.heads]
        if device.type == "cpu":
            for module in self._modules:
                float32_depthwise(module)
        self._teacher = teacher and teacher.to(device, memory_format=torch.channels_last).eval()
        self._scaler = scaler(device, config.precision)
        self.optimizer = make_optimizer(self._modules, config)
        self._seen: Seen | None = None
        make_folder(folder)

    def resume(self) -> bool:
        """Continues from the folder's state, if there is one; the configuration is this trainer's own.

        Raises:
            ConfigError: the state is damaged, of another network, or has other latent heads.
        """
        state = read_state(self.folder)
        if state is None:
            return False
        configured = [{**group} for group in self.optimizer.param_groups]
        try:
            self.network.load_state_dict(state["network"])
            self.averaged.load_state_dict(state["averaged"])
            if self.heads is not None:
                self.heads.load_state_dict(state.get("heads", {}))
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{self.folder}: its state does not fit this network and configuration; give another "
                f"--output and start from its averaged.safetensors with --checkpoint: {error}"
            ) from error
        for group, options in zip(self.optimizer.param_groups, configured, strict=True):
            group.update(options)
        self.step = state["step"]
        self.seconds = state.get("seconds", 0.0)  # states of earlier versions lack this and what follows
        self.samples = state.get("samples", 0)
        self.norms_frozen = state.get("norms_frozen", False)
        self._scaler.load_state_dict(state.get("scaler", {}) or self._scaler.state_dict())
        rank, world = rank_and_world()
        if rank == 0:
            keep_rows(self.folder / LOG_NAME, self.step)
            saved = {**state.get("config", {}), "world": state.get("world", world)}
            for change in changes(saved, {**asdict(self.config), "world": world}):
                print(f"changed since the run was saved: {change}")
        return True

    def save(self) -> None:
        """Writes the averaged weights and the state, each whole or not at all, and the preview."""
        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "samples": self.samples,
            "norms_frozen": self.norms_frozen,
            "config": asdict(self.config),
            "world": rank_and_world()[1],
        }
        if self.heads is not None:
            state["heads"] = self.heads.state_dict()
        write_run(self.folder, self.averaged, state)
        if self._seen is not None:
            write_preview(self.folder / PREVIEW_NAME, self._seen)

    def run(self, data: TrainingData, held_out: TrainingData | None = None, workers: int = 0) -> None:
        """Trains to the configured number of steps; with several processes, the first one writes.

        Args:
            data: what to train on.
            held_out: what to measure the averaged weights on at saves; None or no images for nothing.
            workers: processes that make batches; 0 for a thread.
        """
        rank, world = rank_and_world()
        watch = Watch(self.folder, self.config, held_out, self.step, self.seconds) if rank == 0 else None
        with closing(batches(data, self.config, self.step, rank, world, workers)) as stream:
            while self.step < self.config.steps:
                measured = self.train_step(*islice(stream, self.config.accumulate))
                if watch is None:
                    continue
                self.seconds = watch.seconds
                if watch.after(self.step, measured, self.samples, self.averaged):
                    self.save()
                    watch.saved()

    def train_step(self, *micro_batches: Batch) -> tuple[float, float]:
        """One optimiser step over one or more batches; returns their mean loss and IoU."""
        self._set_modes()
        rank, _ = rank_and_world()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate_factor(self.step, self.config)
        stream = np.random.SeedSequence((self.config.seed, self.step, 2, rank))
        torch.manual_seed(int(stream.generate_state(1)[0]))  # so that dropout is a function of the step too
        self.optimizer.zero_grad(set_to_none=True)
        measured = []
        for index, batch in enumerate(micro_batches):
            # (seed, step, 1, rank) for the first, as before accumulation was: old runs go on unchanged.
            rng = np.random.default_rng((self.config.seed, self.step, 1, rank, *([index] if index else [])))
            loss, iou = self._loss(batch, rng)
            if not bool(loss.isfinite()) and not self._scaler.is_enabled():  # a scaler skips such steps
                raise ConfigError(
                    f"step {self.step}: expected a finite loss, got {float(loss)}; lower learning_rate or "
                    "backbone_rate, or lengthen warmup, and continue the run"
                )
            self._scaler.scale(loss / len(micro_batches)).backward()
            measured.append((float(loss.detach()), iou))
        average_gradients(self._modules)
        self._scaler.unscale_(self.optimizer)
        if self.config.clip:
            parameters = [p for module in self._modules for p in module.parameters()]
            nn.utils.clip_grad_norm_(parameters, self.config.clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self._average()
        self.step += 1
        self.samples += total(sum(len(batch.image) for batch in micro_batches), self.device)
        loss_and_iou = np.mean(measured, axis=0)
        return float(loss_and_iou[0]), float(loss_and_iou[1])

    def _loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, float]:
        """Loss and IoU of a batch, after its corrective clicks; NaN for the IoU if nothing is decoded."""
        image = batch.image.to(self.device, non_blocking=True)
        if not self.config.loss.of_masks:
            return self._feature_loss(image), float("nan")
        with autocast(self.device, self.config.precision):
            features = passes.encode(self.network, image)
            self.network.eval()  # a person's next click is an answer to what the run time would show
            momentum = pipeline(self.config.network).momentum
            prompts = passes.correct(self.network, features, batch, self.config.clicks, rng, momentum)
            self._set_modes()
            outputs = passes.decode(
                self.network, passes.told(features, prompts), prompts.clicks, prompts.previous
            )
            latent = self.heads() if self.heads is not None else None
            theirs = None
            if self._teacher is not None:
                theirs = taught(self._teacher, image, prompts, self.config.loss)
        truth = batch.mask[prompts.rows]
        clicked = None
        if self.config.loss.clicked:
            clicked = passes.clicked_errors(prompts, truth, self.config.clicks)
        resizes = passes.align_corners(self.network)
        extras = Extras(prompts.clicks, latent, features, theirs, resizes, clicked)
        logits, mask = outputs.logits.detach(), truth.to(self.device)
        self._seen = Seen(image, mask, prompts.clicks, prompts.previous, logits)
        return objective(outputs, mask, extras, self.config), mean_iou(logits, mask)

    def _feature_loss(self, image: Tensor) -> Tensor:
        """Of an encoder that learns from the teacher's alone."""
        with autocast(self.device, self.config.precision):
            ours = passes.encode(self.network, image)
            with torch.no_grad():
                theirs = passes.encode(self._teacher, image)
        return self.config.loss.features * feature_distance(ours, theirs)

    def _set_modes(self) -> None:
        frozen = self.step >= (1 - self.config.frozen_norm_share) * self.config.steps
        if frozen and not self.norms_frozen:
            self._adopt_statistics()
        self.norms_frozen = frozen
        for module in self._modules:
            module.train(not frozen)
        learns = self.step >= self.config.backbone_from * self.config.steps
        for block in self._blocks:
            block.requires_grad_(learns)

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
