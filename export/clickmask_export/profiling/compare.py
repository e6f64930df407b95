"""Whether something got slower: two bundles of one run, or this run against the JSON of an earlier one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clickmask_export.profiling.figures import Ratio, ratio_of_medians

COMPARED = ("clicks", "cold_start", "paced")
"""Parts of a report that have single times to compare."""

_ENOUGH = 5  # times of each: with fewer, an interval says nothing


@dataclass(frozen=True)
class Comparison:
    """One thing measured of both.

    Attributes:
        bundle: which bundle is compared with the baseline.
        what: such as "384 px, same crop".
        ms: the median now.
        baseline_ms: that of the baseline.
        ratio: now over baseline.
        slower: whether even the lower end of the ratio's interval is above the limit; of fewer than five
            times, never.
    """

    bundle: str
    what: str
    ms: float
    baseline_ms: float
    ratio: Ratio
    slower: bool


def compare(
    now: Mapping[str, Any], baseline: Mapping[str, Any], limit: float, *, interleaved: bool
) -> list[Comparison]:
    """Compare what two reports of bundles have in common.

    Args:
        now: one of a report's ``bundles``.
        baseline: another, or one of an earlier report's.
        limit: the ratio of medians from which on something counts as slower.
        interleaved: whether both were measured in turns, in one run.
    """
    old = dict(_samples(baseline))
    rows = []
    for what, new in _samples(now):
        if what not in old:
            continue
        before = old[what]
        paired = interleaved and len(new["samples"]) == len(before["samples"])
        ratio = ratio_of_medians(new["samples"], before["samples"], paired=paired)
        slower = ratio.low > limit and min(new["count"], before["count"]) >= _ENOUGH
        rows.append(Comparison(now["name"], what, new["p50"], before["p50"], ratio, slower))
    return rows


def _samples(report: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for size, kinds in report.get("clicks", {}).items():
        for kind, figures in kinds.items():
            yield f"{size} px, {kind}", figures
    for name, figures in report.get("cold_start", {}).items():
        if name != "peak_mb":
            yield f"cold start, {name.removesuffix('_ms').replace('_', ' ')}", figures
    for run in report.get("paced", ()):
        yield f"paced, {run['pace_s']:g} s", run


def any_slower(rows: Sequence[Comparison]) -> bool:
    """Whether the command fails."""
    return any(row.slower for row in rows)
