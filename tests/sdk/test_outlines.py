"""Outlines of masks: hand-made ones, filled back by definition, and the library against the form without."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pictures import RING, picture

from clickmask import native_library, native_pixels, outlines, paste
from clickmask.errors import InvalidInputError
from clickmask.mask import mask_box
from clickmask.outlines import Region, polygons, regions
from clickmask.view import Box, View

masks = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@pytest.fixture(params=["library", "without"], autouse=True)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiled library, and as on a machine where it was not built."""
    if request.param == "without":
        monkeypatch.setattr(native_library, "available", lambda: False)
    elif reason := native_library.unavailable_because():
        pytest.skip(reason)


def fill(ring: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre is inside a ring, by counting its vertical edges to the left (even-odd rule)."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    crossings = np.zeros(shape, int)
    for (x, y), (to_x, to_y) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        assert (x == to_x) != (y == to_y), "an edge runs along the grid"
        if x == to_x:
            crossings += (columns >= x) & (rows >= min(y, to_y)) & (rows < max(y, to_y))
    return crossings % 2 == 1


def area(ring: np.ndarray) -> float:
    """Shoelace formula: positive is clockwise on screen."""
    x, y = ring.astype(float).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


@pytest.mark.usefixtures("form")
@given(masks)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_regions_fill_back_to_the_mask_exactly(mask) -> None:
    found = regions(mask)
    assert len(found) == cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] - 1
    back = np.zeros(mask.shape, bool)
    for outer, holes in found:
        assert outer.dtype == np.int32
        assert area(outer) > 0
        piece = fill(outer, mask.shape)
        for hole in holes:
            assert area(hole) < 0
            emptied = fill(hole, mask.shape)
            assert piece[emptied].all()
            piece &= ~emptied
        assert not (back & piece).any()
        back |= piece
    np.testing.assert_array_equal(back, mask)


def test_outlines_by_hand() -> None:
    assert polygons(picture("... .#. ...")) == [[1, 1, 2, 1, 2, 2, 1, 2]]
    (region,) = regions(RING)
    assert isinstance(region, Region)
    assert region.outer.tolist() == [[1, 1], [5, 1], [5, 4], [1, 4]]
    assert [hole.tolist() for hole in region.holes] == [[[2, 2], [2, 3], [4, 3], [4, 2]]]


def test_polygons_have_no_collinear_corners_and_no_holes() -> None:
    assert polygons(RING) == [[1, 1, 5, 1, 5, 4, 1, 4]]
    assert polygons(np.ones((50, 70), bool)) == [[0, 0, 70, 0, 70, 50, 0, 50]]


def test_polygons_are_the_outer_rings_and_holes_cost_them_no_labelling(monkeypatch) -> None:
    noise = np.random.default_rng(0).random((90, 70)) > 0.4
    outer = [region.outer.ravel().tolist() for region in regions(noise)]
    assert any(region.holes for region in regions(noise))
    monkeypatch.delattr("cv2.connectedComponents")
    assert polygons(noise) == outer


