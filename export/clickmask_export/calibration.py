"""Photographs to measure the ranges of INT8 on, and to hold against float32 afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clickmask.encode import image_tensor
from clickmask.errors import InvalidInputError
from clickmask.manifest import InputSpec
from clickmask.picture_files import read_picture
from clickmask.view import Box, View
from clickmask_export.errors import RecipeError
from clickmask_export.parity_cases import Case

Photo = NDArray[np.uint8]
Array = NDArray[np.float32]

LEAST, MOST = 16, 256
_HELD_EVERY = 4
_CASES = 64  # at least so many judge a form: with six, one passed that cost 2 % more clicks
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Calibration:
    """Photos, (H, W, 3) uint8 RGB each: those to measure on, and those kept back to check with."""

    measured: tuple[Photo, ...]
    held: tuple[Photo, ...]


def load_calibration(folder: Path) -> Calibration:
    """The photos of a folder, in the order of their names; every fourth is held back.

    Raises:
        RecipeError: there are too few, or a file is none that can be read.
    """
    if not folder.is_dir():
        raise RecipeError(f"--calibration: expected a folder of photographs, got {folder}")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    if len(paths) < LEAST:
        raise RecipeError(
            f"--calibration: expected at least {LEAST} photographs in {folder}, got {len(paths)}: take them "
            "from where the network will be used"
        )
    paths = [paths[round(i)] for i in np.linspace(0, len(paths) - 1, min(MOST, len(paths)))]
    photos = [_read(path) for path in paths]
    held = tuple(photos[_HELD_EVERY - 1 :: _HELD_EVERY])
    del photos[_HELD_EVERY - 1 :: _HELD_EVERY]
    return Calibration(tuple(photos), held)


def square(photo: Photo, size: int, spec: InputSpec) -> Array:
    """(1, 3, S, S) in [0, 1]: the whole photo as the run time makes it the network's input."""
    height, width = photo.shape[:2]
    view = View(Box(0, 0, width, height), size, spec.fit, spec.coordinates)
    return image_tensor(photo, view, spec.pad)


def clicks_in(size: int, count: int, seed: int) -> Array:
    """(1, 4, 3) clicks: ``count`` of them, alternately positive and negative, somewhere in the square."""
    rows = np.full((1, 4, 3), -1, np.float32)
    places = np.random.default_rng(seed).uniform(0.2 * size, 0.8 * size, (4, 2))
    rows[0, :count, :2] = places[:count]
    rows[0, :count, 2] = [1, 0, 1, 0][:count]
    return rows


def held_cases(photos: tuple[Photo, ...], spec: InputSpec) -> list[Case]:
    """At least 64 calls, each photo in as many as any other, its object taken to be under the first click.

    A photo that comes again does so at another size and with other clicks.
    """
    cases = []
    for turn in range(-(-_CASES // len(photos))):
        for index, photo in enumerate(photos):
            number = turn * len(photos) + index
            count, size = divmod((index + turn) % (3 * len(spec.sizes)), len(spec.sizes))
            image = square(photo, spec.sizes[size], spec)
            previous = np.zeros((1, 1, *image.shape[2:]), np.float32) if spec.previous_mask else None
            clicks = clicks_in(image.shape[-1], 1 + count, 1000 + number)
            label = f"held photograph {index + 1}, time {turn + 1}"
            cases.append(Case("held photographs", label, image, clicks, previous))
    return cases


def _read(path: Path) -> Photo:
    try:
        return read_picture(path)
    except InvalidInputError as exc:
        raise RecipeError(f"--calibration: expected pictures alone; remove {path.name}: {exc}") from exc
