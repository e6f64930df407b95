"""``python -m clickmask_training``: trains a network, or continues a run."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from clickmask.errors import ClickmaskError
from clickmask_models.checkpoints import CheckpointError, load_backbone, load_checkpoint
from clickmask_models.encode_once import EncodeOnceCDNet
from clickmask_training.config import ConfigError, read_config
from clickmask_training.data import TrainingData
from clickmask_training.distributed import join
from clickmask_training.trainer import STATE_NAME, WEIGHTS_NAME, Trainer


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m clickmask_training", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="TOML file, see training/configs")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data-set folders")
    parser.add_argument(
        "--output", type=Path, required=True, help="run folder; a run found there is continued"
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--backbone", type=Path, help="MobileNetV2 weights (.safetensors) to start from")
    start.add_argument("--checkpoint", type=Path, help="clickmask checkpoint (.safetensors) to start from")
    parser.add_argument("--steps", type=int, help="overrides the configuration's number of steps")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)  # Gaussian tails and vanishing gradients would take slow paths
    try:
        config = read_config(options.config)
        if options.steps is not None:
            config = replace(config, steps=options.steps)
        torch.manual_seed(config.seed)
        join()
        trainer = Trainer(_network(options), config, options.output)
        if trainer.resume():
            print(f"continuing {options.output} at step {trainer.step}")
            if options.backbone or options.checkpoint:
                print("the run found there has its own weights: --backbone and --checkpoint are ignored")
        data = TrainingData(options.data, config.mixture)
        held_out = TrainingData(options.data, config.mixture, held_out=True)
        print(f"{len(data)} masks in memory, {len(held_out)} held out")
        trainer.run(data, held_out)
    except (ClickmaskError, CheckpointError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _network(options: argparse.Namespace) -> EncodeOnceCDNet:
    """The network to start from; of a run found in the output folder, the architecture of its weights."""
    continued = (options.output / STATE_NAME).exists()
    if options.backbone and not continued:
        network = EncodeOnceCDNet()
        load_backbone(options.backbone, network)
        return network
    checkpoint = options.output / WEIGHTS_NAME if continued else options.checkpoint
    if checkpoint is None:
        raise ConfigError("a new run needs --backbone FILE or --checkpoint FILE")
    network = load_checkpoint(checkpoint)
    if not isinstance(network, EncodeOnceCDNet):
        raise ConfigError(f"expected an encode-once checkpoint, got {type(network).__name__}")
    return network


if __name__ == "__main__":
    sys.exit(main())
