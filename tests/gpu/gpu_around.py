"""What a session does around the network, on the processor and on the GPU, as steps that can be timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from gpu_scenes import on_device
from gpu_timing import measure_steps, step_table

from clickmask.backends import Backend
from clickmask.pixels import HostPixels, Pixels
from clickmask.view import Box, View

SIZE = (4000, 3000)  # of the picture, 12 megapixels


def around(backends: Mapping[str, Backend], photo: np.ndarray, rounds: int) -> str:
    """Crop, previous mask and mask of a photo of 12 megapixels, in every way there is, as Markdown."""
    taking = next((backend for backend in backends.values() if backend.takes_device_arrays), None)
    if taking is None:
        return "Crops and masks on the GPU: not measured, as no runtime takes them there."
    spec, image = taking.manifest.input, cv2.resize(photo, SIZE, interpolation=cv2.INTER_CUBIC)
    here = HostPixels(image, spec.pad, taking.manifest.threshold)
    there = here.uploaded(taking)
    if there is here:
        return "Crops and masks on the GPU: not measured, as the kernels are not built."
    view = View(Box(0, 0, *SIZE), spec.sizes[-1], spec.fit, spec.coordinates)
    logits = blob(view)
    steps = {
        **host_steps(here, view, logits),
        **device_steps(there, view, on_device(padded(logits, view.size))),
    }
    return (
        f"What a session does around the network: {SIZE[0]} x {SIZE[1]} pixels, the whole image as crop, at "
        f"{view.size} px; the ways take turns. Masks are fresh arrays in host memory but where it says "
        f"otherwise.\n\n{step_table(measure_steps(steps, rounds))}"
    )


def blob(view: View) -> np.ndarray:
    """Logits (h', w') of the view's valid part: a disk with a ragged edge."""
    width, height = view.valid_size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    logits = height / 3 - np.hypot(x - width / 2, y - height / 2) + 3 * np.sin(x / 9)
    return logits.astype(np.float32)


def padded(logits: np.ndarray, size: int) -> np.ndarray:
    """(1, 1, S, S), as the network gives them."""
    whole = np.zeros((1, 1, size, size), np.float32)
    whole[0, 0, : logits.shape[0], : logits.shape[1]] = logits
    return whole


def host_steps(pixels: Pixels, view: View, logits: Any) -> dict[str, Callable[[], Any]]:
    """What they are called, and what does them."""
    return {
        "processor: crop": lambda: pixels.crop(view),
        "processor: previous mask": lambda: pixels.previous_mask(logits, view, view),
        "processor: mask": lambda: pixels.paint(logits, view),
    }


def device_steps(pixels: Pixels, view: View, logits: Any) -> dict[str, Callable[[], Any]]:
    """Likewise; the mask comes to the host in both ways."""
    import torch

    width, height = pixels.image_size
    there = torch.empty((height, width), dtype=torch.bool, device="cuda")
    pinned = torch.empty((height, width), dtype=torch.bool, pin_memory=True)

    def as_bytes() -> np.ndarray:
        pixels.device_mask(logits, view, out=there)
        pinned.copy_(there)
        return pinned.numpy().copy()

    return {
        "GPU: crop, left there": lambda: pixels.crop(view),
        "GPU: previous mask, left there": lambda: pixels.previous_mask(logits, view, view),
        "GPU: mask, as bits": lambda: pixels.paint(logits, view),
        "GPU: mask, as bytes": as_bytes,
        "GPU: mask, left there": lambda: pixels.device_mask(logits, view, out=there),
    }
