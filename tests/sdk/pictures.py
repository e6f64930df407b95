"""Masks drawn as text."""

from __future__ import annotations

import numpy as np


def picture(text: str) -> np.ndarray:
    """A mask drawn with # and ."""
    return np.array([[c == "#" for c in row] for row in text.split()])


RING = picture("""
    ......
    .####.
    .#..#.
    .####.
    ......
""")
