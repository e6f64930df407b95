"""``python -m clickmask_training``: trains a network on images with masks, or continues a run."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import torch

from clickmask_models.public_checkpoints import open_checkpoint
from clickmask_training.checks import number
from clickmask_training.command import run_command
from clickmask_training.config import TrainingConfig, read_config
from clickmask_training.data import TrainingData
from clickmask_training.distributed import join, leave, rank_and_world
from clickmask_training.precision import choose_device
from clickmask_training.run_folder import STATE_NAME
from clickmask_training.starting import starting_network
from clickmask_training.trainer import Trainer

_DESCRIPTION = """\
Trains a network on images with masks, simulating the clicks of a person.

A run lives in one folder (--output). Start the same command again to continue it where it was saved; it is
saved every three minutes and at the end. The folder then holds
  averaged.safetensors  the weights to use: build an engine from them with export/build_engine.py
  log.csv               loss and quality over time
  preview.png           the newest samples: truth, previous mask, prediction with the clicks
  state.pt              what is needed to continue
"""
_EPILOG = """\
examples:
  # go on from the shipped network, on your images: DATA/mine/images, DATA/mine/masks
  python -m clickmask_training --config mine.toml --data DATA --checkpoint engines/default.safetensors \\
      --output runs/mine
  # the CDNet paper's recipe on SBD, on two graphics cards
  torchrun --nproc-per-node 2 -m clickmask_training --config training/configs/cdnet_paper.toml --data DATA \\
      --backbone resnet50.pth --output runs/cdnet --device cuda --workers 8
docs/training.md explains the configuration and which data folders are read.
"""


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    torch.set_flush_denormal(True)  # Gaussian tails and vanishing gradients would take slow paths
    return run_command(_parser().parse_args(arguments))


def _train(options: argparse.Namespace) -> None:
    number("--threads", options.threads, "a positive number", 1, whole=True)
    number("--workers", options.workers, "a number of at least 0", 0, whole=True)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    config = _config(options)
    device = choose_device(options.device)
    torch.manual_seed(config.seed)
    join(device)
    say = print if rank_and_world()[0] == 0 else _silent
    continued = (options.output / STATE_NAME).exists()
    network = starting_network(
        config,
        options.output,
        backbone=options.backbone,
        checkpoint=options.checkpoint,
        blank=options.from_scratch,
    )
    teacher = open_checkpoint(options.teacher).network if options.teacher else None
    # Read before the trainer makes the run's folder: a start that is refused leaves none behind.
    data = TrainingData(options.data, config.mixture, config.data)
    held_out = TrainingData(options.data, config.mixture, config.data, held_out=True)
    trainer = Trainer(network, config, options.output, device, teacher)
    if continued and trainer.resume():
        say(f"continuing {options.output} at step {trainer.step}")
        if options.backbone or options.checkpoint:
            say("the run found there has its own weights: --backbone and --checkpoint are ignored")
    say(f"{len(data)} masks to train on, {len(held_out)} held out; {config.network} on {device}")
    trainer.run(data, held_out, options.workers)


def _config(options: argparse.Namespace) -> TrainingConfig:
    config = read_config(options.config)
    given = {name: getattr(options, name) for name in ("steps", "network", "seed")}
    return replace(config, **{name: value for name, value in given.items() if value is not None})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clickmask_training",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", type=Path, required=True, help="what to train and how: a TOML file, see training/configs")
    add(
        "--data", type=Path, required=True, help="folder that holds the data-set folders of the configuration"
    )
    add("--output", type=Path, required=True, help="run folder; a run found there is continued")
    start = parser.add_argument_group(
        "what a new run starts from (one of these)"
    ).add_mutually_exclusive_group()
    start.add_argument("--checkpoint", type=Path, help="a trained network to go on from")
    start.add_argument("--backbone", type=Path, help="classification weights of the backbone")
    start.add_argument("--from-scratch", action="store_true", help="random weights")
    machine = parser.add_argument_group("the machine")
    machine.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:N, or auto")
    machine.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default 1)")
    machine.add_argument(
        "--workers",
        type=int,
        default=0,
        help="processes that make samples (default 0: a thread); 4-16 for CUDA",
    )
    change = parser.add_argument_group("changes to the configuration")
    change.add_argument("--steps", type=int, help="number of steps in all")
    change.add_argument("--network", help="preset, such as ritm_hrnet18")
    change.add_argument("--seed", type=int, help="seed of data order and clicks")
    change.add_argument("--teacher", type=Path, help="checkpoint to learn from too, see [loss]")
    parser.set_defaults(run=_train)
    return parser


def _silent(*_: object) -> None:
    """Takes the place of print in all processes but the first."""


if __name__ == "__main__":
    status = main()
    if status == 0:  # after an error the others may never come
        leave()
    sys.exit(status)
