"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clickmask.errors import InvalidInputError
from clickmask.whole_files import write_whole


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
