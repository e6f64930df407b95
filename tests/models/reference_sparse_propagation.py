"""CSFP's sparse propagation as its equations read: one position, one click at a time, in float64 NumPy."""

from __future__ import annotations

import math

import numpy as np
from torch import nn


def affine(layer: nn.Conv2d, feature: np.ndarray) -> np.ndarray:
    """A 1x1 convolution at one position: (C,) -> (D,)."""
    weight = layer.weight.detach().double().numpy()[:, :, 0, 0]
    return weight @ feature + layer.bias.detach().double().numpy()


def clicked_cells(clicks: np.ndarray, height: int, width: int, stride: int) -> list[tuple[int, int]]:
    """(row, column) of every click (x, y, label) that is there and inside the map."""
    cells = []
    for x, y, label in clicks:
        row, column = math.floor(y / stride), math.floor(x / stride)
        if label in (0, 1) and 0 <= row < height and 0 <= column < width:
            cells.append((row, column))
    return cells


def messages(
    head: nn.Module, compared: np.ndarray, sent: np.ndarray, cells: list[tuple[int, int]], scale: float
) -> np.ndarray:
    """sum_j alpha(n, j) W v[u_j] at each position n of (C, h, w) features, times gamma if there is one."""
    _, height, width = compared.shape
    result = np.zeros_like(sent)
    if not cells:
        return result
    keys = [affine(head.key_conv, compared[:, row, column]) for row, column in cells]
    values = [affine(head.value_conv, sent[:, row, column]) for row, column in cells]
    for row in range(height):
        for column in range(width):
            query = affine(head.query_conv, compared[:, row, column])
            raw = np.exp([scale * (query @ key) for key in keys])
            alpha = raw / raw.sum()
            for share, value in zip(alpha, values, strict=True):
                result[:, row, column] += share * value
    gamma = 1.0 if head.gamma is None else head.gamma.detach().double().numpy()
    return gamma * result
