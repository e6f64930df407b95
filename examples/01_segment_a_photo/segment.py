"""Segments a photo with a few scripted clicks, and says how good the mask is and where the time went."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

import clickmask

SCENE = json.loads((Path(__file__).parent / "astronaut.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", help="engine bundle (default: the one that ships with clickmask)")
    parser.add_argument("--output", type=Path, default=Path("out/demo"), help="folder for the pictures")
    options = parser.parse_args()

    image = data.astronaut()  # (512, 512, 3) uint8 RGB
    with stage("load the engine"):
        segmenter = clickmask.Segmenter.load(options.bundle)
    session = segmenter.session(image)
    for number, (x, y, positive) in enumerate(SCENE["clicks"], start=1):
        with stage(f"click {number}, {'positive' if positive else 'negative'} at ({x}, {y})"):
            session.click(x, y, positive)

    options.output.mkdir(parents=True, exist_ok=True)
    with stage("write the pictures"):
        cv2.imwrite(str(options.output / "mask.png"), np.where(session.mask, 255, 0).astype(np.uint8))
        cv2.imwrite(str(options.output / "overlay.png"), overlay(image, session)[..., ::-1])  # cv2 wants BGR

    reference = polygon_mask(SCENE["reference"], session.mask.shape)
    iou = (session.mask & reference).sum() / (session.mask | reference).sum()
    print(f"IoU with the reference drawn by hand: {iou:.3f}")
    print(f"wrote {options.output / 'mask.png'} and {options.output / 'overlay.png'}")


@contextmanager
def stage(name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"{1000 * (time.perf_counter() - start):8.1f} ms  {name}")


def overlay(image: NDArray[np.uint8], session: clickmask.Session) -> NDArray[np.uint8]:
    """The photo with the mask tinted, its outline drawn, and the clicks as dots: green for the object."""
    drawn = image.copy()
    drawn[session.mask] = drawn[session.mask] // 2 + np.array([0, 40, 127], np.uint8)
    for region in session.regions():
        cv2.polylines(drawn, [region.outer, *region.holes], isClosed=True, color=(255, 255, 0))
    for click in session.clicks:
        colour = (0, 200, 0) if click.positive else (220, 0, 0)
        cv2.circle(drawn, (round(click.x), round(click.y)), 5, colour, -1, cv2.LINE_AA)
    return drawn


def polygon_mask(points: list[list[float]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Fills a polygon of (x, y) pixel centres; sub-pixel corners are kept to 1/16."""
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.round(np.array(points) * 16).astype(np.int32)], 1, shift=4)
    return canvas.astype(bool)


if __name__ == "__main__":
    main()
