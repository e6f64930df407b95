"""The classical methods: what anybody would expect of them on a bright object, and their edges."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from benchmarks import SIZE, disk, photo, save, save_indexed
from skimage.segmentation import random_walker

from clickmask.errors import InvalidInputError
from clickmask.evaluation.anchors import ANCHORS, GrabCut, RandomWalker
from clickmask.evaluation.metrics import iou
from clickmask.evaluation.run import annotate
from clickmask.evaluation.samples import Sample
from clickmask.evaluation.truths import IndexedTruth


def noisy(truth: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 8, (*truth.shape, 3))
    return np.clip(photo(truth) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ANCHORS)
def test_a_bright_object_is_found_in_one_click(name: str) -> None:
    truth = disk(60, 60, 25)
    mask = ANCHORS[name].open().session(noisy(truth)).click(60, 60)
    assert mask.dtype == bool
    assert iou(mask, truth, np.zeros_like(truth)) > 0.95


@pytest.mark.parametrize("name", ANCHORS)
def test_a_large_photo_gets_a_mask_of_its_size(name: str) -> None:
    truth = disk(500, 300, 160, (600, 1000))
    mask = ANCHORS[name].open().session(noisy(truth)).click(500, 300)
    assert iou(mask, truth, np.zeros_like(truth)) > 0.95


@pytest.mark.parametrize("name", ANCHORS)
def test_a_negative_click_takes_an_object_out(name: str) -> None:
    first, second = disk(45, 60, 20), disk(115, 60, 20)
    session = ANCHORS[name].open().session(noisy(first | second))
    session.click(45, 60)
    session.click(115, 60)
    mask = session.click(115, 50, positive=False)
    assert mask[60, 45]
    assert not mask[50, 115]


@pytest.mark.parametrize("name", ANCHORS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 400), (40, 40)])
def test_tiny_and_flat_images_get_some_mask(name: str, shape: tuple[int, int]) -> None:
    session = ANCHORS[name].open().session(np.full((*shape, 3), 90, np.uint8))
    assert session.click(0, 0).shape == shape
    assert session.click(shape[1] - 1, shape[0] - 1, positive=False).shape == shape


@pytest.mark.parametrize("name", ANCHORS)
def test_the_robot_gets_the_same_curve_twice(name: str, tmp_path: Path) -> None:
    truth = disk(60, 60, 25) & ~disk(70, 60, 12)
    path = save(tmp_path / "image.png", noisy(truth))
    sample = Sample("one", path, IndexedTruth(save_indexed(tmp_path / "mask.png", truth)), "alone")
    first, second = (annotate(ANCHORS[name].open(), sample, 4) for _ in range(2))
    assert (first.ious, first.mask) == (second.ious, second.mask)


def test_the_random_walker_is_scikit_images_own() -> None:
    # At a size that is not reduced the seeds are the border and a disk around the click.
    truth = disk(60, 60, 25)
    image = noisy(truth)
    labels = np.zeros(truth.shape, np.int32)
    labels[[0, -1]] = labels[:, [0, -1]] = 2
    labels[disk(60, 60, 3)] = 1
    expected = random_walker(image, labels, 130, mode="bf", channel_axis=-1) == 1
    got = RandomWalker().open().session(image).click(60, 60)
    assert iou(got, expected, np.zeros_like(truth)) > 0.999


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What OpenCV is given for an object click, then for a background click; it answers with a square."""
    labels_given: list[np.ndarray] = []

    def cut(_: np.ndarray, labels: np.ndarray, *__: object) -> None:
        labels_given.append(labels.copy())
        labels[20:30, 20:30] = cv2.GC_PR_FGD

    monkeypatch.setattr(cv2, "grabCut", cut)
    session = GrabCut().open().session(np.zeros((*SIZE, 3), np.uint8))
    session.click(60, 60)
    session.click(100, 60, positive=False)
    return labels_given


def test_the_border_stands_for_background_until_some_is_clicked(given: list[np.ndarray]) -> None:
    border = np.ones(SIZE, bool)
    border[1:-1, 1:-1] = False
    np.testing.assert_array_equal(given[0] == cv2.GC_BGD, border)
    np.testing.assert_array_equal(given[1] == cv2.GC_BGD, disk(100, 60, 3))


def test_grabcut_goes_on_from_the_mask_before(given: list[np.ndarray]) -> None:
    assert not (given[0] == cv2.GC_PR_FGD).any()
    assert (given[1][20:30, 20:30] == cv2.GC_PR_FGD).all()


def test_missing_scikit_image_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(InvalidInputError, match=r"needs scikit-image: pip install .clickmask\[evaluation\]"):
        RandomWalker().open()
    assert GrabCut().open() is not None
