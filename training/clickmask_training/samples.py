"""Batches: a function of (seed, number), so that a resumed run sees the same data."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clickmask_models.backbones import mobilenet_v2, resnet
from clickmask_models.presets import pipeline, preset
from clickmask_training.augment import Crop, training_crop
from clickmask_training.checks import ConfigError
from clickmask_training.clicks import corrective_click, no_clicks, random_clicks
from clickmask_training.compose import paste_object, shape_scene
from clickmask_training.config import TrainingConfig
from clickmask_training.data import TrainingData
from clickmask_training.pixels import OTHER

_LEAST = 20  # pixels of the object that a crop must show
_DRAWS = 100  # of crops, until one does
_AHEAD = 2  # batches that a worker makes before they are asked for


class Batch(NamedTuple):
    """One training batch.

    Attributes:
        image: (B, 3, H, W) float32 RGB in [0, 1].
        mask: (B, 1, H, W) uint8 of 0, 1, 255.
        clicks: (B, M, 3) float32 (x, y, label).
        previous_mask: (B, 1, H, W) float32; zero but for samples that start from a mask.
        rounds: (B,) int64 corrective clicks still to be made on the network's own predictions.
        midway: (B,) int64 after how many of the corrective clicks, 0 to ``rounds`` - 1, one more state is
            learnt; -1 for none.
        inside: (B, 1, H, W) bool, False in the padding: there the image has the network's mean colour, the
            mask is 255 and any previous mask 0, as at run time.
    """

    image: Tensor
    mask: Tensor
    clicks: Tensor
    previous_mask: Tensor
    rounds: Tensor
    midway: Tensor
    inside: Tensor


def make_batch(data: TrainingData, config: TrainingConfig, number: int) -> Batch:
    """The batch of a number."""
    rng = np.random.default_rng((config.seed, number))
    shares = np.array(list(config.crop_sizes.values()))
    height, width = config.crop_shapes[int(rng.choice(len(shares), p=shares / shares.sum()))]
    count = max(2, round(config.batch_pixels / (height * width)))
    shared = _rounds(config, rng) if config.clicks.same_rounds else None
    samples = [_sample(data, config, (height, width), shared, rng) for _ in range(count)]
    images, masks, clicks, previous, rounds_left, midway, inside = (
        np.stack(column) for column in zip(*samples, strict=True)
    )
    shown = torch.from_numpy(inside).unsqueeze(1)
    image = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
    image = torch.where(shown, image, padding(config))
    return Batch(
        image.contiguous(memory_format=torch.channels_last),
        torch.from_numpy(masks).unsqueeze(1),
        torch.from_numpy(clicks),
        torch.from_numpy(previous).unsqueeze(1),
        torch.from_numpy(rounds_left),
        torch.from_numpy(midway),
        shown,
    )


def padding(config: TrainingConfig) -> Tensor:
    """Colour of the padding, (1, 3, 1, 1): the network's mean, which a bundle pads with too."""
    network = preset(config.network)
    backbone = getattr(network, "backbone", "mobilenet_v2")  # encode-once networks have no other
    mean = mobilenet_v2.MEAN if backbone == "mobilenet_v2" else resnet.MEAN
    return torch.tensor(mean).view(1, 3, 1, 1)


class _Batches(Dataset[Batch]):
    """Batches by number, for worker processes."""

    def __init__(self, data: TrainingData, config: TrainingConfig) -> None:
        self._data, self._config = data, config

    def __getitem__(self, number: int) -> Batch:
        return make_batch(self._data, self._config, number)


