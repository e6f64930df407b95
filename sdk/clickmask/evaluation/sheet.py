"""A contact sheet of a run's hardest objects: the photo, the true outline, the last mask, the clicks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from clickmask import rle_decode
from clickmask.clicks import Click
from clickmask.evaluation.drawing import FAINT, INK, Canvas, Colour
from clickmask.evaluation.metrics import GOOD, clicks_to, reached_at
from clickmask.evaluation.report import Run, curves_of
from clickmask.evaluation.run import Curve
from clickmask.evaluation.samples import Sample

_COLUMNS, _MOST = 4, 12
_CELL = (370, 278)  # width, height of a picture
_GAP, _CAPTION, _TOP = 20, 56, 112
_MASK: Colour = (40, 120, 255)
_TRUTH: Colour = (255, 221, 0)
_POSITIVE: Colour = (0, 170, 60)
_NEGATIVE: Colour = (220, 0, 0)
_WHITE: Colour = (255, 255, 255)

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def draw_sheet(path: Path, run: Run, samples: Sequence[Sample]) -> None:
    """Draws the run's hardest objects: most clicks to IoU 0.90, and among those the lowest IoU at the end."""
    limit = run["settings"]["clicks"]
    by_name = {sample.name: sample for sample in samples}
    curves = sorted(curves_of(run), key=lambda c: (-clicks_to(c.ious, GOOD, limit), c.ious[-1]))[:_MOST]
    rows = math.ceil(len(curves) / _COLUMNS)
    width = _COLUMNS * (_CELL[0] + _GAP) + _GAP
    canvas = Canvas(width, _TOP + rows * (_CELL[1] + _CAPTION + _GAP))
    title = f"{run['settings']['method']} on {run['settings']['dataset']}: the hardest {len(curves)} of"
    canvas.text(_GAP, 38, f"{title} {len(samples)} objects, after the last click", 26)
    _key(canvas)
    for index, curve in enumerate(curves):
        x = _GAP + (index % _COLUMNS) * (_CELL[0] + _GAP)
        y = _TOP + (index // _COLUMNS) * (_CELL[1] + _CAPTION + _GAP)
        _cell(canvas, x, y, curve, by_name[curve.name], limit)
    canvas.save(path)


def _key(canvas: Canvas) -> None:
    x = float(_GAP + 8)
    for colour, text in (
        (_MASK, "mask"),
        (_TRUTH, "true outline"),
        (_POSITIVE, "positive click"),
        (_NEGATIVE, "negative click"),
    ):
        canvas.dot(x, 78, 8, colour)
        canvas.text(x + 17, 78, text, 18, FAINT)
        x += 17 + canvas.text_width(text, 18) + 36


def _cell(canvas: Canvas, x: int, y: int, curve: Curve, sample: Sample, limit: int) -> None:
    image = sample.image()
    truth, ignored = sample.truth()
    mask = rle_decode({"size": list(truth.shape), "counts": curve.mask})
    window = _window(mask | truth, curve.clicks)
    picture, scale = _drawn(image, mask, truth, ignored, window)
    height, width = picture.shape[:2]
    left, top = x + (_CELL[0] - width) // 2, y + (_CELL[1] - height) // 2
    canvas.paste(left, top, picture)
    for number, click in enumerate(curve.clicks, start=1):
        at = left + (click.x + 0.5 - window[0]) * scale, top + (click.y + 0.5 - window[1]) * scale
        many = len(curve.clicks) > 30  # numbers would cover the picture
        canvas.dot(*at, 4 if many else 9, _WHITE)
        canvas.dot(*at, 3 if many else 7.5, _POSITIVE if click.positive else _NEGATIVE)
        if not many:
            canvas.text(*at, str(number), 11, _WHITE, "middle")
    reached = reached_at(curve.ious, GOOD, limit)
    verdict = f"{GOOD:.2f} at click {reached}" if reached else f"never {GOOD:.2f}"
    canvas.text(x, y + _CELL[1] + 17, sample.name, 18, INK)
    ious = f"IoU {curve.ious[0]:.2f} at click 1, {curve.ious[-1]:.2f} at {len(curve.ious)}; {verdict}"
    canvas.text(x, y + _CELL[1] + 41, ious, 16, FAINT)


def _window(content: Mask, clicks: Sequence[Click]) -> tuple[int, int, int, int]:
    """The part of the image to show, [x0, x1) x [y0, y1): what matters, with room, in the cell's aspect."""
    marked = content.copy()
    for click in clicks:
        marked[int(click.y), int(click.x)] = True
    x, y, width, height = cv2.boundingRect(marked.view(np.uint8))
    least = 0.25 * max(content.shape)
    wide = max(1.3 * width, 1.3 * height * _CELL[0] / _CELL[1], least)
    spans = []
    for start, length, room, side in (
        (x, width, wide, content.shape[1]),
        (y, height, wide * _CELL[1] / _CELL[0], content.shape[0]),
    ):
        span = min(round(room), side)
        low = min(max(round(start + length / 2 - span / 2), 0), side - span)
        spans.append((low, low + span))
    (x0, x1), (y0, y1) = spans
    return x0, y0, x1, y1


def _drawn(
    image: Picture, mask: Mask, truth: Mask, ignored: Mask, window: tuple[int, int, int, int]
) -> tuple[Picture, float]:
    """The window enlarged or reduced to the cell, with mask and outline, and by how much."""
    x0, y0, x1, y1 = window
    part = (slice(y0, y1), slice(x0, x1))
    scale = min(_CELL[0] / (x1 - x0), _CELL[1] / (y1 - y0))
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    picture = np.asarray(cv2.resize(np.ascontiguousarray(image[part]), size, interpolation=how), np.float32)

    def cover(pixels: Mask) -> NDArray[np.float32]:
        grey = np.ascontiguousarray(pixels[part]).astype(np.float32)
        smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(grey, size, interpolation=smooth), np.float32)

    picture *= 1 - 0.6 * cover(ignored)[:, :, None]
    tint = 0.5 * cover(mask)[:, :, None]
    picture = picture * (1 - tint) + np.array(_MASK, np.float32) * tint
    drawn = np.ascontiguousarray(np.clip(np.round(picture), 0, 255).astype(np.uint8))
    inside = (cover(truth) > 0.5).astype(np.uint8)
    outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, outlines, -1, _TRUTH, 2, cv2.LINE_AA)
    return drawn, scale
