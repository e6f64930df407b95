"""The report: what was measured, on which data, and every curve; it is also what a stopped run goes on from.

A report is JSON: {"kind", "schema", "clickmask", "runs": [run, ...]}, one run for each data set and method.
A run is {"settings", "hosts", "complete", "figures", "curves"}. The settings decide the curves; the hosts,
more than one if another went on, only their seconds. docs/evaluation.md explains the figures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clickmask import __version__
from clickmask.errors import InvalidInputError
from clickmask.evaluation.metrics import GOOD, clicks_to, failures, mean_iou_at, measured_thresholds, noc, nof
from clickmask.evaluation.run import Curve
from clickmask.whole_files import write_whole

KIND, SCHEMA = "clickmask evaluation", 1
STANDARD_LIMIT = 20  # clicks, of NoC and NoF in the papers' tables

_SETTINGS = ("dataset", "method", "layout", "objects", "data_sha256", "clicks", "until")  # of every method

Run = dict[str, Any]


def new_run(settings: dict[str, Any], host: dict[str, Any]) -> Run:
    """A run without curves yet."""
    return {"settings": settings, "hosts": [host], "complete": False, "figures": None, "curves": []}


def summarise(curves: Sequence[Curve], limit: int, until: float | None = None) -> dict[str, Any]:
    """The field's figures of some curves, ready for JSON.

    With ``until``, where an object's clicks ended at that IoU, what later clicks would have given was not
    measured: thresholds above it, the mean IoU and the boundary F are left out.
    """
    ious = [curve.ious for curve in curves]
    thresholds = measured_thresholds(until)
    limits = sorted({min(STANDARD_LIMIT, limit), limit})
    clicks = range(1, limit + 1)
    outlines = [curve.boundary for curve in curves]
    return {
        "objects": len(curves),
        "limits": {str(n): _at_limit(ious, thresholds, n) for n in limits},
        "miou": [mean_iou_at(ious, k) for k in clicks] if until is None else None,
        "boundary_f": [mean_iou_at(outlines, k) for k in clicks] if until is None else None,
        "seconds_per_click": _seconds(curves, limit),
    }


def _at_limit(ious: Sequence[Sequence[float]], thresholds: Sequence[float], limit: int) -> dict[str, Any]:
    return {
        "noc": {f"{t:.2f}": noc(ious, t, limit) for t in thresholds},
        "nof": {f"{t:.2f}": nof(ious, t, limit) for t in thresholds},
        "failures": {f"{t:.2f}": failures(ious, t, limit) for t in thresholds},
    }


def _seconds(curves: Sequence[Curve], limit: int) -> dict[str, float]:
    seconds = np.concatenate([curve.seconds for curve in curves])
    # The clicks of an annotator who stops when it is good: the early ones, which pay for the encoder.
    until_good = np.concatenate([curve.seconds[: clicks_to(curve.ious, GOOD, limit)] for curve in curves])
    return {
        "session_mean": float(seconds.mean()),
        "session_median": float(np.median(seconds)),
        f"session_mean_until_{GOOD:.2f}": float(until_good.mean()),
        "protocol": sum(curve.loop_seconds for curve in curves) / len(seconds),
    }


def curves_of(run: Run) -> list[Curve]:
    """The curves of a run."""
    return [Curve.from_json(document) for document in run["curves"]]


def write_report(path: Path, runs: Sequence[Run]) -> None:
    """Writes a report all or nothing.

    Raises:
        InvalidInputError: the place cannot be written.
    """
    document = {"kind": KIND, "schema": SCHEMA, "clickmask": __version__, "runs": list(runs)}
    write_whole(path, (json.dumps(document, separators=(",", ":")) + "\n").encode())


def read_report(path: Path) -> list[Run]:
    """The runs of a report, complete or not.

    Raises:
        InvalidInputError: no such file, or not a report of this schema.
    """
    return _read(path)[1]


def _read(path: Path) -> tuple[str, list[Run]]:
    """The version of clickmask that wrote a report, and its runs."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["kind"] != KIND or document["schema"] != SCHEMA:
            raise ValueError(f"kind {document['kind']!r}, schema {document['schema']!r}")
        runs: list[Run] = document["runs"]
        for run in runs:
            missing = {*new_run({}, {})} - {*run} | {*_SETTINGS} - {*run["settings"]}
            if missing:
                raise ValueError(f"a run without {', '.join(sorted(missing))}")
            _check_curves(run)
        return document["clickmask"], runs
    except OSError as error:
        raise InvalidInputError(f"expected a readable report {path}, got: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInputError(
            f"{path}: expected a report of `clickmask evaluate --json`, schema {SCHEMA}, got something else: "
            f"{error!r}"
        ) from error


def _check_curves(run: Run) -> None:
    """Refuses what the figures cannot be made of."""
    curves, objects = curves_of(run), run["settings"]["objects"]
    if not all(curve.ious and curve.boundary and curve.seconds for curve in curves):
        raise ValueError("a curve without a click")
    values = (value for curve in curves for value in (*curve.ious, *curve.boundary, *curve.seconds))
    if not all(type(value) in (int, float) for value in values):
        raise ValueError("a curve of other things than numbers")
    if type(objects) is not int or objects < 1 or type(run["settings"]["clicks"]) is not int:
        raise ValueError("clicks or objects that are no numbers of them")
    if len(curves) > objects or (run["complete"] and (len(curves) < objects or not run["figures"])):
        raise ValueError(f"{len(curves)} curves of {objects} objects, complete: {run['complete']}")


def resume(path: Path, wanted: Sequence[Run]) -> None:
    """Takes over from an earlier report what it has of the wanted runs; they are changed in place.

    Raises:
        InvalidInputError: the file is no report, or one of another clickmask, or has a run that is not
            wanted; the message says in what it differs.
    """
    version, runs = _read(path)
    if version != __version__:  # another one's curves may differ with every setting the same
        raise InvalidInputError(
            f"{path}: expected to go on with a report of clickmask {__version__}, got one of {version}; "
            "delete it, or go on with that version"
        )
    for old in runs:
        same = next((run for run in wanted if run["settings"] == old["settings"]), None)
        if same is None:
            raise InvalidInputError(
                f"{path}: expected to go on with this command's runs, got one of another: "
                f"{_difference(old['settings'], [run['settings'] for run in wanted])}; "
                "repeat the command that made it, or give another --json"
            )
        here = [host for host in same["hosts"] if host not in old["hosts"] and not old["complete"]]
        same.update(old, hosts=old["hosts"] + here)


def _difference(old: dict[str, Any], wanted: Sequence[dict[str, Any]]) -> str:
    name = f"{old['method']} on {old['dataset']}"
    near = next((s for s in wanted if (s["method"], s["dataset"]) == (old["method"], old["dataset"])), None)
    if near is None:
        return f"{name}, which was not asked for"
    keys = [key for key in {**old, **near} if old.get(key) != near.get(key)]
    return f"{name} with " + ", ".join(f"{k} {old.get(k)!r} instead of {near.get(k)!r}" for k in keys)
