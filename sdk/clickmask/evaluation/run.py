"""The robot at work on one object, and what happened there."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickmask.clicks import Click
from clickmask.evaluation.boundary import BoundaryTruth
from clickmask.evaluation.methods import Annotator
from clickmask.evaluation.metrics import iou
from clickmask.evaluation.robot import next_click
from clickmask.evaluation.samples import Sample, fitting_truth
from clickmask.mask import rle


@dataclass(frozen=True)
class Curve:
    """What happened on one object.

    Attributes:
        name: the sample's; `group` too.
        ious: IoU after each click, at least one.
        boundary: boundary F after each click.
        seconds: time of each ``session.click`` call alone, without the robot.
        loop_seconds: the protocol's time: reading the files, the robot and the IoU included, the boundary F
            not.
        clicks: the clicks made, one for each IoU.
        mask: the last mask as COCO run lengths (compressed counts).
    """

    name: str
    group: str
    ious: tuple[float, ...]
    boundary: tuple[float, ...]
    seconds: tuple[float, ...]
    loop_seconds: float
    clicks: tuple[Click, ...]
    mask: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "name": self.name,
            "group": self.group,
            "ious": list(self.ious),  # unrounded: a rounded one could cross a threshold
            "boundary_f": list(self.boundary),
            "seconds": [round(value, 6) for value in self.seconds],
            "loop_seconds": round(self.loop_seconds, 6),
            "clicks": [[click.x, click.y, int(click.positive)] for click in self.clicks],
            "mask": self.mask,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Curve:
        """The inverse of `to_json`."""
        return cls(
            name=document["name"],
            group=document["group"],
            ious=tuple(document["ious"]),
            boundary=tuple(document["boundary_f"]),
            seconds=tuple(document["seconds"]),
            loop_seconds=document["loop_seconds"],
            clicks=tuple(Click(x, y, label == 1) for x, y, label in document["clicks"]),
            mask=document["mask"],
        )


def annotate(annotator: Annotator, sample: Sample, limit: int, until: float | None = None) -> Curve:
    """Clicks until ``limit``, until IoU >= ``until``, or until no wrong pixel is left to click."""
    began = time.perf_counter()
    image, truth, ignored = _read(sample)
    session = annotator.session(image)
    loop_seconds = time.perf_counter() - began
    outline = BoundaryTruth(truth, ignored)
    prediction, clicked = np.zeros_like(truth), np.zeros_like(truth)
    clicks: list[Click] = []
    ious: list[float] = []
    boundary: list[float] = []
    seconds: list[float] = []
    target = math.inf if until is None else until
    while len(clicks) < limit and (not ious or ious[-1] < target):
        began = time.perf_counter()
        click = next_click(prediction, truth, ignored, clicked)
        if click is None:
            break
        clicked[int(click.y), int(click.x)] = True
        start = time.perf_counter()
        prediction = session.click(click.x, click.y, click.positive)
        seconds.append(time.perf_counter() - start)
        ious.append(iou(prediction, truth, ignored))
        loop_seconds += time.perf_counter() - began
        clicks.append(click)
        boundary.append(outline.f(prediction))
    return Curve(
        name=sample.name,
        group=sample.group,
        ious=tuple(ious),
        boundary=tuple(boundary),
        seconds=tuple(seconds),
        loop_seconds=loop_seconds,
        clicks=tuple(clicks),
        mask=str(rle(prediction)["counts"]),
    )


def _read(sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    image = sample.image()
    return image, *fitting_truth(sample, image.shape[:2])
