"""Benchmarks and bundles of a few kilobytes that the evaluation's tests write themselves."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from bundles import make_bundle
from PIL import Image

SIZE = (120, 160)


def disk(x: int, y: int, radius: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W) bool."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def photo(truth: np.ndarray) -> np.ndarray:
    """A bright object on a dark ground, (H, W, 3) uint8."""
    return np.dstack([np.where(truth, 200, 30).astype(np.uint8)] * 3)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def save_indexed(path: Path, indices: np.ndarray) -> Path:
    """An indexed PNG whose palette's colours are unlike its indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(indices.astype(np.uint8)).convert("P")
    picture.putpalette([255 - i // 3 for i in range(768)])
    picture.save(path)
    return path


def write_indexed(root: Path, count: int = 4) -> Path:
    instances = {}
    for number in range(count):
        name = f"{'dcba'[number]}.png"  # the list is not in the order of names
        indices = disk(60 + 15 * number, 60, 20 + number).astype(np.uint8) * 7
        if number == 3:
            indices[:10] = 255
        save(root / "images" / name, photo(indices == 7))
        save_indexed(root / "masks" / name, indices)
        instances[name] = {"size": [160, 120], "masks": {name: {}}}
    (root / "instances.json").write_text(json.dumps(instances))
    return root


def write_tiny_bundle(folder: Path) -> Path:
    """Its mask is where the picture is bright; positive clicks widen it, negative ones do nothing."""
    return make_bundle(folder, bias=-0.6, input={"previous_mask": False, "sizes": [64], "max_clicks": 100})
