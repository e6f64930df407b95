"""The log of a run: ``log.csv``, one row every few steps and one at each save."""

from __future__ import annotations

import csv
import os
from pathlib import Path

COLUMNS = ("step", "loss", "iou", "seconds", "samples", "held_out_iou")


def keep_rows(path: Path, last: int) -> None:
    """Drops the rows of steps after ``last``, which a resumed run takes again."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) <= last]
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)


def add_row(path: Path, row: dict[str, object]) -> None:
    """Appends a row; columns that it lacks stay empty.

    Args:
        path: the log; begun with a header where it is absent.
        row: ``step`` steps taken, ``loss`` and ``iou`` means since the row before, ``seconds`` of training,
            ``samples`` seen by all processes, ``held_out_iou`` of the averaged weights.
    """
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        if fresh:
            writer.writeheader()
        writer.writerow(row)
