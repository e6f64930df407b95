"""Sessions on images of any shape and form, and what a large one costs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from sessions import CROP, GLOBAL_TO_LOCAL, make_image, make_segmenter

from clickmask.segmenter import Segmenter
from clickmask.view import Box


@pytest.mark.parametrize("coordinates", ["half_pixel", "public"])
@pytest.mark.parametrize("fit", ["letterbox", "squash"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2), (1000, 3)])
@pytest.mark.parametrize("crop", [CROP, GLOBAL_TO_LOCAL])
def test_tiny_and_thin_images(crop, size, fit, coordinates) -> None:
    segmenter: Segmenter = make_segmenter(crop=crop, input={"fit": fit, "coordinates": coordinates})
    session = segmenter.session(make_image(*size))
    for x, y in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 2)):
        mask = session.click(x, y)
        assert mask.shape == size[::-1]
        assert (
            mask[y, x] or coordinates == "public"
        )  # whose clicks drift from their pixels: docs/coordinates.md
    assert session.remove(0).shape == size[::-1]
    assert session.polygons() or coordinates == "public"


@pytest.mark.parametrize("fit", ["letterbox", "squash"])
@pytest.mark.parametrize("size", [(23, 17), (17, 23), (130, 9)])
@pytest.mark.parametrize("crop", [False, True])
def test_a_click_on_each_border_pixel_marks_it(crop, size, fit) -> None:
    width, height = size
    policy = {"kind": "paper", "start_click": 2, "min_size": 8} if crop else {"kind": "none"}
    segmenter = make_segmenter(radius=3.0, crop=policy, input={"sizes": [64], "fit": fit})
    start = segmenter.session(make_image(width, height))
    start.click(width // 2, height // 2)
    whole = Box(0, 0, width, height)
    for y, x in np.ndindex(height, width):
        if x in (0, width - 1) or y in (0, height - 1):
            alone = segmenter.session(make_image(width, height))
            session = start.fork() if crop else alone
            assert session.click(x, y)[y, x]
            assert (session.crop != whole) == crop
            assert not session.click(x, y, positive=False)[y, x]


def test_grey_rgba_and_reversed_images_are_as_good() -> None:
    segmenter = make_segmenter()
    image = make_image(50, 40)
    for form in (image[..., 0], np.dstack([image, image[..., :1]]), image[::-1, ::-1]):
        assert segmenter.session(form).click(20, 20)[20, 20]


@pytest.mark.parametrize("crop", [CROP, GLOBAL_TO_LOCAL, {"kind": "stable"}])
def test_a_large_image_costs_a_session_one_byte_per_pixel_and_a_click_two(crop) -> None:
    """4000 x 4000, beyond the image: what is held afterwards (the mask), and the peak (the old one too)."""
    segmenter = make_segmenter(input={"sizes": [64]}, crop={**crop, "min_size": 3000})
    image = np.zeros((4000, 4000, 3), np.uint8)
    pixels = 4000 * 4000
    tracemalloc.start()
    try:
        with segmenter:
            session = segmenter.session(image, prefetch=True)
            for x in (2000, 1000, 3000, 2500):
                session.click(x, 2000)
                segmenter.prefetcher.settle()
            session.undo()
            session.redo()
            mask = session.remove(1)
            held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert mask.any()
    assert held < 1.15 * pixels
    assert peak < 2.25 * pixels
