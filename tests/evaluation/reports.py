"""Curves and reports made up for tests, without a network or files."""

from __future__ import annotations

from typing import Any

import numpy as np

from clickmask.clicks import Click
from clickmask.evaluation.report import new_run, summarise
from clickmask.evaluation.run import Curve

SETTINGS = {"dataset": "disks", "method": "tiny", "layout": "indexed", "objects": 4, "data_sha256": "0" * 64}
SETTINGS |= {"clicks": 3, "until": None, "checkpoint_sha256": "1" * 64, "backend": "fake", "device": "cpu"}
HOST = {"machine": "here", "threads": 1, "workers": 1}


def curve(name: str, ious: list[float]) -> Curve:
    """A curve whose boundary F is half the IoU; its loop takes 0.3 s."""
    clicks = tuple(Click(float(k), 0.0, True) for k in range(len(ious)))
    seconds = (0.01, 0.02, 0.06)[: len(ious)]
    return Curve(name, name, tuple(ious), tuple(i / 2 for i in ious), seconds, 0.3, clicks, "0")


def finished(ious: np.ndarray | list[list[float]], **settings: Any) -> dict[str, Any]:
    """A run on objects "0", "1", ...: a row of IoUs for each."""
    curves = [curve(str(index), list(map(float, row))) for index, row in enumerate(ious)]
    run = new_run({**SETTINGS, "objects": len(curves), **settings}, dict(HOST))
    run["curves"] = [c.to_json() for c in curves]
    run["figures"] = summarise(curves, run["settings"]["clicks"], run["settings"]["until"])
    run["complete"] = True
    return run
