"""Crop rules on hand-computed boxes, and their promises on random ones."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickmask.clicks import Click
from clickmask.crop import CropKind, CropPolicy, next_box, resolve_policy
from clickmask.errors import InvalidInputError
from clickmask.view import Box

SIZE = (1000, 800)
WHOLE = Box(0, 0, 1000, 800)
INSIDE = Click(500, 400)
PAPER = CropPolicy("paper", start_click=3, min_size=10)
FBRS = CropPolicy("fbrs", start_click=2, min_size=10)


def mirrored(box: Box, across: bool, down: bool) -> Box:
    """Where a box lies once the image is mirrored left to right and top to bottom."""
    width, height = SIZE
    x0, x1 = (width - box.x1, width - box.x0) if across else (box.x0, box.x1)
    y0, y1 = (height - box.y1, height - box.y0) if down else (box.y0, box.y1)
    return Box(x0, y0, x1, y1)


def clicks(count: int, *more: Click) -> list[Click]:
    return [INSIDE] * (count - len(more)) + list(more)


def test_paper_starts_at_the_third_click_fbrs_at_the_second() -> None:
    bbox = Box(450, 350, 550, 450)
    assert next_box(CropPolicy.named("paper"), SIZE, clicks(2), bbox, WHOLE) == WHOLE
    assert next_box(CropPolicy.named("paper"), SIZE, clicks(3), bbox, WHOLE) == Box(400, 300, 600, 500)
    assert next_box(CropPolicy.named("fbrs"), SIZE, clicks(1), bbox, None) == WHOLE
    assert next_box(CropPolicy.named("fbrs"), SIZE, clicks(2), bbox, WHOLE) == Box(400, 300, 600, 500)


def test_none_is_always_the_whole_image() -> None:
    assert next_box(CropPolicy.named("none"), SIZE, clicks(9), Box(450, 350, 550, 450), None) == WHOLE


def test_box_grows_by_forty_percent_about_its_centre_width_and_height_apart() -> None:
    # 100 x 50 at (450..550, 400..450): +20 px left and right, +10 px above and below
    assert next_box(PAPER, SIZE, clicks(3), Box(450, 400, 550, 450), None) == Box(430, 390, 570, 460)


def test_positive_clicks_widen_the_box_and_negative_ones_do_not() -> None:
    bbox = Box(450, 350, 550, 450)
    # the click's pixel 649 makes the columns 450..650: centre 550, 280 wide
    wider = next_box(PAPER, SIZE, clicks(3, Click(649, 400)), bbox, None)
    assert wider == Box(410, 330, 690, 470)
    assert next_box(PAPER, SIZE, clicks(3, Click(649, 400, False)), bbox, None) == Box(430, 330, 570, 470)


def test_global_to_local_starts_at_once_and_has_no_least_side() -> None:
    policy = CropPolicy.named("global_to_local")
    assert policy.looks_twice(1)
    assert not CropPolicy("global_to_local", start_click=2).looks_twice(1)
    assert not CropPolicy.named("paper").looks_twice(9)
    # 10 x 20, +40 %: 2 px left and right, 4 px above and below; a crop of the click before does not matter
    expected = Box(493, 386, 507, 414)
    assert next_box(policy, SIZE, [INSIDE], Box(495, 390, 505, 410), WHOLE) == expected
    assert next_box(policy, SIZE, [INSIDE], Box(500, 400, 501, 401), None).width <= 3


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        # 101 x 81 between pixel centres 100 x 80, 1 % of 1000 x 800: 2.5 - 4 * 0.1 = 2.1
        (Box(450, 360, 551, 441), Box(394, 315, 607, 486)),
        # 201 x 161: 4 %, 2.5 - 4 * 0.2 = 1.7
        (Box(400, 320, 601, 481), Box(329, 263, 672, 538)),
        # 276 x 221: 7.5625 %, exactly 1.4; 277 x 221 would be less, and stays at 1.4
        (Box(362, 290, 638, 511), Box(306, 245, 694, 556)),
        (Box(362, 290, 639, 511), Box(306, 245, 695, 556)),
        # a line has no area: 2.5
        (Box(450, 400, 550, 401), Box(375, 399, 625, 402)),
    ],
)
def test_a_small_object_is_given_more_of_its_surroundings(bbox, expected) -> None:
    policy = CropPolicy("global_to_local", start_click=1, small_object_expansion=2.5, min_size=1)
    assert next_box(policy, SIZE, [INSIDE], bbox, None) == expected


def test_clicks_count_in_the_size_of_the_object() -> None:
    policy = CropPolicy("global_to_local", start_click=1, small_object_expansion=2.5, min_size=1)
    bbox, click = Box(450, 360, 500, 441), Click(550, 400)
    assert next_box(policy, SIZE, [click], bbox, None) == Box(394, 315, 607, 486)


def test_small_object_expansion_below_expansion_changes_nothing() -> None:
    bbox = Box(450, 350, 550, 450)
    for small in (1.0, 1.4):
        policy = dataclasses.replace(PAPER, small_object_expansion=small)
        assert next_box(policy, SIZE, clicks(3), bbox, None) == Box(430, 330, 570, 470)


def test_empty_mask_is_the_whole_image() -> None:
    assert next_box(PAPER, SIZE, clicks(5), None, Box(0, 0, 10, 10)) == WHOLE


def test_cut_at_the_edge() -> None:
    # 200 x 200 at the left edge: would reach from -40, is cut there
    assert next_box(PAPER, SIZE, clicks(3, *[Click(100, 400)] * 3), Box(0, 300, 200, 500), None) == Box(
        0, 260, 240, 540
    )


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ((0, 0), Box(0, 0, 200, 200)),
        ((999, 799), Box(800, 600, 1000, 800)),
        ((999, 400), Box(800, 300, 1000, 501)),
        ((50, 799), Box(0, 600, 200, 800)),
    ],
)
def test_least_side_is_kept_at_the_edge_by_moving_inside(at, expected) -> None:
    policy = CropPolicy("paper", start_click=1, min_size=200)
    x, y = at
    box = next_box(policy, SIZE, [Click(x, y)], Box(x, y, x + 1, y + 1), None)
    assert box == expected


def test_least_side_as_a_fraction_of_the_short_side() -> None:
    policy = CropPolicy("paper", start_click=1, min_size=10, min_fraction=0.5)
    box = next_box(policy, SIZE, [INSIDE], Box(499, 399, 501, 401), None)
    assert (box.width, box.height) == (400, 400)


def test_least_side_larger_than_the_image_is_the_image() -> None:
    policy = CropPolicy("fbrs", start_click=1, min_size=200)
    assert next_box(policy, (50, 300), [Click(5, 5)], Box(5, 5, 6, 6), None) == Box(0, 0, 50, 200)


class TestHysteresis:
    """f-BRS: the crop stays unless a positive click lies outside or it fits badly."""

    bbox = Box(450, 350, 550, 450)  # the new box would be 430..570, 330..470: 140 x 140

    def test_keeps_a_box_that_fits_well_enough(self) -> None:
        previous = Box(420, 320, 580, 480)  # IoU of columns = rows = 140 / 160 = .875
        assert next_box(FBRS, SIZE, clicks(3), self.bbox, previous) == previous
        assert next_box(PAPER, SIZE, clicks(3), self.bbox, previous) != previous

    def test_the_product_of_the_two_ious_decides(self) -> None:
        # columns 140/200 = .7 and rows 140/200 = .7 give .49 < .5, though each alone is above
        assert next_box(FBRS, SIZE, clicks(3), self.bbox, Box(400, 300, 600, 500)) == Box(430, 330, 570, 470)
        # .7 * 140/190 = .516
        kept = Box(400, 305, 600, 495)
        assert next_box(FBRS, SIZE, clicks(3), self.bbox, kept) == kept

    def test_a_positive_click_outside_moves_it(self) -> None:
        previous = Box(420, 320, 580, 480)
        moved = next_box(FBRS, SIZE, clicks(3, Click(580, 400)), self.bbox, previous)
        assert moved != previous
        assert moved.holds(Click(580, 400))
        assert next_box(FBRS, SIZE, clicks(3, Click(579, 400)), self.bbox, previous) == previous
        assert next_box(FBRS, SIZE, clicks(3, Click(900, 400, False)), self.bbox, previous) == previous

    def test_a_click_on_the_last_row_or_column_is_inside(self) -> None:
        previous = Box(420, 320, 580, 480)
        for click in (Click(579, 479), Click(420, 320)):
            assert next_box(FBRS, SIZE, clicks(3, click), self.bbox, previous) == previous

    def test_whole_image_from_before_the_start_does_not_bind(self) -> None:
        large = Box(100, 100, 900, 700)  # its box is cut to the image: would fit the whole image perfectly
        medium = Box(200, 150, 800, 650)  # 80..920 x 50..750: IoU .84 * .875 > .5
        assert next_box(FBRS, SIZE, clicks(2), medium, WHOLE) == Box(80, 50, 920, 750)
        assert next_box(FBRS, SIZE, clicks(3), medium, WHOLE) == WHOLE
        assert next_box(FBRS, SIZE, clicks(2), large, WHOLE) == WHOLE


@pytest.mark.parametrize("kind", ["fbrs", "stable"])
def test_a_crop_that_fits_just_well_enough_stays(kind: CropKind) -> None:
    # in an image no higher than the object, so that the columns decide: 128 of 256 px
    policy = CropPolicy(kind, start_click=2, expansion=1, min_size=1, hysteresis_iou=0.5)
    bbox, just, less = Box(128, 0, 256, 128), Box(64, 0, 320, 128), Box(63, 0, 320, 128)
    made = [Click(150, 60)] * 3
    assert next_box(policy, (512, 128), made, bbox, just) == just
    assert next_box(policy, (512, 128), made, bbox, less) == bbox


class TestStable:
    """One object of 100 x 100 px, whose box of 140 px (430..570 x 330..470) is snapped to cells of 8."""

    policy = CropPolicy("stable", start_click=2, min_size=10, hysteresis_iou=0.3)
    bbox = Box(450, 350, 550, 450)
    snapped = Box(424, 328, 576, 472)

    def test_edges_move_outwards_to_the_grid(self) -> None:
        assert next_box(self.policy, SIZE, clicks(2), self.bbox, WHOLE) == self.snapped
        assert next_box(self.policy, SIZE, clicks(3), self.bbox, None) == self.snapped

    def test_the_grid_is_cut_at_the_image(self) -> None:
        # +40 % is 712..1048, cut at 1000: 288 px, cells of 16; the image's edge is on none
        bbox = Box(760, 350, 1000, 450)
        assert next_box(self.policy, SIZE, [Click(900, 400)] * 2, bbox, WHOLE) == Box(704, 320, 1000, 480)

    def test_small_changes_do_not_move_it(self) -> None:
        for bbox in (Box(440, 340, 560, 460), Box(470, 370, 530, 430), Box(430, 334, 560, 460)):
            assert next_box(self.policy, SIZE, clicks(3), bbox, self.snapped) == self.snapped

    def test_it_moves_to_a_new_box_when_the_object_comes_within_a_margin_of_its_edge(self) -> None:
        moved = next_box(self.policy, SIZE, clicks(3), Box(428, 350, 550, 450), self.snapped)
        assert moved == Box(400, 328, 576, 472)  # 122 px and 40 %: 403..575

    @pytest.mark.parametrize("across", [False, True])
    @pytest.mark.parametrize("down", [False, True])
    @pytest.mark.parametrize(
        ("stays", "moves"),
        [  # 1/32 of 152 px is 4.75
            (Box(429, 350, 550, 450), Box(428, 350, 550, 450)),
            (Box(450, 333, 550, 450), Box(450, 332, 550, 450)),
        ],
    )
    def test_each_edge_has_its_margin(self, stays: Box, moves: Box, down: bool, across: bool) -> None:
        previous = mirrored(self.snapped, across, down)
        for bbox, kept in ((stays, True), (moves, False)):
            box = next_box(self.policy, SIZE, clicks(3), mirrored(bbox, across, down), previous)
            assert (box == previous) == kept

    @pytest.mark.parametrize("across", [False, True])
    @pytest.mark.parametrize("down", [False, True])
    def test_no_margin_is_wanted_where_the_image_ends(self, down: bool, across: bool) -> None:
        # 158 px are on no grid: a new box would be another
        corner, bbox = (mirrored(Box(0, 0, side, side), across, down) for side in (158, 120))
        inside = Click((bbox.x0 + bbox.x1) / 2, (bbox.y0 + bbox.y1) / 2)
        assert next_box(self.policy, SIZE, [inside] * 3, bbox, corner) == corner

    def test_a_positive_click_outside_looks_at_the_whole_image_and_a_negative_one_does_not(self) -> None:
        outside, inside = Click(576, 400), Click(575, 400)
        assert next_box(self.policy, SIZE, clicks(3, outside), self.bbox, self.snapped) == WHOLE
        assert next_box(self.policy, SIZE, clicks(2, outside), self.bbox, WHOLE) == WHOLE
        assert next_box(self.policy, SIZE, clicks(3, inside), self.bbox, self.snapped) == self.snapped
        far = Click(900, 700, False)
        assert next_box(self.policy, SIZE, clicks(3, far), self.bbox, self.snapped) == self.snapped

    def test_the_click_after_sees_the_object_and_that_click(self) -> None:
        # the mask did not reach the click: 450..601, and 40 % is 419.3..631.7, in cells of 8
        made = [*clicks(2), Click(600, 400)]
        seen = next_box(self.policy, SIZE, [*made, Click(500, 400)], self.bbox, WHOLE)
        assert seen == Box(416, 328, 632, 472)

    def test_it_is_known_before_the_click_unless_that_is_a_positive_one_outside(self) -> None:
        for bbox, previous in (
            (self.bbox, self.snapped),
            (self.bbox, WHOLE),
            (Box(428, 350, 550, 450), self.snapped),
        ):
            known = next_box(self.policy, SIZE, clicks(3, Click(0, 0, False)), bbox, previous)
            for click in (Click(known.x0, known.y0), Click(known.x1 - 1, known.y1 - 1), Click(3, 3, False)):
                assert next_box(self.policy, SIZE, clicks(3, click), bbox, previous) == known

    def test_it_moves_when_it_is_far_too_large(self) -> None:
        # 152 x 144 px in 270 x 270 are .563 * .533 = .3003; in 272 x 272 .2959
        good, large = Box(400, 300, 670, 570), Box(400, 300, 672, 572)
        assert next_box(self.policy, SIZE, clicks(3), self.bbox, good) == good
        assert next_box(self.policy, SIZE, clicks(3), self.bbox, large) == self.snapped

    def test_a_large_object_keeps_the_whole_image_of_the_first_click(self) -> None:
        # +40 % is 130..830 x 120..680, in cells of 32 128..832 x 96..704: .704 * .76
        assert next_box(self.policy, SIZE, clicks(2), Box(230, 200, 730, 600), WHOLE) == WHOLE

    def test_its_numbers(self) -> None:
        # 30 % more than 100 px are 130, but the least side is 35 % of 800: 280, in cells of 16
        named = CropPolicy.named("stable")
        assert next_box(named, SIZE, clicks(1), self.bbox, None) == WHOLE
        assert next_box(named, SIZE, clicks(2), self.bbox, WHOLE) == Box(352, 256, 640, 544)


@st.composite
def situations(draw):
    width, height = draw(st.integers(1, 400)), draw(st.integers(1, 400))
    x, y = st.integers(0, width - 1), st.integers(0, height - 1)
    points = [
        Click(
            draw(x) + draw(st.floats(-0.5, 0.49)), draw(y) + draw(st.floats(-0.5, 0.49)), draw(st.booleans())
        )
        for _ in range(draw(st.integers(1, 6)))
    ]

    def box() -> Box:
        (x0, x1), (y0, y1) = sorted((draw(x), draw(x))), sorted((draw(y), draw(y)))
        return Box(x0, y0, x1 + 1, y1 + 1)

    policy = CropPolicy(
        draw(st.sampled_from(["paper", "fbrs", "stable", "global_to_local", "none"])),
        start_click=draw(st.integers(1, 4)),
        expansion=draw(st.floats(1.0, 3.0)),
        small_object_expansion=draw(st.floats(1.0, 4.0)),
        min_size=draw(st.integers(1, 300)),
        min_fraction=draw(st.floats(0, 1)),
        hysteresis_iou=draw(st.floats(0, 1)),
    )
    return policy, (width, height), points, box() if draw(st.booleans()) else None, box()


@given(situations())
@settings(deadline=None)
def test_box_is_in_the_image_holds_the_object_and_has_the_least_side(situation) -> None:
    policy, (width, height), points, bbox, previous = situation
    box = next_box(policy, (width, height), points, bbox, previous)
    assert 0 <= box.x0 < box.x1 <= width
    assert 0 <= box.y0 < box.y1 <= height
    assert all(box.holds(point) for point in points if point.positive)
    if box == previous:
        return
    side = math.ceil(max(policy.min_size, policy.min_fraction * min(width, height)))
    assert box.width >= min(side, width)
    assert box.height >= min(side, height)
    if bbox is not None:
        assert box.x0 <= bbox.x0
        assert bbox.x1 <= box.x1
        assert box.y0 <= bbox.y0
        assert bbox.y1 <= box.y1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "focal"}, "kind must be one of"),
        ({"start_click": 0}, "start_click must be a whole number in"),
        ({"start_click": 1.5}, "start_click must be a whole number"),
        ({"expansion": 0.9}, r"expansion must be a number in \[1, "),
        ({"small_object_expansion": 0.9}, r"small_object_expansion must be a number in \[1, "),
        ({"expansion": float("nan")}, "expansion"),
        ({"expansion": float("inf")}, "expansion"),
        ({"start_click": 10**400}, "start_click"),
        ({"min_size": 0}, "min_size"),
        ({"min_size": True}, "min_size"),
        ({"min_fraction": 1.1}, r"min_fraction must be a number in \[0, 1\]"),
        ({"hysteresis_iou": -0.1}, "hysteresis_iou"),
        ({"hysteresis_iou": "half"}, "hysteresis_iou"),
    ],
)
def test_policy_refuses_numbers_out_of_range(fields, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        CropPolicy(**{"kind": "paper", **fields})


def test_policy_holds_plain_numbers() -> None:
    policy = CropPolicy(
        "paper", np.int64(2), np.float32(1.5), 2, np.int32(9), Fraction(1, 2), 1, np.float32(2)
    )
    assert [type(getattr(policy, field.name)) for field in dataclasses.fields(policy)[1:]] == [
        int, float, float, int, float, float, float,
    ]  # fmt: skip


def test_policy_of_a_session() -> None:
    assert resolve_policy(None, PAPER) is PAPER
    assert resolve_policy(FBRS, PAPER) is FBRS
    assert resolve_policy("fbrs", PAPER) == CropPolicy("fbrs", start_click=2, expansion=1.4, min_size=200)
    for wanted in ("zoom", 3):
        with pytest.raises(InvalidInputError, match="must be"):
            resolve_policy(wanted, PAPER)  # type: ignore[arg-type]
