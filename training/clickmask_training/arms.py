"""Studies: several methods clicked by the robot on the same objects, told apart by paired intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clickmask.evaluation.compare import compare_runs
from clickmask.evaluation.methods import BundleMethod, Method
from clickmask.evaluation.pools import Task, here
from clickmask.evaluation.report import Run, resume
from clickmask.evaluation.work import Objects, finish, planned


@dataclass(frozen=True)
class BundleArm:
    """What arms that run one bundle on the CPU have in common: all but ``open`` and ``settings``."""

    name: str
    bundle: BundleMethod
    device: str = field(init=False, default="cpu")

    @property
    def threads(self) -> int | None:
        """See `Method`."""
        return self.bundle.threads


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        arms: the methods; each is set beside the first.
        data: the objects that all of them get.
        clicks: most clicks an object.
        until: IoU at which an object's clicks end; None for all clicks.
    """

    arms: Sequence[Method]
    data: Sequence[Objects]
    clicks: int
    until: float | None = None

    def run(
        self, report: Path | None, prepare: Callable[[Method], None] | None = None
    ) -> Iterator[list[list[Run]]]:
        """Does what a report lacks and keeps it there, one arm after the other.

        Args:
            report: a file; None for none.
            prepare: called with each arm before its objects.

        Yields:
            After each arm, the runs of all arms that are done, those of an arm in the order of ``data``.
        """
        tasks = [Task(arm, self.clicks, self.until) for arm in self.arms]
        runs = [[planned(objects, task) for objects in self.data] for task in tasks]
        flat = [run for of_arm in runs for run in of_arm]
        if report is not None and report.exists():
            resume(report, flat)
        for done, (task, of_arm) in enumerate(zip(tasks, runs, strict=True), start=1):
            if prepare is not None:
                prepare(task.method)
            for run, objects in zip(of_arm, self.data, strict=True):
                if not run["complete"]:
                    finish(run, flat, here(task, objects.samples[len(run["curves"]) :]), report)
            yield runs[:done]

    def missing(self, runs: Sequence[Sequence[Run]]) -> list[str]:
        """What to say of the arms that are not done yet; nothing where all are."""
        left = [f"`{arm.name}`" for arm in self.arms[len(runs) :]]
        if not left:
            return []
        return [f"**Incomplete**: the same command goes on with {', '.join(left)}.", ""]


def table(
    runs: Sequence[Sequence[Run]], figures: Sequence[str], notes: Mapping[str, str] | None = None
) -> list[str]:
    """A Markdown table: a row for each arm; figures on each data set, with differences to the first arm.

    Args:
        runs: of each arm, its runs on the data sets.
        figures: labels of ``compare_runs``.
        notes: arm -> what its last cell says; None for no such column.
    """
    heads = [f"{run['settings']['dataset']}: {figure}" for run in runs[0] for figure in figures]
    heads += [] if notes is None else ["papers"]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for of_arm in runs:
        cells = [
            _cell(compare_runs(first, run)["differences"][figure], run is first)
            for first, run in zip(runs[0], of_arm, strict=True)
            for figure in figures
        ]
        arm = of_arm[0]["settings"]["method"]
        cells += [] if notes is None else [notes.get(arm, "")]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return lines


def _cell(row: dict[str, Any], alone: bool) -> str:
    digits = 3 if abs(row["b"]) < 1 else 2
    text = f"{row['b']:.{digits}f}"
    if alone:
        return text
    low, high = row["interval"]
    numbers = f"{row['difference']:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"{text}; {f'**{numbers}**' if low > 0 or high < 0 else numbers}"


def data_lines(runs: Sequence[Sequence[Run]]) -> list[str]:
    """A line for each data set: how many objects, in how many groups, and their hash."""
    lines = []
    for run in runs[0]:
        settings, groups = run["settings"], {curve["group"] for curve in run["curves"]}
        lines.append(
            f"- {settings['dataset']}: {settings['objects']} objects in {len(groups)} images, data sha256 "
            f"`{settings['data_sha256'][:16]}`"
        )
    return lines
