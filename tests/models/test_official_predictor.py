"""A session on the ``official`` preset gives what the public evaluation predictor of CDNet gave.

That is the whole path around the network: crop, squash to 384 x 384, clicks, flip averaging, Pixel Diffusion,
and the probability back in the image. One thing is not reproduced on purpose, and these clicks do not meet
it: when the last mask is empty the public code looks at the whole image and pastes what it finds into the box
of an earlier click.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden import Recording
from public_files import official_network
from torch_backend import torch_segmenter

from clickmask.view import Box
from clickmask_models.presets import pipeline

CASE = 1  # whose clicks the predictor was given, one by one
CLICKS = 5
NO_BOX = [-1, -1, -1, -1]


@pytest.fixture(scope="module")
def recording(shared: Path) -> Recording:
    return Recording(shared, "cdnet_res34")


@pytest.fixture(scope="module")
def results(
    recording: Recording, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Box | None, np.ndarray]]:
    """Crop and probability after each click."""
    network = official_network(tmp_path_factory.mktemp("official"), recording)
    with torch.no_grad():  # as the recording says: so that masks are small and crops happen
        network.head[2].bias += float(recording.arrays["predictor/bias_delta"][0])
    session = torch_segmenter(pipeline("official"), network=network).session(recording(CASE, "image"))
    found = []
    for y, x, positive, _ in recording(CASE, "clicks"):
        session.click(x, y, bool(positive))
        found.append((session.crop, session.probability))
    return found


def close(got: np.ndarray, expected: np.ndarray) -> None:
    """Equal to rounding, but for pixels whose source lies at Pixel Diffusion's cut (test_cdnet_official)."""
    error = np.abs(got - expected)
    assert np.quantile(error, 0.99) < 2e-5
    assert error.max() < 0.05


@pytest.mark.parametrize("number", range(CLICKS))
def test_crop(results, recording: Recording, number: int) -> None:
    height, width = recording(CASE, "image").shape[:2]
    top, bottom, left, right = box = recording.arrays["predictor/roi"][number].tolist()
    expected = Box(0, 0, width, height) if box == NO_BOX else Box(left, top, right + 1, bottom + 1)
    assert results[number][0] == expected


@pytest.mark.parametrize("number", range(CLICKS))
def test_probability(results, recording: Recording, number: int) -> None:
    close(results[number][1][::4, ::4], recording.arrays["predictor/prob_sub"][number])


def test_probability_after_the_last_click_more_finely(results, recording: Recording) -> None:
    close(results[-1][1][::2, ::2], recording.arrays["predictor/prob_last"])
