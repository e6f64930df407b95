"""Data sets out of packages: archives made here, in small, with the layouts of the real ones."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from clickmask.evaluation.datasets import read_dataset
from clickmask_training.checks import ConfigError
from clickmask_training.elsewhere import gather, main
from clickmask_training.elsewhere_sources import (
    SOURCES,
    UNKNOWN,
    Scene,
    Source,
    fluorescence,
    imgaug,
    imgviz,
    labelme,
    numbered,
)

PHOTO = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)


def picture(pixels: np.ndarray, ending: str = ".png") -> bytes:
    return bytes(cv2.imencode(ending, pixels)[1])


def rectangle(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def filled(*boxes: tuple[int, int, int, int, int]) -> np.ndarray:
    """The same by slices: (number, left, top, right, bottom), the later ones on top."""
    out = np.zeros((20, 30), np.int32)
    for number, left, top, right, bottom in boxes:
        out[top:bottom, left:right] = number
    return out


def shape(label: str, *box: int, group: int | None = None) -> dict[str, object]:
    return {"label": label, "points": rectangle(*box), "group_id": group}


def labelme_file(*shapes: dict[str, object]) -> bytes:
    return json.dumps({"imageWidth": 30, "imageHeight": 20, "shapes": shapes}).encode()


def test_labelme_s_polygons_lie_on_top_of_each_other_and_form_groups() -> None:
    truth = labelme_file(
        shape("shelf", 0, 0, 30, 20),
        shape("cup", 2, 3, 12, 13),
        shape("sofa", 10, 3, 20, 8, group=0),
        shape("cup", 14, 10, 18, 19),
        shape("sofa", 22, 12, 26, 19, group=0),
        shape("__ignore__", 24, 0, 28, 6),
    )
    kept, labels = labelme(b"as it is", truth, without=("shelf",))
    assert kept == b"as it is"
    boxes = [(1, 2, 3, 12, 13), (2, 10, 3, 20, 8), (3, 14, 10, 18, 19), (2, 22, 12, 26, 19)]
    np.testing.assert_array_equal(labels, filled(*boxes, (UNKNOWN, 24, 0, 28, 6)))


def test_imgaug_s_polygons() -> None:
    corners = [{"x": x, "y": y} for x, y in rectangle(4, 5, 20, 15)]
    truth = json.dumps({"polygons": [{"keypoints": corners}], "keypoints": [{"x": 1, "y": 1}]}).encode()
    _, labels = imgaug(picture(PHOTO), truth)
    np.testing.assert_array_equal(labels, filled((1, 4, 5, 20, 15)))


def test_a_hidden_part_is_not_the_object() -> None:
    masks = np.zeros((2, 20, 30), np.int32)
    masks[0, 2:10, 3:9] = 1
    masks[1, 2:10, 9:15] = 1
    masks[1, 2:10, 6:9] = 2
    file = io.BytesIO()
    np.savez(file, rgb=PHOTO, masks=masks)
    kept, labels = imgviz(file.getvalue(), b"")
    np.testing.assert_array_equal(labels, filled((1, 3, 2, 9, 10), (2, 9, 2, 15, 10)))
    decoded = cv2.imdecode(np.frombuffer(kept, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded[:, :, ::-1], PHOTO)


@pytest.mark.parametrize(("dtype", "ending"), [("uint8", ".png"), ("uint16", ".tiff"), ("float64", ".tiff")])
def test_levels_that_number_the_objects(dtype: str, ending: str) -> None:
    boxes = [(7, 1, 1, 5, 5), (3, 8, 1, 14, 9), (9, 20, 10, 28, 18)]
    truth = picture(filled(*boxes).astype(dtype), ending)
    _, labels = numbered(b"", truth)
    np.testing.assert_array_equal(labels, filled((2, 1, 1, 5, 5), (1, 8, 1, 14, 9), (3, 20, 10, 28, 18)))
    _, labels = numbered(b"", truth, every=2)
    np.testing.assert_array_equal(labels, filled((1, 8, 1, 14, 9), (2, 20, 10, 28, 18)))


def test_a_dim_16_bit_picture_becomes_visible() -> None:
    levels = np.array([[0, 100], [50, 200]], np.uint16)
    kept, labels = fluorescence(picture(levels, ".tiff"), picture(np.eye(2, dtype=np.uint16), ".tiff"), 1)
    decoded = cv2.imdecode(np.frombuffer(kept, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded, [[0, 128], [64, 255]])
    np.testing.assert_array_equal(labels, [[1, 0], [0, 1]])


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A wheel with one picture of two objects, and a source archive with one of an object and doubt."""
    folder = tmp_path / "packages"
    folder.mkdir()
    with zipfile.ZipFile(folder / "first-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("first/a.jpg", picture(PHOTO, ".jpg"))
        wheel.writestr("first/a.png", LEVELS)
    with tarfile.open(folder / "second-2.0.tar.gz", "w:gz") as tar:
        for name, data in (("second-2.0/b.png", picture(PHOTO)), ("second-2.0/b.json", POLYGONS)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return folder


LEVELS = picture(filled((1, 1, 1, 5, 5), (2, 8, 1, 14, 9)).astype(np.uint8))
POLYGONS = labelme_file(shape("cup", 2, 3, 12, 13), shape("__ignore__", 20, 3, 25, 13))
TABLE = (
    Source(
        "first",
        "first==1.0",
        "first-1.0-*.whl",
        [
            Scene(
                "a.jpg",
                partial(numbered, every=1),
                ("first/a.jpg", digest(picture(PHOTO, ".jpg"))),
                ("first/a.png", digest(LEVELS)),
            )
        ],
    ),
    Source(
        "second",
        "second==2.0",
        "second-2.0.tar.gz",
        [
            Scene(
                "b.png",
                labelme,
                ("second-2.0/b.png", digest(picture(PHOTO))),
                ("second-2.0/b.json", digest(POLYGONS)),
            )
        ],
    ),
)


def test_evaluate_reads_what_was_gathered(packages: Path, tmp_path: Path) -> None:
    assert gather(packages, tmp_path / "data", TABLE) == {"first": 2, "second": 1, "elsewhere": 3}
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["data", "packages"]  # nothing left over
    for name, wanted in (("first", ["a-1.png", "a-2.png"]), ("elsewhere", ["a-1.png", "a-2.png", "b-1.png"])):
        samples = read_dataset(tmp_path / "data" / name)
        assert [sample.name for sample in samples] == wanted
    one, two, cup = (sample.truth() for sample in read_dataset(tmp_path / "data/elsewhere"))
    np.testing.assert_array_equal(one[0], filled((1, 1, 1, 5, 5)) == 1)
    np.testing.assert_array_equal(two[0], filled((1, 8, 1, 14, 9)) == 1)
    np.testing.assert_array_equal(cup[0], filled((1, 2, 3, 12, 13)) == 1)
    np.testing.assert_array_equal(cup[1], filled((1, 20, 3, 25, 13)) == 1)
    np.testing.assert_array_equal(samples[2].image(), PHOTO[:, :, ::-1])
    instances = json.loads((tmp_path / "data/second/instances.json").read_text())
    masks = {"b-1.png": {"1": {"area": 100, "bbox": [2, 3, 12, 13]}}}
    assert instances == {"b.png": {"size": [30, 20], "masks": masks}}


def test_what_is_missing_or_another_is_named(packages: Path, tmp_path: Path) -> None:
    output = tmp_path / "data"
    (wheel,) = packages.glob("*.whl")
    good = wheel.read_bytes()
    with zipfile.ZipFile(wheel, "w") as other:
        other.writestr("first/a.jpg", b"another")
    with pytest.raises(ConfigError, match=r"first/a.jpg: expected sha256 .*, got .*: another version"):
        gather(packages, output, TABLE)
    with zipfile.ZipFile(wheel, "w") as other:
        other.writestr("first/b.jpg", b"")
    with pytest.raises(ConfigError, match=r"expected a file first/a.jpg in it, got none"):
        gather(packages, output, TABLE)
    wheel.write_bytes(good[:100])
    with pytest.raises(ConfigError, match=r"expected a readable archive, got .*; download it again"):
        gather(packages, output, TABLE)
    wheel.unlink()
    with pytest.raises(ConfigError, match=r"expected first-1.0-\*.whl in .*; download first==1.0 into it"):
        gather(packages, output, TABLE)
    wheel.write_bytes(good)
    (packages / "second-2.0.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ConfigError, match=r"second-2.0.tar.gz: expected a readable archive"):
        gather(packages, output, TABLE)
    assert [path.name for path in tmp_path.iterdir()] == ["packages"]  # each time nothing half-written


def test_places_that_do_not_serve_are_refused(packages: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a folder that does not exist yet, got .*; remove it"):
        gather(packages, tmp_path, TABLE)
    with pytest.raises(ConfigError, match=r"--output: expected a place in an existing folder, got"):
        gather(packages, tmp_path / "no/data", TABLE)
    with pytest.raises(ConfigError, match=r"--packages: expected a folder of downloaded packages, got"):
        gather(tmp_path / "no", tmp_path / "data", TABLE)


def test_the_command_ends_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--packages", str(tmp_path), "--output", str(tmp_path / "data")]
    assert main(words) == 1
    assert "download imgaug==0.4.0 into it" in capsys.readouterr().err


def test_the_table_names_each_picture_once() -> None:
    names = [scene.name.partition(".")[0] for source in SOURCES for scene in source.scenes]
    assert len({*names}) == len(names)  # in one data set they lie side by side
