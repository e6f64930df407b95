"""A data set of bright squares, written to disk in the folder layout that readers know."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def write_set(folder: Path, count: int = 6, area: int = 2000) -> None:
    """A data-set folder of grey images that each hold one bright square, at known places."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    instances = {}
    for index in range(count):
        image = np.full((120, 160, 3), 60, np.uint8)
        mask = np.zeros((120, 160), np.uint8)
        top, left = 10 + 5 * (index % 15), 20 + 10 * (index % 10)
        image[top : top + 40, left : left + 50] = 220
        mask[top : top + 40, left : left + 50] = 1
        cv2.imwrite(str(folder / "images" / f"{index}.png"), image)
        Image.fromarray(mask).convert("P").save(folder / "masks" / f"{index}.png")
        entry = {"1": {"area": area, "bbox": [left, top, left + 50, top + 40]}}
        instances[f"{index}.png"] = {"size": [160, 120], "masks": {f"{index}.png": entry}}
    (folder / "instances.json").write_text(json.dumps(instances))
