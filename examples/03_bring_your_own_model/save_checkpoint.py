"""Configures a network and saves it as a checkpoint that build_engine.py takes."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from clickmask_models.checkpoints import save_checkpoint
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/own.safetensors"))
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(0)
    config = EncodeOnceConfig(widths=(8, 16, 24, 32), click_widths=(8, 8, 8, 8))
    network = EncodeOnceCDNet(config).eval()
    save_checkpoint(options.output, network)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f"wrote {options.output}: {parameters / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()