def _distance(points: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Of each point (x, y) from the nearest edge of a closed ring, edge by edge."""
    starts, ends = ring, np.roll(ring, -1, axis=0)
    along = ends - starts
    offset = points[:, None] - starts
    share = np.clip((offset * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12), 0, 1)
    return np.hypot(*np.moveaxis(offset - share[..., None] * along, -1, 0)).min(axis=1)


@pytest.mark.parametrize("tolerance", [0.8, 1.5, 4.0])
def test_polygons_within_a_tolerance_have_fewer_corners_and_are_no_further_off(tolerance: float) -> None:
    rows, columns = np.mgrid[:120, :160]
    mask = np.hypot(rows - 60, columns - 70) < 40 + 6 * np.sin(columns / 5)
    (exact,), (fewer,) = polygons(mask), polygons(mask, tolerance=tolerance)
    corners, kept = (np.reshape(ring, (-1, 2)) for ring in (exact, fewer))
    assert len(kept) < len(corners) / 1.5
    assert _distance(corners, kept).max() <= tolerance
    assert _distance(kept, corners).max() == 0  # corners are left out, none is moved


def test_a_piece_smaller_than_the_tolerance_keeps_its_outline() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5, 5] = True
    assert polygons(mask, tolerance=8) == polygons(mask)


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf"), "2", None])
def test_a_tolerance_is_a_number_of_pixels(tolerance: Any) -> None:
    with pytest.raises(InvalidInputError, match="tolerance must be a number of pixels"):
        polygons(np.ones((3, 3), bool), tolerance=tolerance)


def test_an_island_in_a_hole_is_a_region_of_its_own() -> None:
    mask = np.ones((7, 7), bool)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    outer, island = regions(mask)
    assert len(outer.holes) == 1
    assert island.holes == []
    assert island.outer.tolist() == [[3, 3], [4, 3], [4, 4], [3, 4]]


def test_pixels_that_meet_at_a_corner_are_apart() -> None:
    assert len(regions(picture("#. .#"))) == 2


def test_holes_that_meet_at_a_corner_of_the_image_grid() -> None:
    mask = picture("#### #.## ##.# ####")
    (region,) = regions(mask)
    emptied = np.zeros(mask.shape, bool)
    for hole in region.holes:
        emptied |= fill(hole, mask.shape)
    np.testing.assert_array_equal(emptied, ~mask)


def test_empty_mask_has_no_outlines() -> None:
    assert polygons(np.zeros((4, 5), bool)) == []
    assert regions(np.zeros((4, 5), bool)) == []
    assert polygons(np.zeros((4, 5), bool), Box(1, 1, 3, 3)) == []


def test_outlines_of_a_large_disk_are_quick_and_enclose_its_area() -> None:
    mask = np.zeros((2000, 2000), np.uint8)
    cv2.circle(mask, (1000, 1000), 900, 1, -1)
    cv2.circle(mask, (900, 900), 100, 0, -1)
    (region,) = regions(mask > 0)
    assert area(region.outer) + sum(area(hole) for hole in region.holes) == mask.sum()


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (7, 33), (64, 64), (90, 131)])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98, 1.0])
def test_rings_are_the_same_with_and_without_the_library(shape, share) -> None:
    if reason := native_library.unavailable_because():
        pytest.skip(reason)
    mask = np.random.default_rng(shape[1]).random(shape) < share
    corners, ends, _ = native_pixels.Runs.of(mask).outlines()
    expected = outlines._rings(mask)
    assert ends.tolist() == np.cumsum([len(ring) for ring in expected]).tolist()
    np.testing.assert_array_equal(corners, np.concatenate([np.zeros((0, 2)), *expected]))


def test_a_known_box_changes_nothing() -> None:
    mask = np.zeros((60, 80), np.bool_)
    mask[10:50, 20:70] = np.random.default_rng(1).random((40, 50)) > 0.4
    box = mask_box(mask)
    assert box is not None
    assert polygons(mask, Box(*box)) == polygons(mask)
    assert polygons(mask, Box(15, 5, 80, 60)) == polygons(mask)
    for ours, theirs in zip(regions(mask, Box(*box)), regions(mask), strict=True):
        np.testing.assert_array_equal(ours.outer, theirs.outer)
        assert [hole.tolist() for hole in ours.holes] == [hole.tolist() for hole in theirs.holes]


@pytest.mark.parametrize("coordinates", ["half_pixel", "public"])
@pytest.mark.parametrize("draw", ["noise", "blob", "stripes", "full", "empty"])
def test_the_runs_that_painting_found_give_the_outlines_of_the_mask(draw, coordinates) -> None:
    view = View(Box(13, 7, 313, 227), 64, "letterbox", coordinates)
    width, height = view.valid_size
    rows, columns = np.mgrid[:height, :width]
    logits = {
        "noise": np.random.default_rng(8).normal(0, 3, (height, width)),
        "blob": 20 - np.hypot(rows - 20, columns - 30),
        "stripes": np.where(columns % 3 == 0, 4.0, -4.0),
        "full": np.full((height, width), 3.0),
        "empty": np.full((height, width), -3.0),
    }[draw].astype(np.float32)
    mask, box, runs = paste.paste_with_box(logits, view, (330, 240), 0.5)
    assert (runs is None) != native_library.available()
    assert polygons(mask, box, runs) == polygons(mask)
    for ours, theirs in zip(regions(mask, box, runs), regions(mask), strict=True):
        np.testing.assert_array_equal(ours.outer, theirs.outer)
        assert [hole.tolist() for hole in ours.holes] == [hole.tolist() for hole in theirs.holes]


@pytest.mark.skipif(not native_library.available(), reason="the native library is not built")
@given(masks)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_holes_belong_to_the_piece_that_labelling_finds(mask) -> None:
    found = outlines._Outlines(*native_pixels.Runs.of(mask).outlines())
    assert found.owners is not None
    assert found.owners.tolist() == outlines._owners(mask, found).tolist()


@pytest.mark.skipif(not native_library.available(), reason="the native library is not built")
def test_threads_find_the_runs_that_one_finds(monkeypatch) -> None:
    mask = np.random.default_rng(2).random((700, 90)) < 0.6
    alone = native_pixels.Runs.of(mask).outlines()
    monkeypatch.setattr(native_pixels, "_ALONE", 0)
    monkeypatch.setattr(native_pixels, "_THREADS", 4)
    for ours, theirs in zip(native_pixels.Runs.of(mask).outlines(), alone, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.skipif(not native_library.available(), reason="the native library is not built")
def test_a_strip_wider_than_any_network_input_has_outlines_and_a_box() -> None:
    strip = np.zeros((2, 40_000), np.bool_)
    strip[:, 35_000:] = True
    ring, ends, _ = native_pixels.Runs.of(strip).outlines()
    assert ends.tolist() == [4]
    assert sorted(map(tuple, ring.tolist())) == [(35_000, 0), (35_000, 2), (40_000, 0), (40_000, 2)]
    values = np.array([[-1.0, 1.0]], np.float32)
    box, _ = native_pixels.value_runs(values, 0.0, strip.shape, (0.5, 2 / 40_000), 0.5)
    assert box == (20_000, 0, 40_000, 2)
