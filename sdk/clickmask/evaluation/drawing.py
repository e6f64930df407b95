"""A canvas for charts: lines by OpenCV, text by Pillow, whose built-in font reads better than OpenCV's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from clickmask.errors import InvalidInputError
from clickmask.picture_files import write_picture

Colour = tuple[int, int, int]
Point = tuple[float, float]

INK: Colour = (38, 42, 48)
FAINT: Colour = (125, 131, 140)
GRID: Colour = (228, 230, 234)
PALETTE: tuple[Colour, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (230, 159, 0),
    (90, 90, 90),
)
"""Okabe and Ito's colours, which the colour-blind tell apart."""

_SHIFT = 4  # OpenCV draws at sixteenths of a pixel

Align = Literal["left", "middle", "right"]


class Canvas:
    """A white picture to draw on, (H, W, 3) uint8 RGB; coordinates are pixels (x, y)."""

    def __init__(self, width: int, height: int) -> None:
        """A blank one."""
        self.pixels = np.full((height, width, 3), 255, np.uint8)
        self._fonts: dict[int, Any] = {}

    def text(
        self, x: float, y: float, text: str, size: int, colour: Colour = INK, align: Align = "left"
    ) -> None:
        """Writes a line whose middle is at the height y; ``align`` says which end of it is at x."""
        font = self._font(size)
        mask, (left, _) = font.getmask2(text, mode="L")
        letters = (np.asarray(mask, np.float32).reshape(mask.size[::-1]) / 255).astype(np.float32)
        if not letters.size:
            return
        middle, low = font.getbbox("0")[1::2]  # every line of this size sits on the same height
        top = round(y - (middle + low) / 2) + font.getbbox(text)[1]
        advance = font.getlength(text)
        x -= {"left": 0.0, "middle": advance / 2, "right": advance}[align]
        self._blend(round(x) + left, top, letters, colour)

    def text_width(self, text: str, size: int) -> float:
        """How wide a line is."""
        return float(self._font(size).getlength(text))

    def line(
        self, points: Sequence[Point], colour: Colour, width: int = 1, dash: tuple[int, ...] = ()
    ) -> None:
        """Draws a line through points; ``dash`` is the lengths of strokes and gaps, in turn."""
        for part in _strokes(points, dash) if dash else [points]:
            fixed = np.round(np.array(part, np.float64) * (1 << _SHIFT)).astype(np.int32)
            cv2.polylines(self.pixels, [fixed], False, colour, width, cv2.LINE_AA, _SHIFT)

    def dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Draws a filled circle."""
        scale = 1 << _SHIFT
        centre = round(x * scale), round(y * scale)
        cv2.circle(self.pixels, centre, round(radius * scale), colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)

    def paste(self, x: int, y: int, picture: NDArray[np.uint8]) -> None:
        """Puts an (h, w, 3) uint8 RGB picture with its top left corner at (x, y)."""
        height, width = picture.shape[:2]
        self.pixels[y : y + height, x : x + width] = picture

    def save(self, path: Path) -> None:
        """Writes the picture, the format by the name's ending."""
        write_picture(path, self.pixels)

    def _font(self, size: int) -> Any:
        if size not in self._fonts:
            try:
                from PIL import ImageFont
            except ImportError as error:
                raise InvalidInputError(
                    'drawing plots needs Pillow: pip install "clickmask[evaluation]"'
                ) from error
            self._fonts[size] = ImageFont.load_default(size)
        return self._fonts[size]

    def _blend(self, x: int, y: int, cover: NDArray[np.float32], colour: Colour) -> None:
        """Mixes a colour in where ``cover``, (h, w) float32 in [0, 1], says; what lies outside is cut off."""
        height, width = self.pixels.shape[:2]
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + cover.shape[1], width), min(y + cover.shape[0], height)
        if x0 >= x1 or y0 >= y1:
            return
        part = cover[y0 - y : y1 - y, x0 - x : x1 - x, None]
        here = self.pixels[y0:y1, x0:x1]
        self.pixels[y0:y1, x0:x1] = np.round(here * (1 - part) + np.array(colour) * part).astype(np.uint8)


def _strokes(points: Sequence[Point], dash: tuple[int, ...]) -> list[list[Point]]:
    """The pieces of a line that a dash pattern shows."""
    track = np.array(points, np.float64)
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(track, axis=0).T))])
    pieces, start, index = [], 0.0, 0
    while start < along[-1]:
        end = min(start + dash[index % len(dash)], along[-1])
        if index % 2 == 0:
            inside = along[(along > start) & (along < end)]
            at = np.concatenate([[start], inside, [end]])
            x, y = np.interp(at, along, track[:, 0]), np.interp(at, along, track[:, 1])
            pieces.append(list(zip(x.tolist(), y.tolist(), strict=True)))
        start, index = end, index + 1
    return pieces
