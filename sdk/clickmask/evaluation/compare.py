"""``clickmask compare A.json B.json``: whether two reports differ by more than chance.

Paired bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993): objects are drawn again
with replacement, the same ones for both reports, and the difference of the means is taken each time; its
middle 95 % are the interval. Whole groups are drawn, since the objects of an image, or the frames of a video,
are easy or hard together; counting them one by one would make the interval too narrow.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickmask.errors import InvalidInputError
from clickmask.evaluation.metrics import clicks_to, measured_thresholds, reached_at, value_at
from clickmask.evaluation.report import Run, curves_of, read_report
from clickmask.evaluation.run import Curve
from clickmask.whole_files import check_targets, write_whole

RESAMPLES = 10_000
_SEED = 0
_BATCH = 500  # resamples at once, which bounds the memory on large sets
_CLICKS = (1, 3, 5, 10, 20)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``clickmask compare``."""
    # Not a name for each: argparse of Python 3.11 takes a tuple for options only.
    parser.add_argument("reports", nargs=2, type=Path, metavar="REPORT.json", help="A, then B")
    parser.add_argument(
        "--method", nargs=2, metavar=("A", "B"), help="which method of each (default: each report's first)"
    )
    parser.add_argument("--json", type=Path, help="write the differences to this file")


def run(options: argparse.Namespace) -> int:
    """Prints the differences on each data set that both reports have."""
    check_targets([("--json", options.json)], options.reports)
    methods = options.method or (None, None)
    sides = [_finished(path, method) for path, method in zip(options.reports, methods, strict=True)]
    shared = [name for name in sides[0] if name in sides[1]]
    if not shared:
        have = [", ".join(side) or "none" for side in sides]
        raise InvalidInputError(f"expected a data set in both reports, got {have[0]} and {have[1]}")
    results = [compare_runs(sides[0][name], sides[1][name]) for name in shared]
    for result in results:
        print(_table(result))
    if options.json:
        write_whole(options.json, (json.dumps(results, indent=1) + "\n").encode())
    return 0


def compare_runs(a: Run, b: Run) -> dict[str, Any]:
    """The differences B - A of two finished runs on the same data.

    Raises:
        InvalidInputError: the data differ.
    """
    # The hash covers names and files of all objects; the layout says which pixels of a file are the object.
    for key in ("data_sha256", "layout"):
        values = a["settings"][key], b["settings"][key]
        if values[0] != values[1]:
            raise InvalidInputError(
                f"{a['settings']['dataset']}: expected reports on the same data, got {key} "
                f"{values[0]} and {values[1]}; evaluate both on one copy of it"
            )
    curves = curves_of(a), curves_of(b)
    limit = min(a["settings"]["clicks"], b["settings"]["clicks"])
    untils = [run["settings"]["until"] for run in (a, b) if run["settings"]["until"] is not None]
    until = min(untils, default=None)
    figures = [_per_object(side, limit, until) for side in curves]
    labels = list(figures[0])
    columns = [np.array([side[label] for label in labels]).T for side in figures]
    groups = [curve.group for curve in curves[0]]
    low, high = paired_bootstrap(columns[1] - columns[0], groups)
    means = [column.mean(axis=0) for column in columns]
    return {
        "dataset": a["settings"]["dataset"],
        "data_sha256": a["settings"]["data_sha256"],
        "methods": [a["settings"]["method"], b["settings"]["method"]],
        "objects": len(groups),
        "groups": len(set(groups)),
        "clicks": limit,
        "resamples": RESAMPLES,
        "differences": {
            label: {
                "a": float(means[0][i]),
                "b": float(means[1][i]),
                "difference": float(means[1][i] - means[0][i]),
                "interval": [float(low[i]), float(high[i])],
            }
            for i, label in enumerate(labels)
        },
    }


def paired_bootstrap(
    differences: NDArray[np.float64], groups: Sequence[str], resamples: int = RESAMPLES
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 95 % interval of the mean of paired differences, by drawing groups again.

    Args:
        differences: (N, K) float64: K figures of each of N objects.
        groups: N names; objects of one name are drawn together.
        resamples: how often.

    Returns:
        (K,) low and (K,) high ends.
    """
    _, member = np.unique(groups, return_inverse=True)
    count = int(member.max()) + 1
    sums = np.zeros((count, differences.shape[1]))
    np.add.at(sums, member, differences)
    sizes = np.bincount(member).astype(np.float64)
    rng = np.random.default_rng(_SEED)
    means = []
    for start in range(0, resamples, _BATCH):
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=min(_BATCH, resamples - start))
        means.append((drawn @ sums) / (drawn @ sizes)[:, None])
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5], axis=0)
    return low, high


def _per_object(curves: Sequence[Curve], limit: int, until: float | None) -> dict[str, list[float]]:
    """Figure -> its value for each object; the mean over objects is the figure."""
    ious = [curve.ious for curve in curves]
    thresholds = measured_thresholds(until)
    found = {f"NoC@{t:.2f}": [float(clicks_to(curve, t, limit)) for curve in ious] for t in thresholds}
    for t in thresholds:
        found[f"failures@{t:.2f}"] = [float(reached_at(curve, t, limit) is None) for curve in ious]
    # The first click is made whatever ends the others.
    shown = [k for k in _CLICKS if k <= limit and (until is None or k == 1)]
    if shown:
        found |= {f"mIoU@{k}": [value_at(curve, k) for curve in ious] for k in shown}
        found |= {f"F@{k}": [value_at(curve.boundary, k) for curve in curves] for k in shown}
    return found


def _finished(path: Path, method: str | None) -> dict[str, Run]:
    """Data set -> the run of one method, of a report."""
    runs = read_report(path)
    if not runs:
        raise InvalidInputError(f"{path}: expected a report with runs, got none")
    have = list(dict.fromkeys(run["settings"]["method"] for run in runs))
    wanted = method or have[0]
    if wanted not in have:
        raise InvalidInputError(f"{path}: expected one of the methods {', '.join(have)}, got {wanted!r}")
    chosen = {run["settings"]["dataset"]: run for run in runs if run["settings"]["method"] == wanted}
    for name, run in chosen.items():
        if not run["complete"]:
            raise InvalidInputError(
                f"{path}: expected finished runs, got {len(run['curves'])} of {run['settings']['objects']} "
                f"objects of {name}; repeat the command that made it, which goes on"
            )
    return chosen


def _table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['dataset']}: {result['objects']} objects in {result['groups']} groups, at most "
        f"{result['clicks']} clicks; A is {result['methods'][0]}, B is {result['methods'][1]}",
        f"  {'figure':<14}{'A':>8}{'B':>8}{'B - A':>9}   95 % interval",
    ]
    for label, row in result["differences"].items():
        low, high = row["interval"]
        beyond = "  *" if low > 0 or high < 0 else ""
        lines.append(
            f"  {label:<14}{row['a']:>8.3f}{row['b']:>8.3f}{row['difference']:>+9.3f}   "
            f"[{low:+.3f}, {high:+.3f}]{beyond}"
        )
    return "\n".join([*lines, "  * the interval leaves out 0; failures are a share of the objects"])
