"""The recorded run of the public CDNet-ResNet-34: inputs, tensors, and its weights made from their names."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch

CASES = (0, 1, 2, 3)


class Recording:
    """``recording(case, name)`` is one recorded array."""

    def __init__(self, shared: Path) -> None:
        self.arrays = np.load(shared / "golden" / "cdnet_res34.npz")
        self.keys = json.loads((shared / "golden" / "cdnet_res34.keys.json").read_text())

    def __call__(self, case: int, name: str) -> np.ndarray:
        return self.arrays[f"case{case}/{name}"]

    def image(self, case: int) -> torch.Tensor:
        """(1, 3, H, W) in [0, 1]."""
        return torch.from_numpy(self(case, "image")).permute(2, 0, 1)[None].float() / 255

    def clicks(self, case: int) -> torch.Tensor:
        """(1, M, 3) rows (x, y, label), from the recorded (y, x, positive, order)."""
        return torch.from_numpy(self(case, "clicks")[None][..., [1, 0, 2]]).float()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Every tensor of the official state_dict, under its official name."""
        return {entry["name"]: self._tensor(entry) for entry in self.keys["state_dict"]}

    def _tensor(self, entry: dict) -> torch.Tensor:
        name, shape = entry["name"], entry["shape"]
        if name.endswith("num_batches_tracked"):
            return torch.tensor(1)
        if entry["fixed"]:
            return torch.zeros(shape)
        value = rule(name, shape, self.keys["weight_rule"])
        assert np.isclose(value.ravel()[0], entry["check"]["first"]), name
        return torch.from_numpy(value)


def rule(name: str, shape: list[int], options: dict) -> np.ndarray:
    """The weight rule of the golden files' README."""
    seed = zlib.crc32((options["prefix"] + name).encode()) & 0x7FFFFFFF
    noise = np.random.RandomState(seed).standard_normal(tuple(shape))
    if name.endswith("running_mean"):
        value = 0.1 * noise
    elif name.endswith("running_var"):
        value = options["running_var"] * (1 + 0.1 * np.abs(noise))
    elif name.endswith(".bias"):
        value = 0.05 * noise + next((c for s, c in options["shift"] if s in name), 0)
    elif name.endswith(".weight") and noise.ndim >= 2:
        gain = next((g for s, g in options["gain"] if s in name), 1)
        value = gain * np.sqrt(2 / np.prod(shape[1:])) * noise
    elif name.endswith(".weight"):
        value = 1 + 0.1 * noise
    else:
        value = 0.5 + 0.1 * noise
    return np.asarray(value, np.float32)
