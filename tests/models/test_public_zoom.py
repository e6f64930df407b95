"""With our crop rules the public predictors of RITM and CSFPN do what was recorded of them.

They run a network on rectangles of any size, which a session does not (docs/decisions/0006), so their way
around the network is written out here in torch: native size or a long side of 400, corners aligned, flips
averaged. What is proven is `next_box`, when each policy asks for it, and what each pass is told.

Two differences are on purpose. They cut a box at the image's edge and leave it smaller than the least side,
we move it inside: `cut_box` is our rule far from any edge, cut. And when the last mask is empty they look at
the whole image, but paste what they find into the box of an earlier click, as `look` can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import Recording
from public_files import official_network
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch_backend import mirrored

from clickmask.clicks import Click
from clickmask.crop import CropPolicy, next_box
from clickmask.mask import mask_box
from clickmask.view import Box

CASE = 1  # whose clicks the predictors were given, one by one
LONG_SIDE = 400
FAR = 1000
CSFPN = CropPolicy("global_to_local", start_click=1, expansion=1.4, small_object_expansion=2.5, min_size=1)


@torch.inference_mode()
def recorded_network(folder: Path, recording: Recording, delta: float) -> nn.Module:
    """With the recording's ``bias_delta``, which makes masks small, so that crops happen."""
    network = official_network(folder, recording)
    network.ocr.cls_head.bias += float(delta)
    return network


@torch.inference_mode()
def look(
    network: nn.Module, image: Tensor, clicks: Tensor, told: Tensor, seen: Box, long_side: int, pasted: Box
) -> Tensor:
    """(1, 1, H, W) probability of one pass; ``told`` is the one before, of the same shape."""
    rows, columns = seen.slices
    scale = long_side / max(seen.width, seen.height)
    size = round(seen.height * scale), round(seen.width * scale)

    def resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
        return interpolate(picture, size, mode="bilinear", align_corners=True)

    origin = torch.tensor([seen.x0, seen.y0, 0.0], dtype=torch.float64)
    factors = torch.tensor([size[1] / seen.width, size[0] / seen.height, 1.0], dtype=torch.float64)
    moved = ((clicks - origin) * factors).float()
    inputs = resized(image[..., rows, columns], size), moved, resized(told[..., rows, columns], size)
    logits = (network(*inputs) + network(*mirrored(*inputs)).flip(3)) / 2
    result = torch.zeros_like(told)
    rows, columns = pasted.slices
    result[..., rows, columns] = resized(logits.sigmoid(), (pasted.height, pasted.width))
    return result


def cut_box(
    policy: CropPolicy, size: tuple[int, int], clicks: Sequence[Click], bbox: Box, previous: Box | None
) -> Box:
    """`next_box`, given the image in the middle of a much larger one, and cut to the image."""

    def move(box: Box, by: int) -> Box:
        return Box(box.x0 + by, box.y0 + by, box.x1 + by, box.y1 + by)

    far = [replace(click, x=click.x + FAR, y=click.y + FAR) for click in clicks]
    canvas = size[0] + 2 * FAR, size[1] + 2 * FAR
    box = move(next_box(policy, canvas, far, move(bbox, FAR), previous and move(previous, FAR)), -FAR)
    return Box(max(box.x0, 0), max(box.y0, 0), min(box.x1, size[0]), min(box.y1, size[1]))


def tight(probability: Tensor) -> Box | None:
    found = mask_box((probability[0, 0] > 0.5).numpy())
    return Box(*found) if found else None


def recorded_box(recording: Recording, number: int) -> Box | None:
    top, bottom, left, right = recording.arrays["predictor/roi"][number].tolist()
    return Box(left, top, right + 1, bottom + 1) if top >= 0 else None


def close(got: Tensor, expected: np.ndarray) -> None:
    assert np.abs(got[0, 0, ::4, ::4].numpy() - expected).max() < 1e-5


class Given:
    """Image and clicks of a recording, as the networks take them and as our rules do."""

    def __init__(self, recording: Recording) -> None:
        self.image, self.clicks = recording.image(CASE), recording.clicks(CASE)
        self.points = [Click(x, y, bool(positive)) for x, y, positive in self.clicks[0].tolist()]
        self.size = self.image.shape[3], self.image.shape[2]
        self.whole = Box(0, 0, *self.size)


def test_ritm(shared: Path, tmp_path: Path) -> None:
    recording = Recording(shared, "ritm_hrnet18s")
    network = recorded_network(tmp_path, recording, recording.arrays["predictor/bias_delta"][0])
    given, policy = Given(recording), CropPolicy.named("fbrs")
    probability, box = torch.zeros_like(given.image[:, :1]), None
    for number in range(len(given.points)):
        points, clicks = given.points[: number + 1], given.clicks[:, : number + 1]
        bbox = tight(probability)
        zooms = bbox is not None and policy.wants_crop(len(points))
        box = cut_box(policy, given.size, points, bbox, box) if zooms else box
        assert box == recorded_box(recording, number)
        seen, long_side = (box, LONG_SIDE) if zooms else (given.whole, max(given.size))
        probability = look(network, given.image, clicks, probability, seen, long_side, box or given.whole)
        close(probability, recording.arrays["predictor/prob_sub"][number])


@pytest.mark.slow
def test_csfpn(shared: Path, tmp_path: Path) -> None:
    """Two passes by two networks: all of the first click, and the first pass of the second.

    That is told what the second pass of the first click found. No further: in the mirrored crop the second
    click lies left of the map, and the public code takes its cell to be at the end of the row above. Ours
    sends no message.
    """
    coarse, fine = (Recording(shared, f"csfpn_hrnet18_{name}") for name in ("coarse", "fine"))
    deltas = fine.arrays["predictor/bias_delta"]
    networks = [recorded_network(tmp_path, *pair) for pair in zip((coarse, fine), deltas, strict=True)]
    given = Given(fine)
    native = (given.whole, max(given.size), given.whole)

    def first_pass(number: int, probability: Tensor) -> tuple[Tensor, Box]:
        found = look(networks[0], given.image, given.clicks[:, : number + 1], probability, *native)
        close(found, fine.arrays["predictor/coarse_prob_sub"][number])
        box = next_box(CSFPN, given.size, given.points[: number + 1], tight(found), None)
        assert box == recorded_box(fine, number)
        return found, box

    found, box = first_pass(0, torch.zeros_like(given.image[:, :1]))
    probability = look(networks[1], given.image, given.clicks[:, :1], found, box, LONG_SIDE, box)
    close(probability, fine.arrays["predictor/prob_sub"][0])
    first_pass(1, probability)
