"""What a run tells of itself: rows of its log, lines, a bar, and how good it is on images held out."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
from torch import nn

from clickmask.evaluation.progress import Progress
from clickmask_training.config import TrainingConfig
from clickmask_training.data import TrainingData
from clickmask_training.held_out import RobotCheck, held_out_batches, held_out_iou
from clickmask_training.log import add_row, line
from clickmask_training.run_folder import LOG_NAME

_SAVE_SECONDS = 180
_LOG_STEPS = 20


class Watch:
    """Counts the steps of one run and says when to save it.

    Args:
        folder: of the run.
        config: the run's.
        held_out: what to measure the averaged weights on at saves; None or no images for nothing.
        step: that the run is at.
        seconds: that it took.
    """

    def __init__(
        self, folder: Path, config: TrainingConfig, held_out: TrainingData | None, step: int, seconds: float
    ) -> None:
        self._log, self._config = folder / LOG_NAME, config
        self._probe = [] if held_out is None else held_out_batches(held_out, config)
        self._robot = None if held_out is None else RobotCheck(held_out, config)
        self._first = self._checked = step
        self._start = self._saved = time.monotonic()
        self._before = seconds
        self._window: list[tuple[float, float]] = []
        self._bar = Progress(folder.name, step, config.steps, log_every=math.inf)

    @property
    def seconds(self) -> float:
        """Of training, over all sessions of the run."""
        return self._before + time.monotonic() - self._start

    def after(self, step: int, measured: tuple[float, float], samples: int, averaged: nn.Module) -> bool:
        """Tells of a step; after every twentieth, and after those to save, by a row of the log.

        Args:
            step: steps that are taken.
            measured: loss and IoU of the last one.
            samples: seen by all processes.
            averaged: the weights to ship, in eval mode.

        Returns:
            Whether to save now, every three minutes and after the last step.
        """
        self._window.append(measured)
        last = step == self._config.steps
        saving = last or time.monotonic() - self._saved > _SAVE_SECONDS
        if saving or step % _LOG_STEPS == 0:
            row = self._row(step, samples) | (self._judged(step, averaged, last) if saving else {})
            add_row(self._log, row)
            left = (time.monotonic() - self._start) / (step - self._first) * (self._config.steps - step)
            self._bar.close()
            print(line(row, self._config.steps, left), flush=True)
        if not last:
            self._bar.update(step)
        return saving

    def saved(self) -> None:
        """The run was saved."""
        self._saved = time.monotonic()

    def _row(self, step: int, samples: int) -> dict[str, object]:
        loss, iou = np.mean(self._window, axis=0)
        self._window.clear()
        measured = {"loss": f"{loss:.4f}"} | ({} if math.isnan(iou) else {"iou": f"{iou:.4f}"})
        return {"step": step, **measured, "seconds": f"{self.seconds:.0f}", "samples": samples}

    def _judged(self, step: int, averaged: nn.Module, last: bool) -> dict[str, object]:
        """What held-out images say of the averaged weights."""
        found: dict[str, object] = {}
        if self._probe:
            found["held_out_iou"] = f"{held_out_iou(averaged, self._probe, self._config):.4f}"
        if self._robot and (last or step - self._checked >= self._config.validation.every):
            found |= self._robot.run(averaged)
            self._checked = step
        return found