def batches(
    data: TrainingData, config: TrainingConfig, first: int, rank: int = 0, world: int = 1, workers: int = 0
) -> Generator[Batch]:
    """Batches of the steps from ``first`` on, in order; each process gets its own.

    Args:
        data: what to draw from.
        config: the run's.
        first: step of the first batch.
        rank: number of this process.
        world: number of processes.
        workers: processes that make batches ahead; 0 for a thread of this one.
    """
    per_step = config.accumulate
    numbers = [index * world + rank for index in range(first * per_step, config.steps * per_step)]
    if workers:
        yield from DataLoader(
            _Batches(data, config),
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            prefetch_factor=_AHEAD,
        )
        return
    ahead: deque[Future[Batch]] = deque()
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        for number in numbers:
            ahead.append(pool.submit(make_batch, data, config, number))
            if len(ahead) > _AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _sample(
    data: TrainingData,
    config: TrainingConfig,
    shape: tuple[int, int],
    shared: int | None,
    rng: np.random.Generator,
) -> tuple[NDArray[Any], ...]:
    """What ``Batch`` has of one sample, in its order, but channels last and uint8.

    ``shared`` are the rounds of the whole batch; None draws the sample's own.
    """
    crop = _crop(data, config, shape, rng)
    previous = np.zeros(shape, dtype=np.float32)
    rounds = _rounds(config, rng) if shared is None else shared
    masked = rng.random() < config.mask_share
    # Corrective clicks before a state that a session comes to:
    least = int(config.clicks.as_sessions and not masked and not crop.whole)
    rounds = max(rounds, least)
    midway = int(rng.integers(least, rounds)) if config.clicks.midway and rounds > least else -1
    if masked:
        previous = damaged_mask(crop.mask, rng) * crop.inside
        clicks = no_clicks(config.clicks)
        click = corrective_click(previous > 0.5, crop.mask, rng)
        if click is not None:
            clicks[0] = click
    else:
        alone = config.clicks.as_sessions and 0 in (rounds, midway)
        clicks = random_clicks(crop.mask, config.clicks, rng, alone=alone)
    mask = np.where(crop.mask == OTHER, np.uint8(0), crop.mask)
    return crop.image, mask, clicks, previous, np.array(rounds), np.array(midway), crop.inside


def _crop(
    data: TrainingData, config: TrainingConfig, shape: tuple[int, int], rng: np.random.Generator
) -> Crop:
    """A view that has not lost its object.

    Raises:
        ConfigError: hardly any has not.
    """
    rule = pipeline(config.network).crop
    for _ in range(_DRAWS):
        image, mask = _scene(data, config, rng)
        crop = training_crop(image, mask, shape, config.view, config.colour, rule, rng)
        if (crop.mask == 1).sum() >= _LEAST:
            return crop
    raise ConfigError(
        f"view, crop_sizes: expected crops of {shape[1]} x {shape[0]} that show {_LEAST} pixels of an "
        f"object, got none in {_DRAWS} draws; choose larger crops, a smaller view.scale or less view.whole"
    )


def _rounds(config: TrainingConfig, rng: np.random.Generator) -> int:
    """A number of corrective clicks: none, or 1 to ``clicks.rounds``."""
    iterative = rng.random() < config.iterative_share
    return int(rng.integers(1, config.clicks.rounds + 1)) if iterative else 0


def _scene(
    data: TrainingData, config: TrainingConfig, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image and a mask of 0, 1, 2, 255: a photo's, or composed as the configuration asks."""
    composed = rng.random() if config.data.synthetic or config.data.copy_paste else 1.0
    image, mask = data.draw(rng)
    if composed < config.data.synthetic:
        return shape_scene(image, data.draw(rng)[0], rng)
    if composed < config.data.synthetic + config.data.copy_paste:
        return paste_object(image, mask, *data.draw(rng), rng)
    return image, mask


def damaged_mask(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """The object's mask grown or shrunk, shifted, and with a random rectangle added or cut."""
    height, width = mask.shape
    damaged = (mask == 1).astype(np.uint8)
    reach = int(rng.integers(1, max(2, round(0.12 * np.sqrt(damaged.sum()))) + 1))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    damaged = (cv2.dilate if rng.random() < 0.5 else cv2.erode)(damaged, kernel)
    shift = np.column_stack([np.eye(2), rng.integers(-reach, reach + 1, size=2)])
    damaged = cv2.warpAffine(damaged, shift, (width, height), flags=cv2.INTER_NEAREST)
    x, y, w, h = cv2.boundingRect((mask == 1).astype(np.uint8))
    left, top = int(rng.integers(x, x + w)), int(rng.integers(y, y + h))
    right = min(width, left + max(2, int(w * rng.uniform(0.1, 0.5))))
    bottom = min(height, top + max(2, int(h * rng.uniform(0.1, 0.5))))
    damaged[top:bottom, left:right] = rng.integers(2)
    return damaged.astype(np.float32)
