"""``clickmask evaluate`` from its words to its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import write_indexed
from bundles import make_bundle
from PIL import Image

from clickmask import Segmenter
from clickmask.cli import main
from clickmask.evaluation import command
from clickmask.evaluation.pools import here
from clickmask.evaluation.report import read_report


@pytest.fixture
def words(bundle: Path, dataset: Path) -> list[str]:
    root = str(dataset.parent)
    return [
        "evaluate",
        str(bundle),
        "--root",
        root,
        "--dataset",
        dataset.name,
        "--clicks",
        "4",
        "--threads",
        "1",
    ]


def without_seconds(path: Path) -> list[dict[str, Any]]:
    runs = read_report(path)
    for run in runs:
        run["figures"].pop("seconds_per_click")
        run.pop("hosts")
        for curve in run["curves"]:
            curve.pop("seconds")
            curve.pop("loop_seconds")
    return runs


def test_one_command_writes_everything(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_indexed(tmp_path / "more", 2)
    words.insert(words.index("--clicks"), "more")
    report, page, plot = (tmp_path / name for name in ("r.json", "r.md", "r.png"))
    files = ["--json", str(report), "--markdown", str(page), "--plot", str(plot)]
    assert main([*words, *files, "--anchor", "grabcut"]) == 0

    runs = read_report(report)
    labels = [(run["settings"]["dataset"], run["settings"]["method"]) for run in runs]
    assert labels == [("disks", "fake"), ("disks", "grabcut"), ("more", "fake"), ("more", "grabcut")]
    assert all(run["complete"] for run in runs)
    assert [len(run["curves"]) for run in runs] == [4, 4, 2, 2]
    assert runs[0]["settings"]["data_sha256"] == runs[1]["settings"]["data_sha256"]
    assert runs[0]["settings"]["data_sha256"] != runs[2]["settings"]["data_sha256"]
    assert page.read_text().count("| disks |") == 2
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == ["r-hardest-disks.png", "r-hardest-more.png", "r.png"]
    out = capsys.readouterr().out
    assert "disks: 4 objects, at most 4 clicks each" in out
    assert "  method  grabcut\n" in out


def test_the_protocols_size_is_run_beside_the_bundles_rule(words: list[str], tmp_path: Path) -> None:
    sizes = [64, 384, 640]
    bundle = make_bundle(tmp_path / "b", bias=-0.6, input={"previous_mask": False, "sizes": sizes})
    write_indexed(tmp_path / "DAVIS", 1)
    words[1] = str(bundle)
    words.insert(words.index("--clicks"), "DAVIS")
    report, fixed = tmp_path / "r.json", tmp_path / "fixed.json"
    assert main([*words, "--protocol-size", "--json", str(report)]) == 0
    runs = read_report(report)
    labels = [(run["settings"]["dataset"], run["settings"]["method"]) for run in runs]
    others = [("disks", "fake, all at 384"), ("DAVIS", "fake, all at 640")]  # nearest to 400 and 600
    assert labels == [("disks", "fake"), others[0], ("DAVIS", "fake"), others[1]]
    assert main([*words, "--size", "384", "--json", str(fixed)]) == 0
    same = without_seconds(report)[1]["curves"]
    assert same == without_seconds(fixed)[0]["curves"] != runs[0]["curves"]


def test_host_code_is_trusted_only_when_asked_for(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    load, trusted = Segmenter.load, []

    def watched(*given: Any, **options: Any) -> Segmenter:
        trusted.append(options.get("trust_host_code", False))
        return load(*given, **options)

    monkeypatch.setattr(Segmenter, "load", watched)
    assert main(words) == 0
    assert trusted == [False, False]  # where the options are checked, and where the work is done
    assert main([*words, "--trust-host-code"]) == 0
    assert trusted[2:] == [True, True]


def test_anchors_may_be_kept_to_some_data_sets(words: list[str], tmp_path: Path) -> None:
    write_indexed(tmp_path / "more", 1)
    words.insert(words.index("--clicks"), "more")
    report = tmp_path / "r.json"
    anchors = ["--anchor", "grabcut", "random_walker", "--anchor-on", "more"]
    assert main([*words, *anchors, "--json", str(report)]) == 0
    labels = [(run["settings"]["dataset"], run["settings"]["method"]) for run in read_report(report)]
    assert labels == [("disks", "fake"), ("more", "fake"), ("more", "grabcut"), ("more", "random_walker")]


def test_a_stopped_command_goes_on_and_ends_the_same(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole.json", tmp_path / "stopped.json"
    assert main([*words, "--json", str(whole)]) == 0
    seen: list[str] = []

    def interrupted(task: Any, samples: Any) -> Any:
        for curve in here(task, samples):
            seen.append(curve.name)
            if len(seen) == 3:
                raise KeyboardInterrupt
            yield curve

    monkeypatch.setattr(command, "here", interrupted)
    assert main([*words, "--json", str(stopped)]) == 130
    (run,) = read_report(stopped)
    assert (run["complete"], len(run["curves"])) == (False, 2)
    assert main([*words, "--json", str(stopped)]) == 0
    assert seen == ["a.png", "b.png", "c.png", "c.png", "d.png"]  # the third was lost, nothing else
    assert without_seconds(stopped) == without_seconds(whole)
    monkeypatch.setattr(command, "here", None)
    assert main([*words, "--json", str(stopped)]) == 0  # nothing left to do


def test_workers_write_the_same_report(words: list[str], tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    assert main([*words, "--json", str(one)]) == 0
    assert main([*words, "--json", str(two), "--workers", "2"]) == 0
    assert without_seconds(two) == without_seconds(one)


@pytest.mark.parametrize(("workers", "threads"), [("1", None), ("2", 4), ("3", 2), ("16", 1)])
def test_workers_share_the_cores(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str, threads: int | None
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr(command, "in_processes", lambda task, samples, _: here(task, samples))
    report = tmp_path / "r.json"
    words = words[: words.index("--threads")]
    assert main([*words, "--workers", workers, "--json", str(report)]) == 0
    (run,) = read_report(report)
    assert run["hosts"][0]["threads"] == threads  # of each; None is all, which one worker takes


def test_changed_data_are_refused(
    words: list[str], dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "r.json"
    assert main([*words, "--json", str(report)]) == 0
    with open(dataset / "images/a.png", "ab") as file:
        file.write(b"\0")
    capsys.readouterr()
    assert main([*words, "--json", str(report)]) == 1
    assert "got one of another: fake on disks with data_sha256" in capsys.readouterr().err


def test_a_hundred_clicks_report_both_limits(words: list[str], tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    words[words.index("--clicks") + 1] = "100"
    assert main([*words, "--until", "0.9", "--json", str(report)]) == 0
    figures = json.loads(report.read_text())["runs"][0]["figures"]
    assert list(figures["limits"]) == ["20", "100"]
    assert figures["miou"] is None


def test_a_plot_of_what_is_done_makes_no_click(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, plot = tmp_path / "r.json", tmp_path / "r.png"
    assert main([*words, "--json", str(report)]) == 0
    before = report.read_bytes()
    monkeypatch.setattr(command, "here", None)
    assert main([*words, "--json", str(report), "--plot", str(plot)]) == 0
    assert plot.is_file()
    assert report.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--markdown", "missing/page.md"], "--markdown: expected a file in an existing folder"),
        (["--json", "missing/r.json"], "--json: expected a file in an existing folder"),
        (["--plot", "plot.txt"], "--plot: expected an image ending"),
        (["--clicks", "0"], "--clicks: expected at least 1, got 0"),
        (["--clicks", "101"], "expected at most the 100 that the bundle takes, got 101"),
        (["--workers", "0"], "--workers: expected at least 1, got 0"),
        (["--until", "90"], "--until: expected an IoU of 0.90 to 1, got 90"),
        (["--until", "0.85"], "--until: expected an IoU of 0.90 to 1, got 0.85"),
        (["--dataset", "disks", "disks"], "--dataset: expected each name once, got disks disks"),
        (["--dataset", "nothing"], "nothing does not exist"),
        (["--layout", "davis"], "expected a folder"),
        (["--size", "65"], "65"),
        (["--size", "64", "--protocol-size"], "--protocol-size: expected no --size beside it"),
        (["--anchor-on", "elsewhere"], "--anchor-on: expected one of disks, got elsewhere"),
        (["--json", "."], "--json: expected a file in an existing folder, got ."),
        (["--json", "r", "--markdown", "./r"], "--markdown: expected another file than --json, got r"),
        (["--plot", "r.png", "--markdown", "r.png"], "--plot: expected another file than --markdown"),
        (["--plot", "r.png", "--json", "r-hardest-disks.png"], "--plot: expected another file than --json"),
        (["--plot", "{data}/images/a.png"], "--plot: expected another file than the input"),
        (["--plot", "{data}/masks/a.png"], "--plot: expected another file than the input"),
        (["--markdown", "{bundle}/manifest.json"], "--markdown: expected another file than the input"),
        (["--markdown", "{bundle}/network.onnx"], "--markdown: expected another file than the input"),
        (["--json", "n" * 300], "--json: expected to write nnn"),
        (["--root", "n" * 300], "expected a readable data-set folder"),
    ],
)
def test_what_cannot_work_is_refused_before_the_work(
    words: list[str],
    dataset: Path,
    change: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "here", None)
    change = [word.format(data=dataset, bundle=words[1]) for word in change]
    assert main([*words, *change]) == 1
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def test_truths_that_cannot_be_measured_are_all_named_before_the_work(
    words: list[str], dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "here", None)
    first, second, third = sorted((dataset / "masks").iterdir())[:3]
    Image.fromarray(np.zeros_like(Image.open(first))).save(first)
    picture = dataset / "images" / second.name
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(picture)
    (dataset / "images" / third.name).write_bytes(b"no picture")
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{first.stem}" in err
    assert "got no pixel; " in err
    assert "expected image and mask of one size, got (9, 9)" in err
    assert "expected a picture that OpenCV reads" in err
    assert "mend these" in err
