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

from clickmask_models.checkpoints import CheckpointError, load_checkpoint, save_checkpoint


def average_networks(networks: Sequence[nn.Module]) -> nn.Module:
    """The first network, its weights and statistics replaced by the mean over all, summed in float64.

    Raises:
        ValueError: fewer than two networks, or of several architectures.
    """
    if len(networks) < 2:
        raise ValueError(f"expected at least two networks to average, got {len(networks)}")
    for other in networks[1:]:
        if other.config != networks[0].config:
            raise ValueError(
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
    options = parser.parse_args(arguments)
    try:
        networks = [load_checkpoint(path) for path in options.checkpoints]
        mean = average_networks(networks)
        names = ", ".join(path.name for path in options.checkpoints)
        save_checkpoint(options.output, mean, {"averaged": names})
    except (CheckpointError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.output}: the mean of {len(networks)} checkpoints")
    return 0


if __name__ == "__main__":
    sys.exit(main())
