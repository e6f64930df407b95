"""The ``clickmask`` command from its words to its files, messages and exit status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundles import DIFFUSION, make_bundle
from sessions import make_segmenter

from clickmask import Segmenter, __version__, bundle, cli
from clickmask.picture_files import read_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle whose mask is where the image's mean is above 0.25: each positive click adds 0.25."""
    return make_bundle(tmp_path / "bundle", bias=-0.5, input={"previous_mask": False})


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """80 x 60: left half black, right half white."""
    image = np.zeros((60, 80, 3), np.uint8)
    image[:, 40:] = 255
    path = tmp_path / "photo.png"
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    """The single line on stderr; nothing on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("clickmask: error: ")
    return err


# segment


def test_segment_writes_mask_and_overlay(
    folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, drawn = tmp_path / "mask.png", tmp_path / "overlay.png"

    status = run("segment", folder, photo, "--click", "60,30", "--out", out, "--overlay", drawn)

    mask = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    assert status == 0
    assert mask.shape == (60, 80)
    assert set(np.unique(mask)) == {0, 255}
    assert not mask[:, :38].any()
    assert mask[:, 42:].all()
    assert read_picture(drawn).shape == (60, 80, 3)
    text = capsys.readouterr().out
    assert "pixels after 1 click(s), onnxruntime on cpu" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bundle",
        "mask.png",
        "overlay.png",
        "photo.png",
    ]


def test_segment_takes_negative_clicks_and_options(folder: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "mask.png"
    words = ["--click", "60,30", "--click", "5.5,30,-", "--crop-policy", "none", "--size", "96"]

    assert (
        run("segment", folder, photo, *words, "--backend", "onnxruntime", "--device", "cpu", "--out", out)
        == 0
    )

    assert out.exists()


def test_segment_writes_the_mask_of_objects_and_background(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the fake backend a background click takes its disk out of the mask; with `folder` it does nothing.
    monkeypatch.setattr(Segmenter, "load", lambda *_, **__: make_segmenter())
    out = tmp_path / "mask.png"

    assert run("segment", "fake", photo, "--click", "40,30", "--click", "46,30,-", "--out", out) == 0

    expected = make_segmenter().predict(read_picture(photo), [(40, 30, True), (46, 30, False)])
    np.testing.assert_array_equal(cv2.imread(str(out), cv2.IMREAD_UNCHANGED) == 255, expected)


@pytest.mark.parametrize("word", ["default", "-"])
def test_segment_finds_the_default_bundle(
    folder: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setattr(bundle, "default_bundle_path", lambda: folder)

    assert run("segment", word, photo, "--click", "1,1", "--out", tmp_path / "mask.png") == 0


def test_segment_without_an_output_is_a_wrong_command_line(folder: Path, photo: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("segment", folder, photo, "--click", "1,1")


@pytest.mark.parametrize("click", ["", "1", "1,2,3,4", "1,x", "1,2,*", "nan,2", "1,inf"])
def test_segment_with_a_wrong_click_is_a_wrong_command_line(
    folder: Path, photo: Path, click: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("segment", folder, photo, f"--click={click}", "--out", "mask.png")

    assert "expected X,Y or X,Y,- with numbers" in capsys.readouterr().err


def test_segment_begins_from_a_mask(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Segmenter, "load", lambda *_, **__: make_segmenter(echo=True))
    start, out = np.zeros((60, 80), np.uint8), tmp_path / "mask.png"
    start[34:46, 44:50] = 255
    cv2.imwrite(str(tmp_path / "start.png"), start)

    assert run("segment", "f", photo, "--mask", tmp_path / "start.png", "--click", "60,40", "--out", out) == 0

    session = make_segmenter(echo=True).session(read_picture(photo))
    without = session.click(60, 40)
    session.set_mask(start)
    expected = session.click(60, 40)
    assert not np.array_equal(expected, without)
    np.testing.assert_array_equal(cv2.imread(str(out), cv2.IMREAD_UNCHANGED) == 255, expected)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((60, 80), 7, np.uint8), "uint8 of 0 and 1 or of 0 and 255"),
        (np.dstack([np.full((60, 80), v, np.uint8) for v in (0, 0, 255)]), "got one with colours"),
        (np.zeros((60, 81), np.uint8), "image's shape (60, 80), but got (60, 81)"),
        (np.full((60, 80), 65535, np.uint16), "expected 8 bits a channel, got uint16"),
        (None, "No such file"),
    ],
    ids=["levels", "colours", "shape", "deep", "missing"],
)
def test_segment_tells_of_a_mask_that_is_none(
    photo: Path,
    tmp_path: Path,
    pixels: np.ndarray | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Segmenter, "load", lambda *_, **__: pytest.fail("a network was loaded first"))
    start = tmp_path / "start.png"
    if pixels is not None:
        cv2.imwrite(str(start), pixels)

    assert run("segment", "f", photo, "--mask", start, "--click", "1,1", "--out", tmp_path / "m.png") == 1

    error = one_error(capsys)
    assert error.startswith("clickmask: error: --mask: ")
    assert message in error
    assert not (tmp_path / "m.png").exists()


def test_segment_takes_no_empty_name_for_no_mask(
    folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("segment", folder, photo, "--mask", "", "--click", "1,1", "--out", tmp_path / "m.png") == 1
    assert "--mask: expected a readable file, got ''" in one_error(capsys)


def test_segment_writes_over_no_mask_that_it_reads(
    folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = tmp_path / "start.png"
    assert run("segment", folder, photo, "--mask", start, "--click", "1,1", "--out", start) == 1
    assert "expected another file" in one_error(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--click", "80,10"], "80"),
        (["--click", "1,1", "--device", "gpu"], "device: expected"),
        (["--click", "1,1", "--backend", "torchscript"], "expected an artefact for backend='torchscript'"),
        (["--click", "1,1", "--size", "65"], "65"),
    ],
    ids=["click_outside", "device", "backend", "size"],
)
def test_segment_reports_what_cannot_be_done(
    folder: Path,
    photo: Path,
    tmp_path: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("segment", folder, photo, *words, "--out", tmp_path / "mask.png") == 1

    assert message in one_error(capsys)
    assert not (tmp_path / "mask.png").exists()


def test_segment_without_the_image(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("segment", folder, tmp_path / "no.png", "--click", "1,1", "--out", tmp_path / "mask.png") == 1

    assert "expected a readable file" in one_error(capsys)


def test_segment_of_a_file_that_is_no_picture(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.png").write_text("no picture")

    assert (
        run("segment", folder, tmp_path / "notes.png", "--click", "1,1", "--out", tmp_path / "mask.png") == 1
    )

    assert "a picture that OpenCV reads" in one_error(capfd)


@pytest.mark.parametrize(
    ("out", "overlay", "message"),
    [
        ("mask.jpg", None, "--out: expected an ending of .png"),
        ("none/mask.png", None, "--out: expected to write '{}/none/mask.png', got no folder '{}/none'"),
        ("mask.png", "none/drawn.png", "--overlay: expected to write '{}/none/drawn.png', got no folder"),
        ("mask.png", "drawn.xyz", "--overlay: expected an image ending such as .png, got '{}/drawn.xyz'"),
        (None, "drawn", "--overlay: expected an image ending such as .png"),
        ("mask.png", "drawn.pgm", "drawn.pgm', which OpenCV cannot write in colour"),
        ("mask.png", "bundle/../mask.png", "--overlay: expected another file than --out"),
        ("photo.png", None, "--out: expected another file than the input"),
        ("mask.png", "bundle/../photo.png", "--overlay: expected another file than the input"),
        ("folder.png", None, "--out: expected a file in an existing folder, got {}/folder.png"),
    ],
    ids=[
        "lossy",
        "out_folder",
        "overlay_folder",
        "overlay_ending",
        "no_ending",
        "grey_only",
        "same_file",
        "out_over_photo",
        "overlay_over_photo",
        "folder",
    ],
)
def test_segment_checks_where_to_write_before_it_loads_anything(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    out: str | None,
    overlay: str | None,
    message: str,
) -> None:
    monkeypatch.setattr(cli, "read_picture", lambda _: pytest.fail("a picture was read"))
    named = [
        word
        for flag, name in (("--out", out), ("--overlay", overlay))
        if name
        for word in (flag, tmp_path / name)
    ]

    (tmp_path / "folder.png").mkdir()

    assert run("segment", folder, tmp_path / "photo.png", "--click", "1,1", *named) == 1

    assert message.format(tmp_path, tmp_path) in one_error(capsys)


def test_segment_takes_a_negative_coordinate_as_its_help_says(
    folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        run("segment", "--help")

    assert "--click=-0.4,1" in "".join(capsys.readouterr().out.split())
    assert run("segment", folder, photo, "--click=-0.4,1", "--out", tmp_path / "mask.png") == 0


def test_segment_without_a_bundle(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("segment", tmp_path / "none", photo, "--click", "1,1", "--out", tmp_path / "mask.png") == 1

    assert "expected a bundle folder" in one_error(capsys)


def test_info_is_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", folder) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "fake"]
    assert any(
        line.startswith("artefact 1") and "onnxruntime fp32 for any: network.onnx" in line for line in lines
    )
    starts = {len(line) - len(line[16:].lstrip()) for line in lines}
    assert len(starts) == 1


def test_info_names_both_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", make_bundle(tmp_path, local_network=True)) == 0

    text = " ".join(capsys.readouterr().out.split())
    assert "pipeline network -> local_network" in text
    assert "local network fake_local.safetensors (sha256 000000000000...)" in text


def test_info_says_what_does_pixel_diffusion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", make_bundle(tmp_path, pixel_diffusion=DIFFUSION)) == 0

    text = " ".join(capsys.readouterr().out.split())
    assert "pipeline network -> pixel_diffusion" in text
    assert "pixel diffusion 10 iterations; on a CPU of this machine: graph (pixel_diffusion: expected" in text


def test_info_as_json_is_the_manifest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", folder, "--json") == 0

    assert json.loads(capsys.readouterr().out) == json.loads((folder / "manifest.json").read_text())


def test_info_of_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", tmp_path) == 1

    assert "not a bundle" in one_error(capsys)


@pytest.mark.parametrize("command", ["info", "doctor"])
def test_bundle_whose_name_is_too_long(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "n" * 300) == 1

    out, err = capsys.readouterr()
    assert "expected a bundle folder, got 'nnn" in out + err
    assert "File name too long" in out + err


def test_doctor_of_a_bundle_that_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", folder) == 0

    assert capsys.readouterr().out.endswith("This bundle runs here.\n")


def test_doctor_of_a_bundle_that_does_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "network.onnx").unlink()

    assert run("doctor", folder) == 1

    out, err = capsys.readouterr()
    assert "problem  bundle" in out
    assert "it is missing" in out
    assert err == ""


def test_evaluate_is_left_to_its_own_module(monkeypatch: pytest.MonkeyPatch) -> None:
    command = types.ModuleType("clickmask.evaluation.command")
    command.add_arguments = lambda parser: parser.add_argument("--noc")  # type: ignore[attr-defined]
    command.run = lambda options: int(options.noc)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "clickmask.evaluation.command", command)
    import clickmask.evaluation

    monkeypatch.setattr(clickmask.evaluation, "command", command, raising=False)

    assert run("evaluate", "--noc", "7") == 7


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run("--version")

    assert capsys.readouterr().out == f"clickmask {__version__}\n"


@pytest.mark.parametrize("words", [[], ["paint"], ["info"], ["segment", "a", "b"], ["compare", "a"]])
def test_wrong_command_line_is_status_2(words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(*words)


@pytest.mark.parametrize("command", ["segment", "info", "doctor", "evaluate", "compare"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(command, "--help")

    assert f"usage: clickmask {command}" in capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run("--help")

    named = re.findall(r"^    (\w+)", capsys.readouterr().out, re.MULTILINE)
    assert named == ["segment", "info", "doctor", "evaluate", "compare"]  # those of the test above


def test_interrupt_is_no_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "examine", interrupt)

    assert run("doctor", folder) == 130
    assert capsys.readouterr().err == "clickmask: stopped\n"


def test_python_m_clickmask_is_the_command(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run(
        [sys.executable, "-m", "clickmask", "info", str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("clickmask: error: ")
    assert done.stderr.count("\n") == 1


def test_a_name_that_the_console_cannot_show_ends_no_command(tmp_path: Path) -> None:
    (tmp_path / "\u65e5\u672c").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "clickmask", "doctor", "\u65e5\u672c"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "cp437:strict"},
        capture_output=True,
        text=True,
        encoding="cp437",
    )
    assert "Traceback" not in done.stderr
    assert "\\u65e5\\u672c" in done.stdout
