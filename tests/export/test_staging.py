"""All or nothing: whatever happens, the output is the old bundle, the new one, or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from clickmask_export import staging
from clickmask_export.errors import OutputError
from clickmask_export.staging import staged


def old_bundle(path):
    path.mkdir()
    (path / "manifest.json").write_text("old")
    (path / "model.onnx").write_text("old weights")
    return path


def fill(folder):
    (folder / "model.onnx").write_text("new weights")
    (folder / staging.UNVERIFIED).write_text("new")


def content(path):
    return {file.name: file.read_text() for file in path.iterdir()}


def test_a_bundle_appears_whole(tmp_path):
    output = tmp_path / "deep" / "mine"
    with staged(output, force=False) as folder:
        fill(folder)
        assert not output.exists()
        assert folder.name == "mine"
    assert content(output) == {"model.onnx": "new weights", "manifest.json": "new"}
    assert os.listdir(output.parent) == ["mine"]


def test_force_replaces_a_bundle(tmp_path):
    output = old_bundle(tmp_path / "mine")
    with staged(output, force=True) as folder:
        fill(folder)
        assert content(output)["manifest.json"] == "old"
    assert content(output) == {"model.onnx": "new weights", "manifest.json": "new"}
    assert os.listdir(tmp_path) == ["mine"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_leaves_what_was_there(tmp_path, failure, existing):
    output = old_bundle(tmp_path / "mine") if existing else tmp_path / "mine"

    def fail():
        with staged(output, force=True) as folder:
            fill(folder)
            raise failure

    with pytest.raises(failure):
        fail()
    assert os.listdir(tmp_path) == (["mine"] if existing else [])
    assert not existing or content(output)["model.onnx"] == "old weights"


@pytest.mark.parametrize("move", [1, 2, 3])  # the manifest's name, the old aside, the new in
def test_a_failure_while_moving_in_leaves_the_old_bundle(tmp_path, monkeypatch, move):
    output = old_bundle(tmp_path / "mine")
    moves, replace = [], os.replace

    def failing(source, target):
        moves.append(source)
        if len(moves) == move:
            raise OSError("disk on fire")
        replace(source, target)

    monkeypatch.setattr(staging.os, "replace", failing)
    with pytest.raises(OSError, match="on fire"), staged(output, force=True) as folder:
        fill(folder)
    assert os.listdir(tmp_path) == ["mine"]
    assert content(output)["manifest.json"] == "old"


def test_a_bundle_that_appeared_meanwhile_is_not_overwritten(tmp_path):
    output = tmp_path / "mine"

    def race():
        with staged(output, force=False) as folder:
            fill(folder)
            old_bundle(output)

    with pytest.raises(OutputError, match="add --force"):
        race()
    assert content(output)["manifest.json"] == "old"


@pytest.mark.parametrize("moment", ["before the manifest", "before the move", "between the moves"])
def test_a_killed_build_leaves_nothing_at_the_output_that_is_half_a_bundle(tmp_path, moment):
    """SIGKILL: no handler runs."""
    output = old_bundle(tmp_path / "mine")
    script = f"""
        import os, signal, sys
        from pathlib import Path
        from clickmask_export import staging
        die = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
        with staging.staged(Path(sys.argv[1]), force=True) as folder:
            (folder / "model.onnx").write_text("new weights")
            if {moment!r} == "before the manifest":
                die()
            (folder / staging.UNVERIFIED).write_text("new")
            if {moment!r} == "before the move":
                die()
            moves, replace = [], os.replace
            def counting(*a):
                moves.append(a)
                die() if len(moves) == 3 else replace(*a)
            os.replace = counting
    """
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(output)], env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == -9
    visible = [name for name in os.listdir(tmp_path) if not name.startswith(".")]
    hidden = [name for name in os.listdir(tmp_path) if name.startswith(".mine.")]
    if moment == "between the moves":  # the old bundle is set aside, whole
        assert visible == []
        aside = next(tmp_path / name for name in hidden if "replaced" in name)
        assert content(aside) == {"manifest.json": "old", "model.onnx": "old weights"}
    else:
        assert visible == ["mine"]
        assert content(output)["manifest.json"] == "old"
        assert not list(tmp_path.glob(".mine.building-*/mine/manifest.json"))  # nothing that would load


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: old_bundle(path), "add --force"),
        (lambda path: path.write_text("x"), "got a file or link"),
        (lambda path: path.symlink_to(path.parent), "got a file or link"),
        (lambda path: (path / "photos").mkdir(parents=True), "other things in it"),
    ],
)
def test_places_that_are_taken(tmp_path, prepare, message):
    prepare(tmp_path / "mine")
    with pytest.raises(OutputError, match=message), staged(tmp_path / "mine", force=False):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("name", ["mine.safetensors", "src", "src.onnx", "README.md", "background.ts"])
def test_force_never_deletes_what_no_build_wrote(tmp_path, name):
    """A web application has a manifest.json too."""
    output = old_bundle(tmp_path / "mine")
    (output / name).mkdir() if name.startswith("src") else (output / name).write_text("work")
    with pytest.raises(OutputError, match=f"such as '{name}'"), staged(output, force=True):
        pass
    assert (output / name).exists()


def test_force_never_deletes_a_folder_that_is_no_bundle(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="other things"), staged(tmp_path / "home", force=True):
        pass
    assert (tmp_path / "home" / "thesis.tex").exists()


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "mine").mkdir()
    with staged(tmp_path / "mine", force=False) as folder:
        fill(folder)
    assert content(tmp_path / "mine")["manifest.json"] == "new"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(OutputError, match="expected to write in"),
        staged(tmp_path / "file" / "mine", force=False),
    ):
        pass
