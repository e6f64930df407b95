"""Inputs for Pixel Diffusion, and what two results must have in common."""

from __future__ import annotations

import numpy as np

TOLERANCE = 2e-4  # of a state, also where clicks lift it to 12
FLIPS = 1e-5  # share of pixels that may change sides
KINDS = ("textured", "flat", "saturated", "letterboxed", "smooth", "noise")


def make_scene(height, width, kind="textured", seed=7):
    """(logits (H, W), image (H, W, 3), clicks (M, 3)), all float32."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = np.sin(rows / 7)[..., None] + np.cos(columns[..., None] / (5, 9, 13))
    image = np.round(255 * np.clip(0.5 + 0.2 * waves + 0.03 * rng.standard_normal((height, width, 3)), 0, 1))
    if kind == "flat":
        image[:] = 77
    elif kind == "saturated":
        image[rng.random((height, width)) < 0.5] = 255
        image[: height // 3] = 0
    elif kind == "letterboxed":
        image[:, width // 2 :] = 127.5
    elif kind == "noise":
        image = rng.integers(0, 256, image.shape)
    image = (image / 255).astype(np.float32)
    if kind == "smooth":  # as a resized photo: neighbours differ by less than one level
        image = (0.5 + 0.1 * waves / 4 + 1e-4 * rng.standard_normal(image.shape)).astype(np.float32)
    logits = (3 * np.sin(rows / 11 + columns / 17) + rng.standard_normal((height, width))).astype(np.float32)
    # Quarters of a pixel: whether a pixel is in a disk is then the same in any precision.
    spots = np.round(4 * rng.uniform((0, 0), (width - 1, height - 1), (6, 2))) / 4
    clicks = np.column_stack([spots, [1, 0, 1, 0, 1, -1]]).astype(np.float32)
    return logits, image, clicks


def assert_same_state(got, expected):
    assert np.abs(got - expected).max() <= TOLERANCE
    assert ((got > 0) != (expected > 0)).mean() <= FLIPS
