"""Pictures in and out of files for the command line: reading, the overlay, and writing all or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .clicks import Click
from .errors import InvalidInputError
from .mask import as_mask
from .whole_files import write_whole

LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".pgm")
"""Formats that keep a mask's two values."""

_TINT = np.array([40, 120, 255], np.float32)  # RGB
_OUTLINE = (255, 255, 0)
_POSITIVE, _NEGATIVE, _RIM = (0, 180, 0), (220, 0, 0), (255, 255, 255)


def read_picture(path: str | os.PathLike[str], name: str = "image") -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    Args:
        path: Where it is.
        name: What to call it in messages.

    Raises:
        InvalidInputError: No such file, not an image that OpenCV reads, or one of more than 8 bits a channel.
    """
    try:
        # Not cv2.imread, which writes to stderr and fails on non-ASCII paths under Windows.
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except OSError as exc:
        raise InvalidInputError(
            f"{name}: expected a readable file, got {str(path)!r}: {exc.strerror}."
        ) from exc
    try:
        depth_as_is = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        picture = cv2.imdecode(data, depth_as_is) if data.size else None
    except cv2.error:
        picture = None
    if picture is None:
        raise InvalidInputError(
            f"{name}: expected a picture that OpenCV reads (JPEG, PNG, TIFF, ...), got {str(path)!r}, which "
            "is not."
        )
    if picture.dtype != np.uint8:  # cut to 8 bits, scans of few of their levels would be black
        raise InvalidInputError(
            f"{name}: expected 8 bits a channel, got {picture.dtype} in {str(path)!r}; scale the levels that "
            "matter to [0, 255] and save it anew."
        )
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def read_mask(path: str | os.PathLike[str], image_size: tuple[int, int], name: str) -> NDArray[np.bool_]:
    """Read a mask of an image as (H, W) bool.

    Args:
        path: Where it is.
        image_size: (width, height) that it must have.
        name: What to call it in messages.

    Raises:
        InvalidInputError: As for ``read_picture``; or coloured, values other than 0 and 255 or 0 and 1, or of
            another size.
    """
    picture = read_picture(path, name)
    try:
        if (picture != picture[..., :1]).any():
            raise InvalidInputError("expected a grey picture of 0 and 255, got one with colours")
        return as_mask(picture[..., 0], image_size)
    except InvalidInputError as exc:
        raise InvalidInputError(f"{name}: {str(path)!r}: {exc}") from exc


def overlay(image: NDArray[np.uint8], mask: NDArray[np.bool_], clicks: Iterable[Click]) -> NDArray[np.uint8]:
    """Draw tint and outline of the mask over a copy of the image; positive clicks green, negative ones red.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool.
        clicks: In image pixels.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    drawn = image.copy()
    drawn[mask] = (0.6 * image[mask] + 0.4 * _TINT).astype(np.uint8)
    short_side = min(image.shape[:2])
    filled = np.pad(mask.astype(np.uint8), 1)  # so that the image's border is an edge as well
    inner = cv2.erode(filled, np.ones((3, 3), np.uint8), iterations=max(1, short_side // 400))
    drawn[mask & (inner[1:-1, 1:-1] == 0)] = _OUTLINE
    radius = max(3, short_side // 100)
    for click in clicks:
        cv2.circle(drawn, click.pixel, radius + max(1, radius // 3), _RIM, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(
            drawn, click.pixel, radius, _POSITIVE if click.positive else _NEGATIVE, cv2.FILLED, cv2.LINE_AA
        )
    return drawn


def check_target(path: str | os.PathLike[str], *, colour: bool) -> None:
    """Refuse a place that ``write_picture`` could not write, before the work that leads to it.

    Args:
        path: Where to.
        colour: Whether the picture will be RGB; else it will be grey.

    Raises:
        InvalidInputError: An ending that OpenCV does not write, or not for such a picture, or a folder that
            does not exist.
    """
    target = Path(path)
    # By trial: OpenCV tells of an ending whether it is known, not whether it takes colour or grey.
    _encoded(target, np.zeros((64, 64, 3) if colour else (64, 64), np.uint8))
    if not os.path.isdir(target.parent):
        raise InvalidInputError(
            f"expected to write {str(target)!r}, got no folder {str(target.parent)!r}; create it first."
        )


def write_picture(path: str | os.PathLike[str], picture: NDArray[np.uint8]) -> None:
    """Write an image file, the format by the name's ending; a failure leaves what was there.

    Args:
        path: Where to.
        picture: (H, W, 3) uint8 RGB or (H, W) uint8 grey.

    Raises:
        InvalidInputError: An ending that OpenCV does not write, or a place that cannot be written.
    """
    target = Path(path)
    write_whole(target, _encoded(target, picture))


def _encoded(target: Path, picture: NDArray[np.uint8]) -> bytes:
    colour = picture.ndim == 3
    pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if colour else picture
    try:
        done, data = cv2.imencode(target.suffix or ".", pixels)
    except cv2.error:
        done = False
    if not done:
        raise InvalidInputError(
            f"expected an image ending such as .png, got {str(target)!r}, which OpenCV cannot write in "
            f"{'colour' if colour else 'grey'}."
        )
    return data.tobytes()
