"""The paired bootstrap, against what statistics says, and the refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reports import finished

from clickmask.cli import main
from clickmask.errors import InvalidInputError
from clickmask.evaluation.compare import compare_runs, paired_bootstrap
from clickmask.evaluation.report import write_report


def test_the_interval_is_that_of_a_mean() -> None:
    # For many independent objects the bootstrap's interval is mean +- 1.96 standard errors.
    differences = np.random.default_rng(1).normal(0.3, 1.0, (400, 1))
    low, high = paired_bootstrap(differences, [str(i) for i in range(400)])
    error = differences.std() / np.sqrt(400)
    assert low[0] == pytest.approx(differences.mean() - 1.96 * error, abs=0.06 * error)
    assert high[0] == pytest.approx(differences.mean() + 1.96 * error, abs=0.06 * error)


def test_objects_of_a_group_count_as_one() -> None:
    # Each value ten times over tells nothing more; drawn apart, the interval would be sqrt(10) narrower.
    values = np.random.default_rng(2).normal(0.0, 1.0, (60, 1))
    low, high = paired_bootstrap(values, [str(i) for i in range(60)])
    groups = [str(i) for i in range(60) for _ in range(10)]
    assert np.array(paired_bootstrap(values.repeat(10, axis=0), groups)) == pytest.approx(
        np.array([low, high])
    )
    apart = paired_bootstrap(values.repeat(10, axis=0), [str(i) for i in range(600)])
    assert (high - low) / (apart[1] - apart[0]) == pytest.approx(np.sqrt(10), rel=0.05)


def test_groups_of_many_objects_weigh_more() -> None:
    differences = np.array([[1.0]] * 9 + [[0.0]])
    low, high = paired_bootstrap(differences, ["many"] * 9 + ["one"])
    assert (low[0], high[0]) == (0.0, 1.0)  # one group alone, at either end
    rng = np.random.default_rng(3)
    middle = [paired_bootstrap(rng.permutation(differences), [str(i) for i in range(10)])[0][0] for _ in "ab"]
    assert all(0.5 < value < 0.9 for value in middle)


def test_equal_reports_differ_by_nothing() -> None:
    run = finished(np.random.default_rng(0).random((30, 3)))
    for row in compare_runs(run, run)["differences"].values():
        assert (row["difference"], row["interval"]) == (0.0, [0.0, 0.0])


def test_pairing_finds_a_small_difference_under_a_large_spread() -> None:
    ious = np.random.default_rng(0).uniform(0.1, 0.9, (50, 3))
    result = compare_runs(finished(ious), finished(ious + 0.01))
    row = result["differences"]["mIoU@3"]
    assert row["a"] == pytest.approx(ious[:, 2].mean())
    assert row["difference"] == pytest.approx(0.01)
    assert row["interval"] == pytest.approx([0.01, 0.01])
    assert result["objects"] == result["groups"] == 50


def test_the_number_of_clicks_is_compared_at_the_lower_limit() -> None:
    ious = np.array([[0.5, 0.6, 0.95]] * 4)
    result = compare_runs(finished(ious, clicks=3), finished(ious, clicks=2))
    assert result["clicks"] == 2
    row = result["differences"]["NoC@0.90"]
    assert (row["a"], row["b"]) == (2, 2)


def test_of_objects_that_stopped_early_the_first_click_is_known() -> None:
    early = [finished([[0.5], [0.7, 0.95]], until=0.9), finished([[0.6], [0.9]], until=0.9)]
    differences = compare_runs(*early)["differences"]
    assert differences["mIoU@1"]["difference"] == pytest.approx(0.15)
    assert not {"mIoU@3", "F@3", "NoC@0.95"} & set(differences)


@pytest.mark.parametrize("untils", [(0.9, 0.95), (0.95, 0.9), (None, 0.9)], ids=str)
def test_clicks_are_compared_to_thresholds_that_both_measured(untils: tuple[float | None, float]) -> None:
    ious = [[0.5, 0.92], [0.7, 0.96]]
    differences = compare_runs(*(finished(ious, until=until) for until in untils))["differences"]
    assert "NoC@0.90" in differences
    assert not {"NoC@0.95", "failures@0.95"} & set(differences)  # at 0.90 one of them stopped


@pytest.mark.parametrize("key", ["data_sha256", "layout"])
def test_other_data_are_refused(key: str) -> None:
    ious = np.full((3, 3), 0.5)
    with pytest.raises(InvalidInputError, match=f"on the same data, got {key} .* and other"):
        compare_runs(finished(ious), finished(ious, **{key: "other"}))


@pytest.fixture
def reports(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    ious = rng.uniform(0.3, 0.8, (40, 3))
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    write_report(paths[0], [finished(ious)])
    anchor = finished(ious / 2, method="grabcut")
    write_report(paths[1], [finished(ious + 0.1), anchor])
    return paths


def test_the_command_prints_differences_and_writes_them(
    reports: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, reports), "--json", str(tmp_path / "out.json")]) == 0
    out = capsys.readouterr().out
    assert "disks: 40 objects in 40 groups, at most 3 clicks; A is tiny, B is tiny" in out
    (line,) = [line for line in out.splitlines() if line.startswith("  mIoU@3 ")]
    assert "+0.100   [+0.100, +0.100]  *" in line
    assert (tmp_path / "out.json").is_file()


@pytest.mark.parametrize("name", ["a.json", "b.json", "folder/../b.json", "."])
def test_no_report_or_folder_is_written_over(
    reports: list[Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = reports[0].parent
    (folder / "folder").mkdir()
    before = [path.read_bytes() for path in reports]
    assert main(["compare", *map(str, reports), "--json", f"{folder}/{name}"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "clickmask: error: --json: expected a" in err
    assert [path.read_bytes() for path in reports] == before


def test_a_method_can_be_chosen(reports: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *map(str, reports), "--method", "tiny", "grabcut"]) == 0
    assert "A is tiny, B is grabcut" in capsys.readouterr().out
    assert main(["compare", *map(str, reports), "--method", "tiny", "snake"]) == 1
    assert "expected one of the methods tiny, grabcut, got 'snake'" in capsys.readouterr().err


def test_an_unfinished_report_is_refused(reports: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(np.full((3, 3), 0.5))
    run.update(complete=False, figures=None)
    write_report(reports[0], [run])
    assert main(["compare", *map(str, reports)]) == 1
    assert "expected finished runs, got 3 of 3 objects of disks" in capsys.readouterr().err


def test_reports_without_a_common_data_set_are_refused(
    reports: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_report(reports[0], [finished(np.full((3, 3), 0.5), dataset="squares")])
    assert main(["compare", *map(str, reports)]) == 1
    assert "expected a data set in both reports, got squares and disks" in capsys.readouterr().err
