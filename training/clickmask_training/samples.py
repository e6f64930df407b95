"""Batches: a function of (seed, step), so that a resumed run sees the same data."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clickmask_training.augment import PAD, training_crop
from clickmask_training.clicks import SLOTS, corrective_click, random_clicks
from clickmask_training.config import TrainingConfig
from clickmask_training.data import TrainingData


class Batch(NamedTuple):
    """One training batch.

    Attributes:
        image: (B, 3, S, S) float32 RGB in [0, 1].
        mask: (B, 1, S, S) uint8 of 0, 1, 255.
        clicks: (B, M, 3) float32 (x, y, label).
        previous_mask: (B, 1, S, S) float32; zero but for samples that start from a mask.
        rounds: (B,) int64 corrective clicks still to be made on the network's own predictions.
        inside: (B, 1, S, S) bool, False in the padding: there the image is 0.5, the mask 255 and any previous
            mask 0, as at run time.
    """

    image: Tensor
    mask: Tensor
    clicks: Tensor
    previous_mask: Tensor
    rounds: Tensor
    inside: Tensor


def make_batch(data: TrainingData, config: TrainingConfig, step: int) -> Batch:
    """The batch of a step."""
    rng = np.random.default_rng((config.seed, step))
    sizes = np.array(list(config.crop_sizes))
    shares = np.array(list(config.crop_sizes.values()))
    size = int(rng.choice(sizes, p=shares / shares.sum()))
    count = max(2, round(config.batch_pixels / size**2))
    samples = [_sample(data, config, size, rng) for _ in range(count)]
    images, masks, clicks, previous, rounds, inside = (
        np.stack(column) for column in zip(*samples, strict=True)
    )
    shown = torch.from_numpy(inside).unsqueeze(1)
    image = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
    image = torch.where(shown, image, PAD)
    return Batch(
        image.contiguous(memory_format=torch.channels_last),
        torch.from_numpy(masks).unsqueeze(1),
        torch.from_numpy(clicks),
        torch.from_numpy(previous).unsqueeze(1),
        torch.from_numpy(rounds),
        shown,
    )


def batches(
    data: TrainingData, config: TrainingConfig, first: int, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """Batches of the steps from ``first`` on, made two ahead by a thread; each process gets its own."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=2)

    def produce() -> None:
        try:
            for step in range(first, config.steps):
                ready.put(make_batch(data, config, step * world + rank))
        except BaseException as error:  # handed to the consumer, which raises it
            ready.put(error)

    threading.Thread(target=produce, daemon=True).start()
    for _ in range(first, config.steps):
        batch = ready.get()
        if isinstance(batch, BaseException):
            raise batch
        yield batch


def _sample(
    data: TrainingData, config: TrainingConfig, size: int, rng: np.random.Generator
) -> tuple[NDArray[Any], ...]:
    """Image, mask, clicks, previous mask, rounds and inside, as in ``Batch`` but channels last and uint8."""
    image, mask, inside = training_crop(*data.draw(rng), size, rng)
    while (mask == 1).sum() < 20:  # the view may have lost a thin object
        image, mask, inside = training_crop(*data.draw(rng), size, rng)
    previous = np.zeros(mask.shape, dtype=np.float32)
    rounds = int(rng.integers(1, 4)) if rng.random() < config.iterative_share else 0
    if rng.random() < config.mask_share:
        previous = damaged_mask(mask, rng) * inside
        clicks = np.full((SLOTS, 3), -1, dtype=np.float32)
        click = corrective_click(previous > 0.5, mask, rng)
        if click is not None:
            clicks[0] = click
    else:
        clicks = random_clicks(mask, rng)
    return image, mask, clicks, previous, np.array(rounds), inside


def damaged_mask(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """The object's mask grown or shrunk, shifted, and with a random rectangle added or cut."""
    height, width = mask.shape
    damaged = (mask == 1).astype(np.uint8)
    reach = int(rng.integers(1, max(2, round(0.12 * np.sqrt(damaged.sum()))) + 1))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    damaged = (cv2.dilate if rng.random() < 0.5 else cv2.erode)(damaged, kernel)
    damaged = np.roll(damaged, rng.integers(-reach, reach + 1, size=2), axis=(0, 1))
    x, y, w, h = cv2.boundingRect((mask == 1).astype(np.uint8))
    left, top = int(rng.integers(x, x + w)), int(rng.integers(y, y + h))
    right = min(width, left + max(2, int(w * rng.uniform(0.1, 0.5))))
    bottom = min(height, top + max(2, int(h * rng.uniform(0.1, 0.5))))
    damaged[top:bottom, left:right] = rng.integers(2)
    return damaged.astype(np.float32)
