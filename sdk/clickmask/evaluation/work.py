"""Runs of a report: what is to be done on which data, done object by object and saved on the way."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clickmask.evaluation.pools import Task
from clickmask.evaluation.progress import Progress
from clickmask.evaluation.report import Run, curves_of, new_run, summarise, write_report
from clickmask.evaluation.run import Curve
from clickmask.evaluation.samples import Sample, fingerprint

_SAVE_EVERY = 60.0  # seconds of work that being killed may cost; large reports take a second to write


@dataclass(frozen=True)
class Objects:
    """The objects of a data set.

    Attributes:
        name: what the report calls it.
        layout: how it is read, for the report.
        samples: the objects.
        sha256: `fingerprint` of them.
    """

    name: str
    layout: str
    samples: Sequence[Sample]
    sha256: str

    @classmethod
    def of(cls, name: str, layout: str, samples: Sequence[Sample]) -> Objects:
        """Reads all their files once, for the hash."""
        return cls(name, layout, samples, fingerprint(samples))


def planned(objects: Objects, task: Task, workers: int | None = 1) -> Run:
    """A run without curves yet.

    Args:
        objects: the data set.
        task: what is done to each.
        workers: processes; None for as many as a cluster has room for.
    """
    settings = {
        "dataset": objects.name,
        "method": task.method.name,
        "layout": objects.layout,
        "objects": len(objects.samples),
        "data_sha256": objects.sha256,
        "clicks": task.limit,
        "until": task.until,
        **task.method.settings(),
    }
    host = {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "threads": task.method.threads,
        "workers": workers,
    }
    return new_run(settings, host)


def finish(current: Run, runs: Sequence[Run], curves: Iterator[Curve], path: Path | None) -> None:
    """Adds the curves that a run lacks; saves on the way and at the end, whichever way it ends.

    Args:
        current: the run; it gets curves, figures and "complete".
        runs: all runs of the report, this one too.
        curves: of the objects that it lacks, in their order.
        path: the report; None for none.
    """
    settings, documents = current["settings"], current["curves"]
    label = f"{settings['dataset']} {settings['method']}"
    progress = Progress(label, len(documents), settings["objects"])
    saved = time.monotonic()
    try:
        for curve in curves:
            documents.append(curve.to_json())
            progress.update(len(documents))
            if path and time.monotonic() - saved > _SAVE_EVERY:
                write_report(path, runs)
                saved = time.monotonic()
        current["figures"] = summarise(curves_of(current), settings["clicks"], settings["until"])
        current["complete"] = True
    finally:
        progress.close()
        if path:
            write_report(path, runs)
