"""Writes a small folder of images and masks: parts of a photograph of coins, each coin an object."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from skimage import data

COUNT, SIDE = 48, 160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write images/ and masks/ into")
    options = parser.parse_args()
    for name in ("images", "masks"):
        (options.output / name).mkdir(parents=True, exist_ok=True)

    photo = data.coins()  # (303, 384) uint8 grey
    coins = find_coins(photo)
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        top, left = rng.integers(0, photo.shape[0] - SIDE), rng.integers(0, photo.shape[1] - SIDE)
        part = np.s_[top : top + SIDE, left : left + SIDE]
        cv2.imwrite(str(options.output / "images" / f"coin_{index:02}.png"), photo[part])
        cv2.imwrite(str(options.output / "masks" / f"coin_{index:02}.png"), coins[part])
    print(f"wrote {COUNT} images with masks to {options.output}")


def find_coins(photo: np.ndarray) -> np.ndarray:
    """Coins numbered from 1, (H, W) uint8: what is brighter than its surroundings, without specks."""
    smooth = cv2.GaussianBlur(photo, (0, 0), 2)
    ground = cv2.GaussianBlur(photo, (0, 0), 40)
    bright = cv2.morphologyEx((smooth > ground).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    bright = cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((13, 13), np.uint8))
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(bright)
    for label, area in enumerate(statistics[:, cv2.CC_STAT_AREA]):
        if area < 500:
            labels[labels == label] = 0
    return labels.astype(np.uint8)


if __name__ == "__main__":
    main()
