"""A contact sheet of training samples: what the network was shown, and what it made of it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clickmask.clicks import Click
from clickmask.evaluation.truths import IGNORED
from clickmask.picture_files import overlay, write_picture

_MOST, _CELL, _GAP = 8, 192, 4


class Seen(NamedTuple):
    """A step's samples as the network saw them.

    Attributes:
        image: (B, 3, H, W) in [0, 1].
        mask: (B, 1, H, W) of 0, 1, 255.
        clicks: (B, M, 3), corrective ones included.
        previous_mask: (B, 1, H, W).
        logits: (B, 1, H, W).
    """

    image: Tensor
    mask: Tensor
    clicks: Tensor
    previous_mask: Tensor
    logits: Tensor


def write_preview(path: Path, seen: Seen) -> None:
    """Writes up to eight samples as columns: the truth, the previous mask, the prediction with the clicks."""
    columns = [_column(seen, index) for index in range(min(_MOST, len(seen.image)))]
    gap = np.full((columns[0].shape[0], _GAP, 3), 255, np.uint8)
    joined = [part for column in columns for part in (column, gap)][:-1]
    write_picture(path, np.concatenate(joined, axis=1))


def _column(seen: Seen, index: int) -> NDArray[np.uint8]:
    levels = seen.image[index].float().cpu().numpy().transpose(1, 2, 0) * 255
    image = np.ascontiguousarray(np.round(levels).astype(np.uint8))
    height, width = image.shape[:2]
    rows = seen.clicks[index].float().cpu().numpy()
    clicks = [Click(float(x), float(y), label == 1) for x, y, label in rows if label >= 0]
    truth = seen.mask[index, 0].cpu().numpy()
    pictures = (
        overlay(image, truth == 1, []),
        overlay(image, seen.previous_mask[index, 0].float().cpu().numpy() > 0.5, []),
        overlay(image, (seen.logits[index, 0].float().cpu().numpy() > 0) & (truth != IGNORED), clicks),
    )
    size = (_CELL, max(1, round(_CELL * height / width)))
    gap = np.full((_GAP, _CELL, 3), 255, np.uint8)
    small = [np.asarray(cv2.resize(p, size, interpolation=cv2.INTER_AREA), np.uint8) for p in pictures]
    return np.concatenate([small[0], gap, small[1], gap, small[2]], axis=0)
