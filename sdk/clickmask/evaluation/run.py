"""Runs the robot annotator over a data set through the public Session API."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clickmask.errors import InvalidInputError
from clickmask.evaluation.datasets import Sample
from clickmask.evaluation.metrics import THRESHOLDS, clicks_to, failures, iou, mean_iou_at, noc, nof
from clickmask.evaluation.robot import next_click
from clickmask.segmenter import Segmenter


@dataclass(frozen=True)
class Curve:
    """What happened on one object.

    Attributes:
        name: the sample's.
        ious: IoU after each click, at least one.
        seconds: time of each ``session.click`` call alone, without the robot.
    """

    name: str
    ious: tuple[float, ...]
    seconds: tuple[float, ...]


def annotate(segmenter: Segmenter, sample: Sample, limit: int) -> Curve:
    """Clicks until ``limit`` or until no wrong pixel is left to click."""
    truth, ignored = sample.truth()
    image = sample.image()
    if image.shape[:2] != truth.shape:
        raise InvalidInputError(
            f"{sample.name}: expected image and mask of one size, got {image.shape[:2]} and {truth.shape}"
        )
    session = segmenter.session(image)
    clicked = np.zeros_like(truth)
    prediction = np.zeros_like(truth)
    ious: list[float] = []
    seconds: list[float] = []
    while len(ious) < limit:
        click = next_click(prediction, truth, ignored, clicked)
        if click is None:
            break
        clicked[int(click.y), int(click.x)] = True
        start = time.perf_counter()
        prediction = session.click(click.x, click.y, click.positive)
        seconds.append(time.perf_counter() - start)
        ious.append(iou(prediction, truth, ignored))
    return Curve(sample.name, tuple(ious), tuple(seconds))


def evaluate(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    limit: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Curve]:
    """One curve per sample, in order; ``on_progress(done, total)`` is called after each."""
    curves = []
    for index, sample in enumerate(samples, start=1):
        curves.append(annotate(segmenter, sample, limit))
        if on_progress:
            on_progress(index, len(samples))
    return curves


def summarise(curves: Sequence[Curve], limit: int) -> dict[str, Any]:
    """The field's figures of a run, ready for JSON."""
    ious = [curve.ious for curve in curves]
    seconds = np.concatenate([curve.seconds for curve in curves])
    # At 0.90, the clicks that an annotator who stops there would have made.
    until_90 = np.concatenate([curve.seconds[: clicks_to(curve.ious, 0.9, limit)] for curve in curves])
    return {
        "objects": len(curves),
        "clicks": limit,
        "noc": {f"{t:.2f}": round(noc(ious, t, limit), 4) for t in THRESHOLDS},
        "nof": {f"{t:.2f}": nof(ious, t, limit) for t in THRESHOLDS},
        "failures": {f"{t:.2f}": failures(ious, t, limit) for t in THRESHOLDS},
        "miou": [round(mean_iou_at(ious, k), 4) for k in range(1, limit + 1)],
        "seconds_per_click": {
            "median": round(float(np.median(seconds)), 5),
            "mean_until_0.90": round(float(until_90.mean()), 5),
        },
    }
