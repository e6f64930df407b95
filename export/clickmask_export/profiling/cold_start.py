"""From nothing to the first mask, in fresh processes; and the most memory that such a process takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import clickmask
from clickmask.clicks import Click
from clickmask_export.errors import BuildError
from clickmask_export.profiling.figures import summary
from clickmask_export.profiling.scenes import Image
from clickmask_export.profiling.subject import Subject

_CHILD = Path(__file__).with_name("first_mask.py")
_ROOM = Path(clickmask.__file__).parents[1]


def measure_cold_start(
    subjects: Sequence[Subject], photo: Image, clicks: Sequence[Click], runs: int
) -> list[dict[str, Any]]:
    """Start a process for each subject in turn, some times over.

    The first round is not counted: it compiles clickmask's modules, as installing them does.

    Returns:
        For each subject ``first_mask_ms`` (from the start of the process), ``import_ms`` (clickmask and all
        that it needs), ``load_ms`` and ``click_ms``, each a ``summary``; and ``peak_mb`` by what was done so
        far, the largest of the runs.

    Raises:
        BuildError: a process failed; with what it said last.
    """
    found: list[list[dict[str, Any]]] = [[] for _ in subjects]
    with tempfile.TemporaryDirectory(prefix="clickmask-") as folder:
        picture = Path(folder) / "photo.npy"
        np.save(picture, photo)
        for subject in subjects:
            _run(subject, picture, clicks)
        for _ in range(runs):
            for subject, results in zip(subjects, found, strict=True):
                results.append(_run(subject, picture, clicks))
    return [_report(results) for results in found]


def _run(subject: Subject, picture: Path, clicks: Sequence[Click]) -> dict[str, Any]:
    job = {
        "bundle": str(subject.segmenter.bundle.path),
        "how": vars(subject.how),
        "photo": str(picture),
        "clicks": [(click.x, click.y, click.positive) for click in clicks],
    }
    environment = {**os.environ, "PYTHONPATH": str(_ROOM)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-P", str(_CHILD), json.dumps(job)], capture_output=True, text=True, env=environment
    )
    if done.returncode != 0:
        last = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise BuildError(f"a fresh process with {subject.name} failed and said: {last}")
    result = json.loads(done.stdout.splitlines()[-1])
    stamps = result["stamps"]
    return {
        "first_mask_ms": 1e3 * (stamps["masked"] - start),
        "import_ms": 1e3 * (stamps["imported"] - stamps["before"]),
        "load_ms": 1e3 * (stamps["loaded"] - stamps["imported"]),
        "click_ms": 1e3 * (stamps["masked"] - stamps["loaded"]),
        "peak_mb": result["peak_mb"],
    }


def _report(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    times = ("first_mask_ms", "import_ms", "load_ms", "click_ms")
    peaks = {
        step: None if value is None else max(result["peak_mb"][step] for result in results)
        for step, value in results[0]["peak_mb"].items()
    }
    return {name: summary([result[name] for result in results]) for name in times} | {"peak_mb": peaks}
