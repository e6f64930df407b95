"""Ordinary mishaps end in a line that says what to do, before the work and with nothing half-written."""

from __future__ import annotations

import argparse
import io
import pickle
from pathlib import Path

import pytest
import torch
from squares import write_set

from clickmask.errors import InvalidInputError
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_training import ablation, average, benchmark_crops, benchmark_sizes, narrow
from clickmask_training.__main__ import main
from clickmask_training.checks import ConfigError
from clickmask_training.command import run_command
from clickmask_training.log import keep_rows
from clickmask_training.run_folder import read_state, write_run


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a state",
        pickle.dumps(Path("x"), protocol=2),
        saved({"step": torch.zeros(9)})[:-200],
        saved([1]),
        saved({"step": 1}),
    ],
    ids=["empty", "text", "code", "cut off", "a list", "a state of something else"],
)
def test_a_damaged_state_is_refused_with_what_to_do(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(data)
    with pytest.raises(ConfigError, match=r"state\.pt: expected the state .* start a new --output$"):
        read_state(tmp_path)
    (tmp_path / "averaged.safetensors").touch()
    with pytest.raises(ConfigError, match=r"--output from .*averaged\.safetensors with --checkpoint$"):
        read_state(tmp_path)


def test_a_run_that_cannot_be_written_leaves_nothing_half_written(tmp_path: Path) -> None:
    network = EncodeOnceCDNet(EncodeOnceConfig(widths=(8, 8, 8, 8), click_widths=(4, 4, 4, 4)))
    (tmp_path / "state.pt").mkdir()
    with pytest.raises(InvalidInputError, match=r"expected to write .*state\.pt"):
        write_run(tmp_path, network, {"step": 1})
    assert {path.name for path in tmp_path.iterdir()} == {"averaged.safetensors", "state.pt"}


@pytest.mark.parametrize("text", [b"a;b\n1;2\n", b"step,loss\nx,1\n", b"\xff\xfe\n"])
def test_a_log_of_something_else_is_refused_and_kept(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=r"log\.csv: expected the log"):
        keep_rows(path, 1)
    assert path.read_bytes() == text


@pytest.fixture
def start(tmp_path: Path) -> list[str]:
    """A new run on the squares, but for --data and --output."""
    write_set(tmp_path / "data/squares")
    (tmp_path / "run.toml").write_text("steps = 1\nmixture.squares = 1\ncrop_sizes.64 = 1")
    return ["--from-scratch", f"--config={tmp_path / 'run.toml'}"]


def test_a_start_that_is_refused_leaves_no_folder(
    start: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main([*start, f"--data={tmp_path}", f"--output={run}"]) == 1
    assert "expected a data-set folder" in capsys.readouterr().err
    assert not run.exists()


def test_a_run_folder_that_is_a_file_is_refused(
    start: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.toml"
    assert main([*start, f"--data={tmp_path / 'data'}", f"--output={config}"]) == 1
    assert f"--output: expected a folder, or a place to make one, got {config}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent/x.safetensors", "expected a file in an existing folder"),
        ("folder.safetensors", "expected a file in an existing folder"),
        ("photo.jpg", "expected a name that ends in .safetensors"),
    ],
)
def test_weights_go_only_where_they_belong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, reason: str
) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    output = f"--output={tmp_path / name}"
    # The other files are absent too, but the place is looked at first: it comes before any work.
    cut = ["--hidden=8", f"--config={tmp_path / 'absent.toml'}", f"--data={tmp_path}"]
    for command, words in ((average.main, ["a", "b"]), (narrow.main, ["a", *cut])):
        assert command([*words, output]) == 1
        assert f"--output: {reason}, got {tmp_path / name}" in capsys.readouterr().err
    assert (tmp_path / "photo.jpg").read_bytes() == b"photo"


def test_reports_that_could_not_be_written_are_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "absent"
    bench = [f"--root={absent}", "--dataset=x"]
    training = [f"--config={absent}", f"--data={absent}", f"--output={tmp_path}", "--steps=1"]
    for command, words, options in (
        (benchmark_sizes.main, ["default", f"--data={absent}"], ("json", "markdown")),
        (benchmark_crops.main, ["default", f"--data={absent}"], ("json", "markdown")),
        (ablation.main, ["run-time", "default", *bench], ("json", "markdown")),
        (ablation.main, ["training", *training, *bench], ("markdown",)),
    ):
        for option in options:
            assert command([*words, f"--{option}={absent / 'x'}"]) == 1
            expected = f"--{option}: expected a file in an existing folder, got {absent / 'x'}"
            assert expected in capsys.readouterr().err


def test_a_disk_that_fails_is_a_line_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(argparse.Namespace(run=lambda _: (tmp_path / "absent/log.csv").open("a"))) == 1
    assert "log.csv" in capsys.readouterr().err
