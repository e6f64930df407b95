"""Pixel Diffusion in NumPy and float64, one neighbour at a time: slow, plain, independent of torch."""

from __future__ import annotations

import numpy as np

DIRECTIONS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def offsets(dilations=(1, 2, 4, 8)):
    """(dy, dx) of the neighbours: dilation outermost, then row-major without the centre."""
    return [(d * dy, d * dx) for d in dilations for dy, dx in DIRECTIONS]


def shifted(plane, dy, dx):
    """The neighbour's value at each pixel; beyond the border the edge repeats."""
    height, width = plane.shape
    rows = np.clip(np.arange(height) + dy, 0, height - 1)
    columns = np.clip(np.arange(width) + dx, 0, width - 1)
    return plane[rows][:, columns]


def click_map(clicks, label, height, width, kind, size):
    """Maximum over the clicks (x, y, label) of one label."""
    rows, columns = np.mgrid[:height, :width]
    out = np.zeros((height, width))
    for x, y, click_label in clicks:
        if click_label == label:
            squared = (columns - x) ** 2 + (rows - y) ** 2
            one = squared <= size**2 if kind == "disk" else np.exp(-squared / (2 * size**2))
            out = np.maximum(out, one)
    return out


def deviation(channel, dilations=(1, 2, 4, 8), kind="unbiased_36"):
    """sigma_i of one colour channel."""
    samples = [shifted(channel, dy, dx) for dy, dx in offsets(dilations)]
    if kind == "biased_32":
        return np.std(samples, axis=0)
    return np.std(samples + [channel] * len(dilations), axis=0, ddof=1)


def weights(image, dilations=(1, 2, 4, 8), affinity="official", sigma="unbiased_36", eps=1e-5):
    """(32, H, W) softmax of the affinity; image (H, W, 3) in [0, 1]."""
    image = image.astype(np.float64)
    sigmas = [deviation(image[..., c], dilations, sigma) for c in range(3)]
    divisors = [np.maximum(s**2 if affinity == "paper" else 0.1 * s, eps) for s in sigmas]
    logits = []
    for dy, dx in offsets(dilations):
        total = 0.0
        for c in range(3):
            total = total - np.abs(image[..., c] - shifted(image[..., c], dy, dx)) / divisors[c]
        logits.append(total / 3)
    logits = np.stack(logits)
    raised = np.exp(logits - logits.max(axis=0))
    return raised / raised.sum(axis=0)


def pixel_diffusion(logits, image, clicks, config):
    """The state y + m, (H, W); ``config`` is a PixelDiffusionConfig, read as plain numbers."""
    height, width = logits.shape
    logits = logits.astype(np.float64)
    m = np.tanh(logits / 2) if config.norm == "tanh_half" else 2 * np.tanh(logits)
    source = m.copy()
    if config.cutoff is not None:
        source[np.abs(m) <= config.cutoff] = 0
    shape = (height, width, config.click_map.kind, config.click_map.size)
    y = source + config.amplitude * (click_map(clicks, 1, *shape) - click_map(clicks, 0, *shape))
    w = weights(image, config.dilations, config.affinity, config.deviation, config.eps)
    for _ in range(config.iterations):
        y = sum(w[k] * shifted(y, dy, dx) for k, (dy, dx) in enumerate(offsets(config.dilations)))
    return y + m
