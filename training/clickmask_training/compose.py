"""Samples that no photo shows: objects pasted between images, and scenes of random shapes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from clickmask_training.pixels import OTHER

Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]

_FINE = 2  # shapes are drawn this much finer than the scene, so that their borders are smooth
_SCENE = 384  # side of a scene in pixels
_HIDDEN = 0.5  # of an object that a pasted one may hide before it is no longer the one to segment


def paste_object(
    image: Image, mask: Mask, giver: Image, given: Mask, rng: np.random.Generator
) -> tuple[Image, Mask]:
    """An object of another image pasted somewhere: to be segmented, or in the way of the one that is.

    Args:
        image: (H, W, 3) uint8; ``mask`` (H, W) uint8 of 0, 1, 2, 255.
        mask: see above.
        giver: (H', W', 3) uint8 and ``given`` (H', W') uint8, whose object (1) is pasted.
        given: see above.
        rng: source of every choice.

    Returns:
        A new image and mask, of the size of ``image``.
    """
    height, width = mask.shape
    x, y, w, h = cv2.boundingRect((given == 1).astype(np.uint8))
    side = rng.uniform(0.15, 0.6) * min(height, width)
    scale = min(1.5, side / np.sqrt(w * h))
    size = max(4, round(w * scale)), max(4, round(h * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    patch = cv2.resize(giver[y : y + h, x : x + w], size, interpolation=how)
    cover = (given[y : y + h, x : x + w] == 1).astype(np.float32)
    cover = cv2.GaussianBlur(cv2.resize(cover, size, interpolation=how), (0, 0), 0.7)
    if rng.random() < 0.5:
        patch, cover = cv2.flip(patch, 1), cv2.flip(cover, 1)
    left = int(rng.integers(-(size[0] // 3), max(1, width - size[0] + size[0] // 3)))
    top = int(rng.integers(-(size[1] // 3), max(1, height - size[1] + size[1] // 3)))
    whole = np.array([[1, 0, left], [0, 1, top]], np.float64)
    alpha = cv2.warpAffine(cover, whole, (width, height), flags=cv2.INTER_NEAREST)
    moved = cv2.warpAffine(patch, whole, (width, height), flags=cv2.INTER_NEAREST)
    pasted = alpha > 0.5
    mixed = _blend(image, moved, alpha)
    hidden = (pasted & (mask == 1)).sum() > _HIDDEN * (mask == 1).sum()
    if pasted.sum() >= 20 and (hidden or rng.random() < 0.5):
        others = np.where(mask == 1, np.uint8(OTHER), mask)
        return mixed, np.where(pasted, np.uint8(1), others)
    return mixed, np.where(pasted, np.uint8(OTHER), mask)


def shape_scene(ground: Image, filling: Image, rng: np.random.Generator) -> tuple[Image, Mask]:
    """A scene of random shapes on the texture of one image, filled with that of another.

    Its borders are exact, and among its shapes are what photos with good masks lack: holes, spokes, lines.

    Returns:
        Image (S, S, 3) uint8 and mask (S, S) uint8 of 0, 1 (one of the shapes) and 2 (the others).
    """
    image = _texture(ground, rng)
    mask = np.zeros((_SCENE, _SCENE), np.uint8)
    count = int(rng.integers(1, 5))
    for index in range(count):
        alpha = _shape(rng)
        image = _blend(image, _texture(filling, rng), alpha)
        mask[alpha > 0.5] = 1 if index == count - 1 else OTHER
    return image, mask


def _blend(below: Image, above: Image, alpha: NDArray[np.float32]) -> Image:
    weight = alpha[..., None]
    return np.round(below * (1 - weight) + above * weight).astype(np.uint8)


def _texture(image: Image, rng: np.random.Generator) -> Image:
    """A random part of an image, enlarged to a scene, with colours of its own."""
    height, width = image.shape[:2]
    side = int(min(height, width) * rng.uniform(0.2, 1.0))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    part = cv2.resize(image[top : top + side, left : left + side], (_SCENE, _SCENE))
    tinted = part.astype(np.float32) * rng.uniform(0.6, 1.3, size=3) + rng.uniform(-30, 30, size=3)
    return np.clip(tinted, 0, 255).astype(np.uint8)


def _shape(rng: np.random.Generator) -> NDArray[np.float32]:
    """Coverage of a random shape, (S, S) float32 in [0, 1]."""
    fine = np.zeros((_SCENE * _FINE, _SCENE * _FINE), np.uint8)
    draw = (_blob, _polygon, _lines)[rng.integers(3)]
    draw(fine, rng)
    if rng.random() < 0.3:  # a hole
        centre = rng.integers(0, fine.shape[0], size=2)
        cv2.circle(fine, centre.tolist(), int(rng.uniform(0.03, 0.12) * fine.shape[0]), 0, cv2.FILLED)
    return cv2.resize(fine, (_SCENE, _SCENE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _blob(canvas: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """A closed curve whose radius is a sum of a few waves."""
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    radius = np.ones_like(angles)
    for wave in range(2, 7):
        radius += rng.normal(0, 0.35 / wave) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.15, None) * rng.uniform(0.08, 0.32) * canvas.shape[0]
    centre = rng.uniform(0.25, 0.75, size=2) * canvas.shape[0]
    points = centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cv2.fillPoly(canvas, [points.astype(np.int32)], 255)


def _polygon(canvas: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """A star-shaped polygon of 3 to 9 corners."""
    corners = int(rng.integers(3, 10))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(0.06, 0.38, corners) * canvas.shape[0]
    centre = rng.uniform(0.3, 0.7, size=2) * canvas.shape[0]
    points = centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cv2.fillPoly(canvas, [points.astype(np.int32)], 255)


def _lines(canvas: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Several thin lines that meet at a disk, like legs, spokes or twigs."""
    hub = rng.uniform(0.25, 0.75, size=2) * canvas.shape[0]
    cv2.circle(
        canvas, hub.astype(int).tolist(), int(rng.uniform(0.02, 0.1) * canvas.shape[0]), 255, cv2.FILLED
    )
    for _ in range(int(rng.integers(2, 8))):
        middle = hub + rng.normal(0, 0.12, size=2) * canvas.shape[0]
        end = middle + rng.normal(0, 0.15, size=2) * canvas.shape[0]
        thickness = int(rng.integers(4, 16))
        cv2.polylines(canvas, [np.array([hub, middle, end], np.int32)], False, 255, thickness)
