"""COCO's outlines, pixel for pixel as its own tools fill them, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from clickmask.errors import InvalidInputError
from clickmask.evaluation.coco_masks import coco_mask


def drawn_by_coco(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
    encoded = coco.merge(coco.frPyObjects(polygons, height, width))
    with warnings.catch_warnings():  # pycocotools has not caught up with NumPy 2
        warnings.simplefilter("ignore", DeprecationWarning)
        return coco.decode(encoded).astype(bool)


coordinate = st.floats(-4, 24, width=32).map(lambda value: round(value, 2))
polygon = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=8).map(
    lambda p: [c for q in p for c in q]
)


@settings(deadline=None, max_examples=200)
@given(st.lists(polygon, min_size=1, max_size=2))
def test_polygons_are_filled_as_cocos_tools_do(polygons: list[list[float]]) -> None:
    np.testing.assert_array_equal(coco_mask(polygons, (21, 17)), drawn_by_coco(polygons, 17, 21))


def test_a_large_outline_is_filled_as_cocos_tools_do() -> None:
    rng = np.random.default_rng(0)
    angle = np.sort(rng.random(60)) * 2 * np.pi
    radius = rng.uniform(60, 200, 60)
    ring = np.stack([320 + radius * np.cos(angle), 240 + radius * np.sin(angle)], 1).round(2).ravel().tolist()
    np.testing.assert_array_equal(coco_mask([ring], (640, 480)), drawn_by_coco([ring], 480, 640))


@pytest.mark.parametrize(
    "segmentation", ["x", 3, [[1.0, 2.0]], [[1.0, 2.0, 3.0]], [["a"] * 6], [[float("nan")] * 6]]
)
def test_a_broken_segmentation_is_refused(segmentation: object) -> None:
    with pytest.raises(InvalidInputError, match="expected"):
        coco_mask(segmentation, (10, 10))


def test_run_lengths_of_another_size_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="run lengths of the image's size"):
        coco_mask({"size": [2, 3], "counts": [6]}, (2, 3))
