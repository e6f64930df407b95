"""The log of a run: ``log.csv``, one row every few steps and one at each save, and lines on the screen."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from clickmask.whole_files import write_whole
from clickmask_training.checks import ConfigError

COLUMNS = ("step", "loss", "iou", "seconds", "samples", "held_out_iou", "noc90", "miou5")


def keep_rows(path: Path, last: int) -> None:
    """Drops the rows of steps after ``last``, which a resumed run takes again.

    Raises:
        ConfigError: not a log of ours.
        InvalidInputError: it cannot be written.
    """
    if not path.exists():
        return
    try:
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= last]
    except (ValueError, KeyError, csv.Error) as error:
        raise ConfigError(
            f"{path}: expected the log that this command began, got another file ({error!r}); move it away"
        ) from error
    kept = io.StringIO()
    writer = csv.DictWriter(kept, COLUMNS, restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, kept.getvalue().encode())


def add_row(path: Path, row: dict[str, object]) -> None:
    """Appends a row; columns that it lacks stay empty.

    Args:
        path: the log; begun with a header where it is absent.
        row: ``step`` steps taken, ``loss`` and ``iou`` (where masks are learnt) means since the row before,
            ``seconds`` of training, ``samples`` seen by all processes; of the averaged weights
            ``held_out_iou`` on held-out crops, ``noc90`` and ``miou5`` of the robot annotator on held-out
            images.
    """
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def line(row: dict[str, object], steps: int, seconds_left: float) -> str:
    """A row for people: step of steps, what was measured, and the time left."""
    parts = [f"step {row['step']}/{steps}", f"loss {row['loss']}"]
    for key, name in (
        ("iou", "IoU"),
        ("held_out_iou", "held-out IoU"),
        ("noc90", "NoC@90"),
        ("miou5", "mIoU@5"),
    ):
        if key in row:
            parts.append(f"{name} {row[key]}")
    return "  ".join([*parts, f"{clock(seconds_left)} left"])


def clock(seconds: float) -> str:
    """A duration as hours:minutes:seconds, without hours where there are none."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
