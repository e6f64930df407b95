"""Close looks: a click in a crop that is shrunk is seen once more, in half of the crop around it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sessions import WHOLE_AND_CLOSE, RecordingBackend, everything, make_image, make_segmenter, new_session

from clickmask import encode
from clickmask.clicks import Click
from clickmask.crop import CropPolicy, close_box
from clickmask.errors import BackendError, InvalidInputError
from clickmask.session import Session
from clickmask.view import Box, View

WIDTH, HEIGHT = 400, 300
WHOLE = Box(0, 0, WIDTH, HEIGHT)
SIZES = [64, 128]
NEAR = Box(100, 100, 300, 300)  # of a click at (210, 160): half of the long side, on a grid of 100 pixels


def start(width: int = WIDTH, height: int = HEIGHT, **overrides) -> tuple[Session, RecordingBackend]:
    options = {"crop": WHOLE_AND_CLOSE, "input": {"sizes": SIZES}, **overrides}
    return new_session(width, height, **options)


def disk(view: View, x: float, y: float, radius: float = 12.0) -> np.ndarray:
    """What the fake network says of one positive click at (x, y), by its definition."""
    width, height = view.valid_size
    column, row = view.to_network(x, y)
    rows, columns = np.mgrid[:height, :width]
    return (radius - np.hypot(columns - column, rows - row)).astype(np.float32)


class TestBox:
    @pytest.mark.parametrize(
        ("click", "expected"),
        [
            (Click(500, 400), Box(300, 200, 700, 600)),  # the middle of nine
            (Click(100, 0), Box(100, 0, 500, 400)),  # a corner of the crop
            (Click(899, 799), Box(500, 400, 900, 800)),
            (Click(399, 301), Box(100, 200, 500, 600)),  # 399 is nearer to 300 than to 500, 301 to 400
            (Click(401, 299), Box(300, 0, 700, 400)),
        ],
        ids=str,
    )
    def test_of_nine_places_it_is_the_one_around_the_click(self, click: Click, expected: Box) -> None:
        assert close_box(Box(100, 0, 900, 800), click) == expected

    def test_a_narrow_crop_is_shown_in_its_whole_width(self) -> None:
        assert close_box(Box(50, 100, 1050, 400), Click(300, 390)) == Box(50, 100, 550, 400)

    @pytest.mark.parametrize("side", [2, 5, 427, 854, 855, 1366])
    def test_there_are_three_places_along_a_side_at_most(self, side: int) -> None:
        crop = Box(10, 0, 10 + side, side)
        assert len({close_box(crop, Click(x, 0)).x0 for x in range(10, 10 + side)}) <= 3

    @example((0, 0, 2, 1), 1.0, 0.0)
    @given(
        st.tuples(*[st.integers(0, 300)] * 2, *[st.integers(1, 500)] * 2), st.floats(0, 1), st.floats(0, 1)
    )
    @settings(deadline=None)
    def test_it_holds_the_click_and_lies_in_the_crop_at_half_its_side(
        self, corners: tuple[int, int, int, int], across: float, down: float
    ) -> None:
        x0, y0, width, height = corners
        crop = Box(x0, y0, x0 + width, y0 + height)
        click = Click(x0 + int(across * (width - 1)), y0 + int(down * (height - 1)))
        near = close_box(crop, click)
        assert near.holds(click)
        assert crop.x0 <= near.x0
        assert crop.y0 <= near.y0
        assert near.x1 <= crop.x1
        assert near.y1 <= crop.y1
        half = -(-max(width, height) // 2)
        assert (near.width, near.height) == (min(half, width), min(half, height))


def test_a_click_in_a_shrunk_crop_is_seen_there_and_then_closely() -> None:
    session, backend = start()
    session.click(210, 160)
    views = [View(WHOLE, 128), View(NEAR, 128)]
    image = make_image(WIDTH, HEIGHT)
    for seen, fed, view in zip(backend.images, backend.decoded, views, strict=True):
        np.testing.assert_array_equal(seen, encode.image_tensor(image, view, (0.5, 0.5, 0.5)))
        np.testing.assert_array_equal(fed["clicks"], encode.clicks_tensor([Click(210, 160)], view, 4))
    assert session.crop == WHOLE  # the crop is the network's first look


def test_the_close_look_is_told_what_the_first_found() -> None:
    session, backend = start()
    session.click(210, 160)
    first, second = (fed["previous_mask"][0, 0] for fed in backend.decoded)
    assert not first.any()
    found = encode.sigmoid(disk(View(WHOLE, 128), 210, 160))
    expected = encode.resample(found, View(WHOLE, 128), View(NEAR, 128))
    np.testing.assert_allclose(second[: expected.shape[0]], expected, atol=1e-6)


def test_the_mask_around_the_click_is_the_close_look_s() -> None:
    session, _ = start()
    session.click(210, 160)
    # 12 network pixels: of 400 / 128 they are 37.5 image pixels, of 200 / 128 they are 18.75
    distance = np.hypot(*(np.mgrid[:HEIGHT, :WIDTH] - np.array([160, 210])[:, None, None]))
    mask = session.mask
    assert mask[distance < 18].all()
    assert not mask[distance > 19.6].any()
    assert session.probability[160, 210] > 0.99


def test_the_next_click_is_told_the_blend() -> None:
    session, backend = start()
    session.click(210, 160)
    session.click(215, 165)
    view = View(WHOLE, 128)
    told = backend.decoded[2]["previous_mask"][0, 0]
    rows, columns = np.mgrid[:96, :128]
    x, y = view.to_image(columns, rows)
    distance = np.hypot(x - 210, y - 160)
    assert (told[:96][distance < 17] > 0.5).all()
    assert (told[:96][distance > 21] < 0.5).all()


@pytest.mark.parametrize(
    ("above", "close"), [(None, False), (0, True), (1.0, True), (3.1, True), (3.2, False)], ids=str
)
def test_whether_it_looks_is_the_crop_s_side_over_the_largest_size(above: float | None, close: bool) -> None:
    session, backend = start(crop={**WHOLE_AND_CLOSE, "close_above": above})  # 400 px over 128 are 3.125
    session.click(210, 160)
    assert len(backend.decoded) == 1 + close


def test_a_crop_no_larger_than_the_largest_size_is_seen_once_whatever_size_it_is_seen_at() -> None:
    for size in (None, 64):
        segmenter = make_segmenter(crop=WHOLE_AND_CLOSE, input={"sizes": SIZES})
        session = segmenter.session(make_image(128, 100), size=size)
        session.click(60, 50)
        assert len(segmenter.backend.decoded) == 1


def test_before_its_start_click_there_is_no_close_look() -> None:
    policy = CropPolicy("stable", start_click=2, close_above=1.0)
    assert not policy.looks_closely([Click(5, 5)], WHOLE, 128)
    assert policy.looks_closely([Click(5, 5), Click(6, 6)], WHOLE, 128)


def test_a_background_click_outside_the_crop_is_seen_once() -> None:
    policy = CropPolicy("stable", start_click=1, close_above=1.0)
    assert not policy.looks_closely([Click(399, 5, positive=False)], Box(0, 0, 399, 300), 128)
    assert policy.looks_closely([Click(398, 5, positive=False)], Box(0, 0, 399, 300), 128)


@pytest.mark.parametrize("prefetch", [False, True])
def test_an_object_s_crop_is_seen_closely_where_it_lies(prefetch: bool) -> None:
    crop = {"kind": "stable", "start_click": 2, "expansion": 2.0, "min_size": 10, "close_above": 1.0}
    segmenter = make_segmenter(crop=crop, input={"sizes": SIZES})
    session = segmenter.session(make_image(1200, 900), prefetch=prefetch)
    session.click(700, 500)  # 12 pixels of 128 are 112 of 1200
    session.click(760, 520)
    box = session.crop
    assert box is not None
    assert min(box.x0, box.y0) > 0
    near = View(close_box(box, Click(760, 520)), 128)
    _, first, second = segmenter.backend.decoded
    points = [Click(700, 500), Click(760, 520)]
    np.testing.assert_array_equal(first["clicks"], encode.clicks_tensor(points, View(box, 128), 4))
    np.testing.assert_array_equal(second["clicks"], encode.clicks_tensor(points, near, 4))
    # the fake's disks: of the close look around the newest, 12 pixels of 128
    radius = 12 * max(near.box.width, near.box.height) / 128
    distance = np.hypot(*(np.mgrid[:900, :1200] - np.array([520, 760])[:, None, None]))
    apart = np.hypot(*(np.mgrid[:900, :1200] - np.array([500, 700])[:, None, None])) > 2 * radius
    mask = session.mask
    assert mask[distance < radius - 2].all()
    assert not mask[(distance > radius + 2) & (distance < 1.3 * radius) & apart].any()
    session.click(5, 5, positive=False)  # off the crop
    assert len(segmenter.backend.decoded) == 4


@pytest.mark.parametrize(
    "input_", [{"fit": "squash"}, {"coordinates": "public"}, {"previous_mask": False}], ids=str
)
def test_every_kind_of_input_has_close_looks(input_: dict) -> None:
    session, backend = start(input={"sizes": SIZES, **input_})
    mask = session.click(210, 160)
    assert len(backend.decoded) == 2
    assert mask[160, 210]
    once, _ = start(input={"sizes": SIZES, **input_}, crop={"kind": "none"})
    assert mask.sum() < 0.5 * once.click(210, 160).sum()  # a disk of half the size


def test_states_are_functions_of_the_clicks() -> None:
    session, _ = start(echo=True)
    clicks = [(210, 160, True), (30, 20, False), (150, 100, True), (390, 290, True)]
    session.replay(clicks)
    final = session.mask
    session.remove(1)
    plain, _ = start(echo=True)
    plain.replay([clicks[0], *clicks[2:]])
    np.testing.assert_array_equal(session.mask, plain.mask)
    np.testing.assert_array_equal(session.undo(), final)
    again = Session.from_json(session._segmenter, make_image(WIDTH, HEIGHT), session.to_json())
    np.testing.assert_array_equal(again.mask, final)


@pytest.mark.parametrize("broken", ["fail_encode", "fail_decode"])
def test_a_close_look_that_fails_leaves_the_session_as_it_was(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, backend = start(encodes_once=True)
    session.click(210, 160)
    before = everything(session)
    decode = backend.decode
    calls = iter([False, True])

    def second_fails(*arguments):
        if next(calls):
            raise BackendError("the second look broke")
        return decode(*arguments)

    if broken == "fail_decode":
        monkeypatch.setattr(backend, "decode", second_fails)
    else:  # the whole image is encoded already, the close look in another corner is not
        backend.fail_encode = True
    with pytest.raises(BackendError):
        session.click(20, 20)
    assert everything(session) == before


def test_global_to_local_has_no_close_look() -> None:
    with pytest.raises(InvalidInputError, match="close_above must be None for 'global_to_local'"):
        CropPolicy("global_to_local", close_above=1.0)
    with pytest.raises(InvalidInputError, match=r"close_above must be a number in \[0, "):
        CropPolicy("stable", close_above=-1)
    assert replace(CropPolicy.named("stable"), close_above=None).close_above is None
