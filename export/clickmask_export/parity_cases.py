"""What artefacts are compared on: images, clicks and previous masks that have hidden faults before.

Noise alone shows none of them: a lost epsilon only breaks flat areas, a border fault only shows at corners, a
fixed batch only with two images, an overflow only on saturated ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clickmask.encode import click_slots, image_tensor
from clickmask.errors import InvalidInputError
from clickmask.manifest import InputSpec
from clickmask.picture_files import read_picture
from clickmask.view import Box, View
from clickmask_export.errors import BuildError

Array = NDArray[np.float32]
_FLAT_COLOUR = (0.25, 0.5, 0.75)
# Sets of clicks by image of the batch. Their number decides between branches where all else is flat too.
_ALWAYS = (("several", "corners"), ("one",))
_COUNTS = (("none",), ("all slots", "one"))
_COUNTED = ("flat", "photograph")


@dataclass(frozen=True)
class Case:
    """One call: ``image`` (B, 3, S, S), ``clicks`` (B, M, 3), ``previous_mask`` (B, 1, S, S) or None, all
    float32.
    """

    kind: str
    label: str
    image: Array
    clicks: Array
    previous_mask: Array | None


def load_photo(path: Path | None) -> NDArray[np.uint8]:
    """A photograph, (H, W, 3) uint8 RGB: ``path``, or scikit-image's astronaut.

    Raises:
        BuildError: it cannot be read, or there is none.
    """
    if path is None:
        try:
            from skimage import data
        except ImportError:
            raise BuildError(
                "artefacts are compared on a photograph, and there is none without scikit-image: "
                'pip install "clickmask[examples]", or name one with --parity-image'
            ) from None
        return np.asarray(data.astronaut())
    try:
        return read_picture(path)
    except InvalidInputError as exc:
        raise BuildError(f"expected a photograph to compare on: {exc}") from exc


def make_cases(spec: InputSpec, photo: NDArray[np.uint8]) -> Iterator[Case]:
    """All cases of a bundle.

    At the smallest size each kind of image is run alone and as a batch of two different ones, and two kinds
    without clicks and with as many as there are slots. What larger sizes change is extents alone, and they
    cost most: one image each, a collage, with clicks inside and at the corners and a previous mask.
    """
    smallest, *larger = spec.sizes
    sets = _click_sets(smallest, spec.max_clicks)
    for kind, image in _images(smallest, spec, photo).items():
        for names in (*_ALWAYS, *(_COUNTS if kind in _COUNTED else ())):
            yield _case(kind, image, names, sets, spec)
    for size in larger:
        sets = _click_sets(size, spec.max_clicks)
        case = _case("collage", _collage(size, spec, photo), ("mixed",), sets, spec)
        yield replace(case, kind=f"collage, {size} px")


def in_batches(case: Case, logits: Array, most: int) -> Iterator[tuple[Case, Array]]:
    """A call and the logits that are right for it, as calls of at most so many images."""
    for first in range(0, len(case.image), most):
        part = slice(first, first + most)
        previous = None if case.previous_mask is None else case.previous_mask[part]
        yield (
            replace(case, image=case.image[part], clicks=case.clicks[part], previous_mask=previous),
            logits[part],
        )


def _case(
    kind: str, image: Array, names: tuple[str, ...], sets: dict[str, list[tuple]], spec: InputSpec
) -> Case:
    """One call; a second image in the batch is the first upside down."""
    size = image.shape[-1]
    batch = np.stack([image, image[:, ::-1]][: len(names)])
    slots = click_slots(max(len(sets[name]) for name in names), spec.max_clicks)
    clicks = np.full((len(names), slots, 3), -1, np.float32)
    for row, name in zip(clicks, names, strict=True):
        row[: len(sets[name])] = np.reshape(sets[name], (-1, 3))
    previous = None
    if spec.previous_mask:
        previous = np.zeros((len(names), 1, size, size), np.float32)
        if len(names) > 1 or "mixed" in names:  # the other single images have none
            previous[:] = _soft_disk(size)
    label = f"{kind}, {size} px, clicks: {' / '.join(names)}"
    return Case(kind, label, np.ascontiguousarray(batch), clicks, previous)


def _images(size: int, spec: InputSpec, photo: NDArray[np.uint8]) -> dict[str, Array]:
    """Kind of image to (3, S, S) float32 in [0, 1]."""
    makers: dict[str, Callable[[], Array]] = {
        "textured": lambda: _textured(size),
        "flat": lambda: _filled(size, _FLAT_COLOUR),
        "saturated": lambda: _saturated(size),
        "letterboxed": lambda: _letterboxed(size, spec.pad),
        "one-pixel object": lambda: _one_pixel(size),
        "noise": lambda: _noise(size),
        "photograph": lambda: _photograph(size, spec, photo),
    }
    return {kind: make() for kind, make in makers.items()}


def _textured(size: int) -> Array:
    """Smooth gradients with an object of another colour and 8-bit grain, as a photograph has."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    image = np.stack([0.3 + 0.4 * x, 0.6 - 0.3 * y, 0.4 + 0.2 * np.sin(20 * (x + y))])
    image[:, (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.06] += np.float32([[0.25], [-0.2], [0.1]])
    grain = np.random.default_rng(2).normal(0, 0.02, image.shape)
    return (np.round(255 * np.clip(image + grain, 0, 1)) / 255).astype(np.float32)


def _filled(size: int, colour: tuple[float, ...]) -> Array:
    return np.broadcast_to(np.float32(colour).reshape(3, 1, 1), (3, size, size)).copy()


def _saturated(size: int) -> Array:
    """Black and white halves and a pure red square."""
    image = _filled(size, (0, 0, 0))
    image[:, :, size // 2 :] = 1
    image[:, size // 4 : size // 2, size // 4 : size // 2] = np.float32([[[1]], [[0]], [[0]]])
    return image


def _letterboxed(size: int, pad: tuple[float, ...]) -> Array:
    """A textured image twice as wide as high, at the top, and the bundle's padding below."""
    image = _textured(size)
    image[:, size // 2 :] = np.float32(pad).reshape(3, 1, 1)
    return image


def _noise(size: int) -> Array:
    return np.random.default_rng(1).random((3, size, size), np.float32)


def _collage(size: int, spec: InputSpec, photo: NDArray[np.uint8]) -> Array:
    """Four images of half the size: photograph and noise above, saturated and letterboxed below."""
    half = size // 2
    above = [_photograph(half, spec, photo), _noise(half)]
    below = [_saturated(half), _letterboxed(half, spec.pad)]
    return np.concatenate([np.concatenate(row, axis=2) for row in (above, below)], axis=1)


def _one_pixel(size: int) -> Array:
    image = _filled(size, (0.1, 0.4, 0.1))
    image[:, size // 2, size // 2] = (0.9, 0.2, 0.8)
    return image


def _photograph(size: int, spec: InputSpec, photo: NDArray[np.uint8]) -> Array:
    height, width = photo.shape[:2]
    view = View(Box(0, 0, width, height), size, spec.fit, spec.coordinates)
    return image_tensor(photo, view, spec.pad)[0]


def _soft_disk(size: int) -> Array:
    y, x = np.mgrid[:size, :size].astype(np.float32) - size / 2
    return (1 / (1 + np.exp((np.hypot(x, y) - size / 5) / (size / 40)))).astype(np.float32)


def _click_sets(size: int, most: int) -> dict[str, list[tuple]]:
    """Named lists of (x, y, label) in network pixels."""
    last = size - 0.51  # just inside the outermost pixel
    places = np.random.default_rng(3).uniform(-0.5, last, (most, 2)).round(2).tolist()
    several = [
        (0.5 * size, 0.45 * size, 1),
        (0.6 * size, 0.5 * size, 1),
        (0.1 * size, 0.2 * size, 0),
        (0.9 * size, 0.8 * size, 0),
        (0.5 * size + 0.25, 0.6 * size, 1),
    ]
    corners = [(-0.5, -0.5, 1), (last, -0.5, 0), (-0.5, last, 0), (last, last, 1)]
    return {
        "one": [(size // 2, size // 2, 1)],
        "several": several,
        "none": [],
        "corners": corners,
        "mixed": several + corners,
        "all slots": [(x, y, index % 2) for index, (x, y) in enumerate(places)],
    }
