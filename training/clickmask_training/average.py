"""``python -m clickmask_training.average``: the mean of several checkpoints of one architecture.

Runs from one starting point, on other seeds or data, often average to weights that are better than each.
Their batch-norm statistics are averaged too, which fits weights that lie close together; measure the result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from clickmask_models.checkpoints import load_checkpoint, save_checkpoint
from clickmask_training.checks import ConfigError
from clickmask_training.command import check_output, run_command


def average_networks(networks: Sequence[nn.Module]) -> nn.Module:
    """The first network, its weights and statistics replaced by the mean over all, summed in float64.

    Raises:
        ConfigError: fewer than two networks, or of several architectures.
    """
    if len(networks) < 2:
        raise ConfigError(f"expected at least two networks to average, got {len(networks)}")
    for other in networks[1:]:
        if other.config != networks[0].config:
            raise ConfigError(
                f"expected networks of one configuration, got {networks[0].config} and {other.config}"
            )
    states = [network.state_dict() for network in networks]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }
    networks[0].load_state_dict(mean)
    return networks[0]


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m clickmask_training.average", description=__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+", help="clickmask checkpoints (.safetensors)")
    parser.add_argument("--output", type=Path, required=True, help="where the mean is written")
    parser.set_defaults(run=_run)
    return run_command(parser.parse_args(arguments))


def _run(options: argparse.Namespace) -> None:
    check_output("--output", options.output, ".safetensors")
    mean = average_networks([load_checkpoint(path) for path in options.checkpoints])
    save_checkpoint(options.output, mean, {"averaged": ", ".join(path.name for path in options.checkpoints)})
    print(f"wrote {options.output}: the mean of {len(options.checkpoints)} checkpoints")


if __name__ == "__main__":
    sys.exit(main())
