"""Blend: logits of one view in those of another, against sums written out."""

from __future__ import annotations

import numpy as np
import pytest

from clickmask import native_library
from clickmask.blend import blend_into
from clickmask.clicks import Click
from clickmask.view import Box, Coordinates, View

CROP = Box(40, 10, 240, 170)  # 200 x 160: at 100 two image pixels a network pixel
SIZE = 100


@pytest.fixture(params=["native", "numpy"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "numpy":
        monkeypatch.setattr(native_library, "available", lambda: False)
    elif not native_library.available():
        pytest.skip("needs the compiled library")


def grid(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows in the image of a view's valid pixels."""
    width, height = view.valid_size
    columns, rows = (
        view.to_image(np.arange(width), np.zeros(width)),
        view.to_image(np.zeros(height), np.arange(height)),
    )
    return np.asarray(columns[0]), np.asarray(rows[1])


def plane(view: View, across: float, down: float, at_origin: float) -> np.ndarray:
    """A plane over the image, sampled on a view: linear interpolation and means keep it as it is."""
    columns, rows = grid(view)
    return (at_origin + across * columns[None, :] + down * rows[:, None]).astype(np.float32)


def share(places: np.ndarray, low: int, high: int, crop: tuple[int, int]) -> np.ndarray:
    """Along an axis: from 0 at an edge of [low, high) to 1 at an eighth of it, but for the crop's edges."""
    edges = np.full(places.shape, np.inf)
    if low > crop[0]:
        edges = np.minimum(edges, places + 0.5 - low)
    if high < crop[1]:
        edges = np.minimum(edges, high - 0.5 - places)
    return np.clip(edges / ((high - low) / 8), 0, 1)


@pytest.mark.parametrize(
    "near", [Box(90, 50, 190, 130), Box(40, 10, 140, 110), Box(140, 70, 240, 170)], ids=str
)
@pytest.mark.parametrize("size", [32, 50, 100, 128], ids=lambda size: f"at{size}")
def test_a_plane_goes_over_into_another_one_within_an_eighth_of_each_inner_edge(near: Box, size: int) -> None:
    view, part = View(CROP, SIZE), View(near, size)
    before, seen = plane(view, 0.01, -0.02, 3.0), plane(part, -0.03, 0.01, -2.0)
    logits = before.copy()
    blend_into(logits, view, seen, part)
    columns, rows = grid(view)
    weight = np.minimum.outer(
        share(rows, near.y0, near.y1, (CROP.y0, CROP.y1)),
        share(columns, near.x0, near.x1, (CROP.x0, CROP.x1)),
    )
    assert weight.min() == 0
    assert weight.max() == 1
    expected = before + weight * (plane(view, -0.03, 0.01, -2.0) - before)
    # beyond the outermost sample a plane is cut off: less than a sample's step, 0.04 a pixel
    step = max(near.width, near.height) / size
    np.testing.assert_allclose(logits, expected, atol=1e-4 + 0.04 * (step / 2 + 1))
    inner = weight == 1
    away = inner & ~_touches(inner)
    np.testing.assert_allclose(
        logits[away], expected[away], atol=2e-3
    )  # OpenCV's mean of areas; a step is 0.06
    outside = weight == 0
    np.testing.assert_array_equal(logits[outside], before[outside])


def _touches(inside: np.ndarray) -> np.ndarray:
    """Pixels within two of the outer edge of the grid, where samples are cut off."""
    edge = np.ones_like(inside)
    edge[2:-2, 2:-2] = False
    return edge


def test_the_close_look_alone_is_seen_in_its_middle_and_the_crop_alone_outside() -> None:
    near = Box(90, 50, 190, 130)
    view, part = View(CROP, SIZE), View(near, 64)
    logits = np.full(view.valid_size[::-1], -5, np.float32)
    blend_into(logits, view, np.full(part.valid_size[::-1], 7, np.float32), part)
    columns, rows = grid(view)
    middle = np.ix_((rows > 60) & (rows < 120), (columns > 103) & (columns < 177))
    assert (logits[middle] == 7).all()
    away = (rows[:, None] < 49) | (rows[:, None] > 130) | (columns[None] < 89) | (columns[None] > 190)
    assert (logits[away] == -5).all()
    assert set(np.unique(logits)) > {-5, 7}  # and in between something between


@pytest.mark.parametrize("coordinates", ["half_pixel", "public"])
@pytest.mark.parametrize("click", [Click(90, 60), Click(40.25, 10), Click(900, 80)], ids=str)
def test_around_a_click_less_is_blended_in(click: Click, coordinates: Coordinates) -> None:
    view = View(CROP, SIZE, coordinates=coordinates)
    rng = np.random.default_rng(0)
    before, other = (rng.normal(size=view.valid_size[::-1]).astype(np.float32) for _ in range(2))
    logits = before.copy()
    blend_into(logits, view, other, view, 0.25, click)
    x, y = view.to_network(click.x, click.y)
    rows, columns = np.indices(before.shape)
    away = np.maximum(np.abs(rows - y), np.abs(columns - x))  # the view is 100 network pixels wide
    share = 0.25 * np.minimum(away / (0.05 * 100), 1)
    np.testing.assert_allclose(logits, (1 - share) * before + share * other, atol=1e-6)


def test_where_the_view_before_showed_nothing_nothing_is_blended_in() -> None:
    view, seen = View(Box(100, 10, 300, 210), SIZE), View(Box(40, 10, 240, 210), SIZE)
    logits = np.full(view.valid_size[::-1], 2, np.float32)
    blend_into(logits, view, np.full(seen.valid_size[::-1], -2, np.float32), seen, 0.5, Click(0, 0))
    columns, _ = grid(view)
    share = 0.5 * np.clip((240 - 0.5 - columns) / (140 / 8), 0, 1)  # 140 of their 200 columns are shared
    np.testing.assert_allclose(logits, np.broadcast_to(2 - 4 * share, logits.shape), atol=1e-5)
    assert (logits[:, columns > 240] == 2).all()


def test_of_a_view_that_shares_nothing_nothing_is_blended_in() -> None:
    view, seen = View(Box(0, 0, 50, 50), 64), View(Box(60, 60, 120, 120), 64)
    logits = np.ones(view.valid_size[::-1], np.float32)
    blend_into(logits, view, np.full(seen.valid_size[::-1], 9, np.float32), seen, 0.5, Click(3, 3))
    assert (logits == 1).all()
