"""A report as a picture: clicks by size, where they go, and what many sessions get."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clickmask.evaluation.drawing import FAINT, GRID, INK, PALETTE, Canvas, Colour
from clickmask_export.profiling.clicks import KINDS, MOVED, SAME, TWICE
from clickmask_export.profiling.recorder import STAGES

_WIDTH, _LEFT, _RIGHT = 1480, 300, 1340
_BAR, _STEP, _HEAD = 12, 24, 84
_TITLE, _TEXT, _SMALL = 24, 17, 15
_PALETTE = (*PALETTE, (0, 80, 60), (150, 60, 110), (180, 180, 90), (120, 160, 200))


def draw(path: Path, report: Mapping[str, Any]) -> None:
    """Draws a report's clicks: one bar from p50 to p99 for each kind and size, and one of stages below.

    Raises:
        InvalidInputError: Pillow is not installed, or the file cannot be written.
        ValueError: the report has no clicks.
    """
    rows = [row for bundle in report["bundles"] for row in _rows(bundle)]
    if not rows:
        raise ValueError("a plot needs the part 'clicks', and this report has none")
    staged = [row for row in rows if row[1] in (MOVED, SAME, TWICE) and row[2]["stages"]]
    height = 2 * _HEAD + _STEP * (len(rows) + len(staged)) + 190
    canvas = Canvas(_WIDTH, height)
    below = _spans(canvas, rows, 40)
    _stages(canvas, staged, below + 60)
    canvas.save(path)


def _rows(bundle: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    return [
        (f"{bundle['name']}, {size} px, {kind}", kind, figures)
        for size, kinds in bundle.get("clicks", {}).items()
        for kind, figures in kinds.items()
    ]


def _axis(canvas: Canvas, top: float, bottom: float, most: float) -> float:
    """Draws the grid of milliseconds from 0; returns pixels for one."""
    step = 10 ** math.floor(math.log10(most)) / 2
    while most / step > 12:
        step *= 2
    scale = (_RIGHT - _LEFT) / most
    for number in range(math.floor(most / step) + 1):
        x = _LEFT + scale * step * number
        canvas.line([(x, top), (x, bottom)], GRID)
        canvas.text(x, bottom + 14, f"{step * number:g}", _SMALL, FAINT, "middle")
    return scale


def _bar(canvas: Canvas, x0: float, x1: float, y: float, colour: Colour) -> None:
    first, last = round(x0), max(round(x1), round(x0) + 1)
    canvas.pixels[round(y) - _BAR // 2 : round(y) + _BAR // 2, first:last] = colour


def _spans(canvas: Canvas, rows: Sequence[tuple[str, str, Mapping[str, Any]]], top: float) -> float:
    canvas.text(40, top, "A click in ms: least, p50 (dot), p90 (dark), p99 (light)", _TITLE)
    start = top + 34
    bottom = start + _STEP * len(rows)
    scale = _axis(canvas, start, bottom, 1.05 * max(row["p99"] for _, _, row in rows))
    for number, (label, kind, row) in enumerate(rows):
        y = start + _STEP * (number + 0.5)
        colour = PALETTE[KINDS.index(kind)]
        light = tuple((channel + 2 * 255) // 3 for channel in colour)
        canvas.text(_LEFT - 14, y, label, _SMALL, INK, "right")
        _bar(canvas, _LEFT + scale * row["min"], _LEFT + scale * row["p99"], y, light)
        _bar(canvas, _LEFT + scale * row["min"], _LEFT + scale * row["p90"], y, colour)
        canvas.dot(_LEFT + scale * row["p50"], y, 4, INK)
    return bottom + 20


def _stages(canvas: Canvas, rows: Sequence[tuple[str, str, Mapping[str, Any]]], top: float) -> None:
    if not rows:
        return
    canvas.text(40, top, "Where it goes: median ms of each stage", _TITLE)
    start = top + 34
    bottom = start + _STEP * len(rows)
    scale = _axis(canvas, start, bottom, 1.05 * max(sum(row["stages"].values()) for _, _, row in rows))
    for number, (label, _, row) in enumerate(rows):
        x, y = float(_LEFT), start + _STEP * (number + 0.5)
        canvas.text(_LEFT - 14, y, label, _SMALL, INK, "right")
        for stage in STAGES:
            width = scale * row["stages"].get(stage, 0.0)
            if width >= 1:
                _bar(canvas, x, x + width, y, _PALETTE[STAGES.index(stage)])
            x += width
    _legend(canvas, [s for s in STAGES if any(s in row["stages"] for _, _, row in rows)], bottom + 44)


def _legend(canvas: Canvas, stages: Sequence[str], y: float) -> None:
    x = 40.0
    for stage in stages:
        _bar(canvas, x, x + 18, y, _PALETTE[STAGES.index(stage)])
        canvas.text(x + 24, y, stage, _TEXT)
        x += 24 + canvas.text_width(stage, _TEXT) + 26
