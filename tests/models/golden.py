"""Recorded runs of the public implementations: inputs, tensors, and weights made from their names."""

from __future__ import annotations

import functools
import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

CASES = (0, 1, 2, 3)


class Recording:
    """``recording(case, name)`` is one recorded array of a network, ``stem`` its files' name."""

    def __init__(self, shared: Path, stem: str) -> None:
        self.arrays = np.load(shared / "golden" / f"{stem}.npz")
        self._keys_path = shared / "golden" / f"{stem}.keys.json"
        self.keys = json.loads(self._keys_path.read_text())

    def __call__(self, case: int, name: str) -> np.ndarray:
        return self.arrays[f"case{case}/{name}"]

    def image(self, case: int) -> Tensor:
        """(1, 3, H, W) in [0, 1]."""
        return torch.from_numpy(self(case, "image")).permute(2, 0, 1)[None].float() / 255

    def clicks(self, case: int) -> Tensor:
        """(1, M, 3) rows (x, y, label), from the recorded (y, x, positive, order)."""
        return torch.from_numpy(self(case, "clicks")[None][..., [1, 0, 2]]).float()

    def previous_mask(self, case: int) -> Tensor | None:
        """(1, 1, H, W) probability; None where the network takes none."""
        if f"case{case}/prev_mask" not in self.arrays:
            return None
        return torch.from_numpy(self(case, "prev_mask"))[None, None].float() / 255

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor of the official state_dict, under its official name."""
        return {name: value.clone() for name, value in _made(self._keys_path).items()}


@functools.cache
def _made(keys_path: Path) -> dict[str, Tensor]:
    """By the rule, once: normal numbers by the million take longer than the tests of a network."""
    keys = json.loads(keys_path.read_text())
    return {entry["name"]: _tensor(entry, keys["weight_rule"]) for entry in keys["state_dict"]}


def _tensor(entry: dict, options: dict) -> Tensor:
    name, shape = entry["name"], entry["shape"]
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    if entry["fixed"]:
        return torch.zeros(shape)
    value = rule(name, shape, options)
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


def run(network: nn.Module, recording: Recording, case: int) -> tuple[Tensor, dict[str, tuple]]:
    """Logits of one case, and (first input, output) of every submodule by name; of a tuple the first."""
    kept = {}

    def keep(name):
        def hook(_module, inputs, output):
            kept[name] = (inputs[0], output[0] if isinstance(output, tuple) else output)

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in network.named_modules()]
    with torch.no_grad():
        inputs = (recording.image(case), recording.clicks(case), recording.previous_mask(case))
        logits = network(*inputs)
    for hook in hooks:
        hook.remove()
    return logits, kept


def close(got: Tensor, expected: np.ndarray, relative: float = 1e-4) -> None:
    """Largest difference below ``relative`` times the largest value: float32 in another summation order."""
    assert tuple(got.shape) == expected.shape
    assert np.abs(got.numpy() - expected).max() <= relative * np.abs(expected).max()
