"""The report: its figures, and going on from an unfinished one."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from reports import HOST, SETTINGS, curve, finished

from clickmask import __version__
from clickmask.errors import InvalidInputError
from clickmask.evaluation import report
from clickmask.evaluation.progress import Progress
from clickmask.evaluation.report import new_run, read_report, resume, summarise, write_report
from clickmask.evaluation.tables import markdown, table

IOUS = [[0.5, 0.86, 0.91], [0.95, 0.95, 0.95], [0.2, 0.3, 0.4], [0.5, 0.6, 0.9]]
CURVES = [curve(str(index), ious) for index, ious in enumerate(IOUS)]


def test_the_summary_holds_the_fields_figures() -> None:
    figures = summarise(CURVES, 3)
    assert figures["objects"] == 4
    assert figures["limits"] == {
        "3": {
            "noc": {"0.80": 2.25, "0.85": 2.25, "0.90": 2.5, "0.95": 2.5},
            "nof": {"0.80": 2, "0.85": 2, "0.90": 3, "0.95": 3},
            "failures": {"0.80": 1, "0.85": 1, "0.90": 1, "0.95": 3},
        }
    }
    assert figures["miou"] == pytest.approx([0.5375, 0.6775, 0.79])
    assert figures["boundary_f"] == pytest.approx([0.26875, 0.33875, 0.395])
    seconds = figures["seconds_per_click"]
    assert seconds["session_mean"] == pytest.approx(0.03)
    assert seconds["session_median"] == 0.02
    assert seconds["protocol"] == pytest.approx(4 * 0.3 / 12)
    # 3 + 1 + 3 + 3 clicks to 0.90 or the end
    assert seconds["session_mean_until_0.90"] == pytest.approx((3 * 0.09 + 0.01) / 10)


def test_a_hundred_clicks_give_the_figures_of_twenty_as_well() -> None:
    late = curve("late", [0.5] * 20 + [0.95])
    figures = summarise([late, CURVES[1]], 100)
    assert figures["limits"]["20"]["noc"]["0.90"] == (20 + 1) / 2
    assert figures["limits"]["100"]["noc"]["0.90"] == (21 + 1) / 2
    assert (figures["limits"]["20"]["failures"]["0.90"], figures["limits"]["100"]["nof"]["0.90"]) == (1, 0)


def test_until_leaves_out_what_was_not_measured() -> None:
    figures = summarise(CURVES, 3, until=0.90)
    assert list(figures["limits"]["3"]["noc"]) == ["0.80", "0.85", "0.90"]
    assert figures["miou"] is figures["boundary_f"] is None


def test_tables_show_the_figures() -> None:
    text = table(finished(IOUS))
    assert "NoC3    @0.80 2.25  @0.85 2.25  @0.90 2.50  @0.95 2.50" in text
    assert "NoF3    @0.80 2 (1)  @0.85 2 (1)  @0.90 3 (1)  @0.95 3 (3)" in text
    assert "30.0 ms in session.click (median 20.0), 100.0 ms for the whole loop" in text
    (row,) = [line for line in markdown([finished(IOUS)]).splitlines() if line.startswith("| disks")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:10] == ["disks", "tiny", "4", "3", "2.25", "2.25", "2.50", "2.50", "3", "1"]
    milliseconds = ["30.0; 20.0; 28.0", "100.0"]  # 9 of 10 ms, 3 of 20 and 3 of 60 until 0.90, see above
    assert cells[10:] == ["0.537", "0.790", "", "", "", "", *milliseconds, "`0000000000000000`"]


def test_tables_of_a_run_that_stopped_early_leave_gaps() -> None:
    assert "mIoU" not in table(finished(IOUS, until=0.9))
    (row,) = [line for line in markdown([finished(IOUS, until=0.9)]).splitlines() if "| disks" in line]
    assert "| 2.50 |  | 3 | 1 |  |" in row  # NoC@95 and all of mIoU@k


def test_a_page_says_what_its_other_rows_are() -> None:
    fixed = finished(IOUS, method="tiny, all at 64", size=64)
    anchor = finished(IOUS, method="grabcut", long_side=320)
    page = markdown([finished(IOUS, size=None), fixed, anchor])
    assert "`tiny` chooses its input size by the crop; `all at N` has one for every click" in page
    assert "a long side of: `grabcut` 320 px." in page
    alone = markdown([finished(IOUS, size=None)])
    assert "all at N" not in alone
    assert "long side" not in alone


def test_seconds_beside_other_workers_are_no_figures() -> None:
    run = finished(IOUS)
    run["hosts"] = [{**HOST, "workers": 4}]
    page = markdown([run, finished(IOUS)])
    shared, alone = (
        [cell.strip() for cell in line.strip("|").split("|")][-3:-1]
        for line in page.splitlines()
        if line.startswith("| disks")
    )
    assert shared == ["", ""]
    assert all(alone)

    assert "The ms are" in page
    assert not re.search(r"\bms\b", markdown([run, run]))


def test_a_page_has_a_row_for_each_limit() -> None:
    ious = [[0.5] * 20 + [0.95], [0.5] * 21]
    page = markdown([finished(ious, clicks=100)])
    rows = [
        [cell.strip() for cell in line.split("|")[4:11]] for line in page.splitlines() if "| disks" in line
    ]
    assert rows[0] == ["20", "20.00", "20.00", "20.00", "20.00", "2", "2"]
    assert rows[1] == ["100", "60.50", "60.50", "60.50", "60.50", "1", "1"]


@pytest.mark.parametrize(("workers", "shared"), [([1], False), ([4], True), ([1, 4], True), ([None], True)])
def test_tables_say_that_workers_shared_the_machine(workers: list[int | None], shared: bool) -> None:
    run = finished(IOUS)
    run["hosts"] = [{**HOST, "workers": count} for count in workers]
    assert ("several workers, so seconds are not those of one alone" in table(run)) == shared


# Going on


def unfinished(path: Path, **settings: Any) -> None:
    run = finished(IOUS, **settings)
    run.update(complete=False, figures=None, curves=run["curves"][:2])
    write_report(path, [run])


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    unfinished(path)
    run = new_run(dict(SETTINGS), {**HOST, "workers": 2})
    other = new_run({**SETTINGS, "dataset": "squares"}, dict(HOST))
    resume(path, [run, other])
    assert [c["name"] for c in run["curves"]] == ["0", "1"]
    assert [host["workers"] for host in run["hosts"]] == [1, 2]
    assert other["curves"] == []


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(path, [finished(IOUS)])
    run = new_run(dict(SETTINGS), {**HOST, "workers": 2})
    resume(path, [run])
    assert run == finished(IOUS)  # its seconds are of the host that measured them


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data_sha256": "2" * 64}, "data_sha256 '2222"),
        ({"bundle_sha256": "3" * 64}, "bundle_sha256 '3333.* instead of None"),
        ({"clicks": 100}, "tiny on disks with clicks 100 instead of 3"),
        ({"method": "other"}, "other on disks, which was not asked for"),
    ],
)
def test_a_report_of_another_command_is_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    path = tmp_path / "report.json"
    unfinished(path, **settings)
    before = path.read_bytes()
    with pytest.raises(InvalidInputError, match=f"one of another: .*{message}.*give another --json"):
        resume(path, [new_run(dict(SETTINGS), dict(HOST))])
    assert path.read_bytes() == before


def test_a_report_of_another_version_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    unfinished(path)
    monkeypatch.setattr(report, "__version__", "9.0")
    message = f"a report of clickmask 9.0, got one of {__version__}; delete it, or go on with that version"
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        resume(path, [new_run(dict(SETTINGS), dict(HOST))])
    assert len(read_report(path)) == 1  # to compare two versions is what `compare` is for


def broken(change: str) -> Any:
    run = finished(IOUS)
    if change == "few":
        run["curves"].pop()
    elif change == "many":
        run["curves"].append(run["curves"][0])
    elif change == "figures":
        run["figures"] = None
    elif change == "text":
        run["curves"][0]["ious"][0] = "0.9"
    elif change == "null":
        run["curves"][0]["seconds"][0] = None
    elif change == "clicks":
        run["settings"]["clicks"] = "20"
    elif change == "none":
        run["settings"]["objects"], run["curves"] = 0, []
    else:
        run["curves"][1][change] = []
    return run


LISTS = ["ious", "boundary_f", "seconds"]


@pytest.mark.parametrize("change", [*LISTS, "few", "many", "figures", "text", "null", "clicks", "none"])
def test_a_report_that_no_figure_can_be_made_of_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "report.json"
    write_report(path, [broken(change)])
    with pytest.raises(InvalidInputError, match=r"report\.json: expected a report of .clickmask evaluate"):
        read_report(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "[]",
        "{}",
        '{"kind": 1}',
        '{"kind": "clickmask evaluation", "schema": 2, "runs": []}',
        '{"kind": "clickmask evaluation", "schema": 1, "runs": [{"settings": {}, "curves": []}]}',
    ],
)
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=r"report\.json: expected a report of .clickmask evaluate"):
        read_report(path)


def test_a_report_is_written_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    unfinished(path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InvalidInputError, match="No space left"):
        write_report(path, [finished(IOUS)])
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["report.json"]


def test_a_report_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(path, [finished(IOUS)])
    document = json.loads(path.read_text())
    assert document["kind"] == "clickmask evaluation"
    assert read_report(path) == [finished(IOUS)]


# Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar_with_the_time_left() -> None:
    now = [0.0]
    stream = Terminal()
    progress = Progress("disks", 10, 40, stream, lambda: now[0])
    now[0] = 50.0  # ten objects in 50 seconds; the first ten were done before
    progress.update(20)
    assert stream.getvalue().endswith(f"disks  [{'#' * 15}{'.' * 15}] 20/40  1:40 left")
    now[0] = 3700.0
    progress.update(40)
    assert stream.getvalue().endswith("40/40  1:01:40 taken")


def test_a_log_file_sees_a_line_a_minute() -> None:
    now = [0.0]
    stream = io.StringIO()
    progress = Progress("disks", 0, 100, stream, lambda: now[0])
    for done in range(1, 14):
        now[0] = 10.0 * done
        progress.update(done)
    progress.close()
    assert stream.getvalue().splitlines() == ["disks  6/100  15:40 left", "disks  12/100  14:40 left"]
