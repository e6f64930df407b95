"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clickmask.errors import InvalidInputError
from clickmask.whole_files import check_targets, write_whole


def test_a_file_takes_the_place_of_the_one_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_bytes(b"old")

    write_whole(path, b"new")

    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["page.md"]


@pytest.mark.parametrize("place", ["no_folder/page.md", "file/page.md", "folder"])
def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "folder").mkdir()

    with pytest.raises(InvalidInputError, match=place):
        write_whole(tmp_path / place, b"new")

    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("plot", "message"),
    [
        ("photo.png", "--plot: expected another file than the input photo.png, got photo.png; give it"),
        ("folder/../photo.png", "than the input photo.png, got folder/../photo.png"),
        ("link.png", "than the input photo.png, got link.png"),
        ("page.md", "--plot: expected another file than --markdown, got page.md"),
        ("folder", "--plot: expected a file in an existing folder, got folder"),
        (".", r"--plot: expected a file in an existing folder, got \."),
        ("nowhere/plot.png", "--plot: expected a file in an existing folder"),
        ("n" * 300, "--plot: expected to write n+, got: File name too long"),
    ],
    ids=["input", "detour", "link", "twice", "folder", "here", "no_folder", "too_long"],
)
def test_files_that_would_take_anothers_place_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plot: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"mine")
    (tmp_path / "link.png").symlink_to("photo.png")
    (tmp_path / "folder").mkdir()

    with pytest.raises(InvalidInputError, match=message):
        check_targets([("--json", None), ("--markdown", "page.md"), ("--plot", Path(plot))], ["photo.png"])


def test_files_of_their_own_may_be_written_again(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_bytes(b"old")

    check_targets(
        [("--json", tmp_path / "r.json"), ("--markdown", tmp_path / "page.md")], [tmp_path / "a.png"]
    )
