"""The transform between image and network frames: the promises and numbers of docs/coordinates.md."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sessions import bilinear_matrix

from clickmask import encode
from clickmask.clicks import Click
from clickmask.view import Box, View

boxes = st.tuples(st.integers(0, 5000), st.integers(0, 5000), st.integers(1, 8000), st.integers(1, 8000)).map(
    lambda t: Box(t[0], t[1], t[0] + t[2], t[1] + t[3])
)
sizes = st.sampled_from([64, 256, 384, 608])
fits = st.sampled_from(["letterbox", "squash"])
coordinates = st.sampled_from(["half_pixel", "public"])


@given(boxes, sizes, fits, coordinates, st.floats(-100, 9000), st.floats(-100, 9000))
@settings(deadline=None)
def test_to_image_undoes_to_network(box, size, fit, option, x, y) -> None:
    view = View(box, size, fit, option)
    back = view.to_image(*view.to_network(x, y))
    assert back == pytest.approx((x, y), abs=1e-6)


@given(boxes, sizes, fits)
@settings(deadline=None)
def test_the_box_becomes_exactly_the_valid_part(box, size, fit) -> None:
    """Half-pixel: outer edge to outer edge."""
    view = View(box, size, fit)
    width, height = view.valid_size
    assert view.to_network(box.x0 - 0.5, box.y0 - 0.5) == pytest.approx((-0.5, -0.5), abs=1e-6)
    assert view.to_network(box.x1 - 0.5, box.y1 - 0.5) == pytest.approx((width - 0.5, height - 0.5), abs=1e-6)


@given(boxes, sizes, fits, coordinates)
@settings(deadline=None)
def test_corner_clicks_lie_in_the_valid_part(box, size, fit, option) -> None:
    view = View(box, size, fit, option)
    width, height = view.valid_size
    assert 1 <= width <= size
    assert 1 <= height <= size
    assert max(width, height) == size
    for x in (box.x0, box.x1 - 1):
        for y in (box.y0, box.y1 - 1):
            row = encode.clicks_tensor([Click(x, y)], view, 4)[0, 0]
            assert -0.5 < row[0] < width
            assert -0.5 < row[1] < height
            if option == "half_pixel":
                assert row[0] < width - 0.5
                assert row[1] < height - 0.5


@pytest.mark.parametrize("option", ["half_pixel", "public"])
def test_every_border_pixel_lies_in_the_valid_part(option) -> None:
    box = Box(11, 23, 11 + 37, 23 + 91)
    view = View(box, 64, "letterbox", option)
    width, height = view.valid_size
    for x in range(box.x0, box.x1):
        for y in range(box.y0, box.y1):
            if x in (box.x0, box.x1 - 1) or y in (box.y0, box.y1 - 1):
                column, row = view.to_network(x, y)
                assert 0 <= math.floor(column + 0.5) <= width
                assert 0 <= math.floor(row + 0.5) <= height
                if option == "half_pixel":
                    assert math.floor(column + 0.5) < width
                    assert math.floor(row + 0.5) < height


@given(boxes, sizes, fits)
@settings(deadline=None)
def test_sampling_is_where_half_pixel_clicks_come_from(box, size, fit) -> None:
    view = View(box, size, fit)
    (step_x, start_x), (step_y, start_y) = view.sampling()
    for i in (0, 1, 7):
        assert view.to_image(i, i) == pytest.approx((start_x + step_x * i, start_y + step_y * i), abs=1e-6)


def test_sampling_is_the_grid_that_the_image_is_resized_on() -> None:
    """The centre of mass of each row of the reference matrix is where that network pixel looks."""
    for option in ("half_pixel", "public"):
        view = View(Box(10, 0, 42, 32), 64, "letterbox", option)
        matrix = bilinear_matrix(32, 64, option)
        step, start = view.sampling()[0]
        inner = slice(1, -1)  # the half-pixel ends look half outside, where the edge is repeated
        np.testing.assert_allclose((matrix @ np.arange(10, 42))[inner], (start + step * np.arange(64))[inner])


@pytest.mark.parametrize(("width", "error"), [(200, 1.0), (100, 3.0), (800, -0.5)])
def test_public_clicks_drift_from_public_pixels(width, error) -> None:
    """The quirk of the published code: at size 400 the last pixel's click falls this far short of it."""
    view = View(Box(0, 0, width, width), 400, "letterbox", "public")
    step, start = view.sampling()[0]
    pixel_in_network = (width - 1 - start) / step
    click_in_network = view.to_network(width - 1, 0)[0]
    assert pixel_in_network == pytest.approx(399)
    assert pixel_in_network - click_in_network == pytest.approx(error)


def test_worked_example_of_the_documentation() -> None:
    box = Box(100, 40, 300, 140)
    assert View(box, 256).valid_size == (256, 128)
    assert View(box, 256).to_network(100, 40) == pytest.approx((0.14, 0.14))
    assert View(box, 256).to_network(299, 139) == pytest.approx((254.86, 126.86))
    assert View(box, 256).to_image(127.5, 63.5) == pytest.approx((199.5, 89.5))
    public = View(box, 256, "letterbox", "public")
    assert public.to_network(100, 40) == pytest.approx((0, 0))
    assert public.to_network(299, 139) == pytest.approx((254.72, 126.72))
    assert View(box, 256).to_network(99.5, 39.5) == pytest.approx((-0.5, -0.5))
    assert public.to_network(99.5, 39.5) == pytest.approx((-0.64, -0.64))
    assert public.to_network(199.5, 89.5) == pytest.approx((127.36, 63.36))
    (step, start), _ = public.sampling()
    assert start + step * 255 == pytest.approx(299)
    assert (299 - start) / step == pytest.approx(255)
    assert View(box, 256, "squash").to_network(299, 139) == pytest.approx((254.86, 254.22))


def test_the_code_of_the_page_runs_and_says_what_it_gives() -> None:
    text = (Path(__file__).parents[2] / "docs/coordinates.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102 - our own document
    promised = re.findall(r"^(view\..*?)  # (\(.*\))$", code, flags=re.MULTILINE)
    assert len(promised) == 3
    for expression, value in promised:
        assert eval(expression, names) == pytest.approx(eval(value), abs=0.01)  # noqa: S307
