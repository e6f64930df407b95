"""The curves of a report as a picture: mean IoU, and objects done, after each click."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clickmask.evaluation.drawing import FAINT, GRID, INK, PALETTE, Canvas, Colour
from clickmask.evaluation.metrics import GOOD, reached_at
from clickmask.evaluation.report import Run, curves_of

_WIDTH, _MARGIN, _GAP = 1560, 90, 110
_TOP, _PLOT, _ROW = 110, 520, 34
_TITLE, _TEXT, _SMALL = 26, 19, 17
_DASHES: tuple[tuple[int, ...], ...] = ((), (12, 7), (3, 6), (14, 5, 3, 5))


@dataclass(frozen=True)
class _Line:
    """One line of a panel: what the legend says, how it looks, and a value after each click."""

    label: str
    figure: str
    colour: Colour
    dash: tuple[int, ...]
    values: Sequence[float]


def draw_curves(path: Path, runs: Sequence[Run]) -> None:
    """Draws the finished runs: left mIoU@k, right the share of objects with IoU >= 0.90 within k clicks.

    A colour is a data set, a kind of line a method. With --until there is no mIoU@k, so the left panel is not
    drawn.
    """
    datasets = list(dict.fromkeys(run["settings"]["dataset"] for run in runs))
    methods = list(dict.fromkeys(run["settings"]["method"] for run in runs))
    clicks = runs[0]["settings"]["clicks"]
    left = [_line(run, datasets, methods, run["figures"]["miou"]) for run in runs if run["figures"]["miou"]]
    right = [_line(run, datasets, methods, _done(run)) for run in runs]
    canvas = Canvas(_WIDTH, _TOP + _PLOT + 105 + _ROW * math.ceil(len(runs) / 2))
    canvas.text(_MARGIN, 38, f"{methods[0]}: robot annotator, at most {clicks} clicks", _TITLE)
    panels = [("mean IoU after k clicks", left)] if left else []
    panels.append((f"share of objects with IoU of at least {GOOD:.2f} within k clicks", right))
    width = (_WIDTH - 2 * _MARGIN - _GAP * (len(panels) - 1)) / len(panels)
    for index, (title, lines) in enumerate(panels):
        _panel(canvas, _MARGIN + index * (width + _GAP), width, title, lines, clicks)
    _legend(canvas, right)
    canvas.save(path)


def _line(run: Run, datasets: list[str], methods: list[str], values: Sequence[float]) -> _Line:
    settings = run["settings"]
    colour = PALETTE[datasets.index(settings["dataset"]) % len(PALETTE)]
    dash = _DASHES[methods.index(settings["method"]) % len(_DASHES)]
    limit, numbers = next(iter(run["figures"]["limits"].items()))  # of 20 clicks, where 100 were made too
    label = settings["dataset"] if len(methods) == 1 else f"{settings['dataset']}, {settings['method']}"
    figure = f"NoC{limit}@90  {numbers['noc'][f'{GOOD:.2f}']:.2f}"
    return _Line(f"{label} ({run['figures']['objects']})", figure, colour, dash, values)


def _done(run: Run) -> list[float]:
    """Share of the objects that have reached IoU 0.90 after each click."""
    limit = run["settings"]["clicks"]
    first = [reached_at(curve.ious, GOOD, limit) or math.inf for curve in curves_of(run)]
    return [sum(reached <= k for reached in first) / len(first) for k in range(1, limit + 1)]


def _panel(
    canvas: Canvas, left: float, width: float, title: str, lines: Sequence[_Line], clicks: int
) -> None:
    low = math.floor(min(min(line.values) for line in lines) * 10) / 10
    low = min(low, 0.9)

    def at(click: float, value: float) -> tuple[float, float]:
        x = left + width * (click - 1) / max(clicks - 1, 1)
        return x, _TOP + _PLOT * (1 - (value - low) / (1 - low))

    canvas.text(left, 78, title, _TEXT, FAINT)
    for tenth in range(round(low * 10), 11):
        y = at(1, tenth / 10)[1]
        canvas.line([(left, y), (left + width, y)], GRID)
        canvas.text(left - 12, y, f"{tenth / 10:.1f}", _SMALL, FAINT, "right")
    for click in _ticks(clicks):
        x = at(click, low)[0]
        canvas.line([(x, _TOP + _PLOT), (x, _TOP + _PLOT + 6)], FAINT)
        canvas.text(x, _TOP + _PLOT + 22, str(click), _SMALL, FAINT, "middle")
    canvas.line([(left, _TOP + _PLOT), (left + width, _TOP + _PLOT)], FAINT)
    canvas.text(left + width, _TOP + _PLOT + 48, "k, clicks", _SMALL, FAINT, "right")
    for line in reversed(lines):  # the first, the bundle's, on top
        points = [at(k, value) for k, value in enumerate(line.values, start=1)]
        canvas.line(points, line.colour, 3 if not line.dash else 2, line.dash)
        if not line.dash and clicks <= 30:
            for x, y in points:
                canvas.dot(x, y, 4, line.colour)


def _ticks(clicks: int) -> list[int]:
    step = 1 if clicks <= 10 else 2 if clicks <= 20 else 10
    return sorted({1, *range(step, clicks + 1, step)})


def _legend(canvas: Canvas, lines: Sequence[_Line]) -> None:
    rows = math.ceil(len(lines) / 2)
    column = (_WIDTH - 2 * _MARGIN) / 2
    for index, line in enumerate(lines):
        x = _MARGIN + column * (index // rows)
        y = _TOP + _PLOT + 85 + _ROW * (index % rows)
        canvas.line([(x, y), (x + 44, y)], line.colour, 3 if not line.dash else 2, line.dash)
        canvas.text(x + 58, y, line.label, _TEXT, INK)
        canvas.text(x + column - 60, y, line.figure, _TEXT, FAINT, "right")
