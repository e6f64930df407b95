"""What the backends are fed, and how far their masks are apart."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np

from clickmask import encode
from clickmask.backends.base import Backend
from clickmask.backends.cuda_memory import DeviceArray
from clickmask.manifest import Manifest
from clickmask.view import Box, View

KINDS = [
    (backend, precision)
    for backend in ("torchscript", "onnxruntime", "tensorrt")
    for precision in ("fp16", "fp32")
]
"""What is tested: runtime and precision."""


@dataclass(frozen=True)
class Scene:
    """A photograph at one size with clicks of both kinds: image, clicks, previous mask."""

    size: int
    image: np.ndarray
    clicks: np.ndarray
    previous_mask: np.ndarray | None

    def run(self, backend: Backend) -> np.ndarray:
        """Logits (1, 1, S, S), of a first click."""
        return backend.decode(backend.encode(self.image), self.clicks, self.previous_mask)


def make_scene(manifest: Manifest, photo: np.ndarray, size: int, clicks: int = 3) -> Scene:
    """Clicks on a ring around the middle, the first positive, then in turns."""
    spec = manifest.input
    height, width = photo.shape[:2]
    view = View(Box(0, 0, width, height), size, spec.fit, spec.coordinates)
    slots = encode.click_slots(clicks, spec.max_clicks)
    rows = np.full((1, slots, 3), -1, np.float32)
    for number in range(clicks):
        angle, radius = 2.4 * number, size * 0.08 * number
        rows[0, number] = (
            size / 2 + radius * math.cos(angle),
            size / 2 + radius * math.sin(angle),
            number % 2 == 0,
        )
    y, x = np.mgrid[:size, :size].astype(np.float32)
    soft = 1 / (1 + np.exp((np.hypot(x - size / 2, y - size / 2) - size / 4) / 4))
    previous = soft[None, None].astype(np.float32) if spec.previous_mask else None
    return Scene(size, encode.image_tensor(photo, view, spec.pad), rows, previous)


def iou(first: np.ndarray, second: np.ndarray, threshold: float) -> float:
    """Of the masks of two arrays of logits; 1 where both are empty."""
    level = encode.logit(threshold)
    a, b = first > level, second > level
    union = int((a | b).sum())
    return 1.0 if union == 0 else int((a & b).sum()) / union


def on_device(array: np.ndarray) -> DeviceArray:
    """A copy in this GPU's memory, complete."""
    import torch

    tensor = torch.from_numpy(np.array(array)).cuda()
    torch.cuda.synchronize()
    return DeviceArray(tensor.data_ptr(), array.shape, str(array.dtype), tensor)


def on_host(array: DeviceArray) -> np.ndarray:
    """A copy in host memory."""
    import torch

    return torch.as_tensor(array, device="cuda").cpu().numpy()


def free_bytes() -> int:
    """Of this GPU's memory, once all that was asked of it is done; what torch and CuPy keep idle counts."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    if (cupy := sys.modules.get("cupy")) is not None:
        cupy.get_default_memory_pool().free_all_blocks()
    idle = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # in segments that are used in part
    return int(torch.cuda.mem_get_info()[0]) + idle
