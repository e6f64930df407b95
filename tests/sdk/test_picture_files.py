"""Pictures from and to files, and masks drawn over them."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from clickmask import picture_files
from clickmask.clicks import Click
from clickmask.errors import InvalidInputError
from clickmask.picture_files import check_target, overlay, read_picture, write_picture


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_picture_comes_through_a_pipe(tmp_path: Path) -> None:
    image = np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3)
    os.mkfifo(tmp_path / "pipe")
    data = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    np.testing.assert_array_equal(read_picture(tmp_path / "pipe"), image)
    writer.join()


def test_picture_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 8:] = 255
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    # An EXIF block of one entry: tag 0x0112, orientation 6 (turn a quarter clockwise to see it upright).
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    block = b"Exif\0\0" + tiff
    (tmp_path / "turned.jpg").write_bytes(
        jpeg[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]
    )

    picture = read_picture(tmp_path / "turned.jpg")

    assert picture.shape == (16, 8, 3)
    assert picture[:6].max() < 50
    assert picture[10:].min() > 200


def test_picture_is_rgb_whatever_the_file_holds(tmp_path: Path) -> None:
    red = np.zeros((4, 5, 4), np.uint8)
    red[..., 2:] = 255  # BGRA
    (tmp_path / "red.png").write_bytes(cv2.imencode(".png", red)[1].tobytes())
    (tmp_path / "grey.png").write_bytes(cv2.imencode(".png", np.full((4, 5), 255, np.uint8))[1].tobytes())

    np.testing.assert_array_equal(read_picture(tmp_path / "red.png")[0, 0], [255, 0, 0])
    np.testing.assert_array_equal(read_picture(tmp_path / "grey.png")[0, 0], [255, 255, 255])


@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
def test_more_than_8_bits_are_not_cut_to_them(tmp_path: Path, channels: tuple[int, ...]) -> None:
    scan = np.full((4, 5, *channels), 1500, np.uint16)  # a level of a CT scan: 5 of 255
    (tmp_path / "scan.png").write_bytes(cv2.imencode(".png", scan)[1].tobytes())
    with pytest.raises(InvalidInputError, match="expected 8 bits a channel, got uint16"):
        read_picture(tmp_path / "scan.png")


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n"], ids=["empty", "header_alone"])
def test_picture_that_is_broken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.png").write_bytes(content)

    with pytest.raises(InvalidInputError, match="a picture that OpenCV reads"):
        read_picture(tmp_path / "broken.png")


def test_picture_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="expected a readable file"):
        read_picture(tmp_path)


def test_overlay_tints_the_mask_outlines_it_and_draws_the_clicks() -> None:
    image = np.full((60, 80, 3), 100, np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[10:50, 10:70] = True
    before = image.copy()

    drawn = overlay(image, mask, [Click(30, 30), Click(2, 2, positive=False)])

    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(drawn[30, 30], [0, 180, 0])
    np.testing.assert_array_equal(drawn[2, 2], [220, 0, 0])
    np.testing.assert_array_equal(drawn[10, 40], [255, 255, 0])
    np.testing.assert_array_equal(drawn[20, 60], [76, 108, 162])
    np.testing.assert_array_equal(drawn[55, 75], [100, 100, 100])


def test_overlay_of_an_empty_mask_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)

    np.testing.assert_array_equal(overlay(image, np.zeros((20, 30), bool), []), image)


def test_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mask.png").write_text("old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(picture_files.os, "replace", full)

    with pytest.raises(InvalidInputError, match="No space left"):
        write_picture(tmp_path / "mask.png", np.zeros((4, 4), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]
    assert (tmp_path / "mask.png").read_text() == "old"


@pytest.mark.parametrize("name", ["picture", "picture.xyz"])
def test_write_with_an_ending_that_means_no_picture(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"expected an image ending such as \.png"):
        write_picture(tmp_path / name, np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize(
    ("name", "colour"), [("a.pgm", True), ("a.pbm", True), ("a.ppm", False), ("a.gif", False)]
)
def test_target_that_cannot_take_the_kind_of_picture(tmp_path: Path, name: str, colour: bool) -> None:
    kind = "colour" if colour else "grey"
    with pytest.raises(InvalidInputError, match=f"{name}', which OpenCV cannot write in {kind}"):
        check_target(tmp_path / name, colour=colour)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff", "jpg", "webp", "jp2"])
@pytest.mark.parametrize("colour", [False, True])
def test_target_that_takes_both_kinds(tmp_path: Path, ending: str, colour: bool) -> None:
    check_target(tmp_path / f"a.{ending}", colour=colour)

    assert not list(tmp_path.iterdir())


def test_write_into_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="expected to write"):
        write_picture(tmp_path / "none" / "mask.png", np.zeros((4, 4), np.uint8))


# info, doctor, evaluate and the command itself
