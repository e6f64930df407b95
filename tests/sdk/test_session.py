"""Session: what clicks and masks feed the network, what comes of it, and what a failure leaves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sessions import (
    CROP,
    RecordingBackend,
    everything,
    make_image,
    make_segmenter,
    new_session,
)

from clickmask.clicks import Click
from clickmask.crop import CropPolicy
from clickmask.errors import BackendError, InvalidInputError, SessionStateError
from clickmask.segmenter import Segmenter
from clickmask.view import Box


def test_a_fresh_session_is_empty() -> None:
    session, backend = new_session()
    assert session.mask.shape == (100, 120)
    assert session.mask.dtype == bool
    assert not session.mask.any()
    assert session.probability.dtype == np.float32
    assert not session.probability.any()
    assert session.clicks == ()
    assert session.crop is None
    assert not session.can_undo
    assert not session.can_redo
    assert session.polygons() == []
    assert session.regions() == []
    assert session.bbox() == [0, 0, 0, 0]
    assert session.rle() == {"size": [100, 120], "counts": "Pg;"}  # 12000 = 0 + 23 * 32 + 11 * 32^2
    assert backend.encode_calls == backend.decode_calls == 0


def test_a_click_gives_the_disk_that_the_fake_network_draws() -> None:
    session, _ = new_session(input={"sizes": [128]})
    mask = session.click(60, 40)
    # 120 -> 128: a disk of 12 network pixels is one of 11.25 image pixels
    y, x = np.mgrid[:100, :120]
    distance = np.hypot(x - 60, y - 40)
    assert mask[distance < 11].all()
    assert not mask[distance > 11.5].any()
    assert session.clicks == (Click(60, 40),)
    assert session.crop == Box(0, 0, 120, 100)
    np.testing.assert_array_equal(mask, session.probability > 0.5)
    assert session.bbox()[2:] == pytest.approx([22, 22], abs=1)


def test_masks_are_read_only_and_stay_what_they_were() -> None:
    session, _ = new_session()
    first = session.click(60, 40)
    before = first.copy()
    with pytest.raises(ValueError):
        first[0, 0] = True
    session.click(20, 20)
    np.testing.assert_array_equal(first, before)
    assert session.mask is session.mask


def test_what_the_network_is_fed() -> None:
    session, backend = new_session(input={"sizes": [128]})
    session.click(60, 40)
    session.click(10, 90, positive=False)
    first, second = backend.decoded
    scale = 128 / 120
    expected = [60.5 * scale - 0.5, 40.5 * (107 / 100) - 0.5, 1]  # letterbox: 100 rows become round(106.7)
    np.testing.assert_allclose(first["clicks"][0, 0], expected, atol=1e-5)
    assert first["clicks"].shape == (1, 4, 3)
    assert (first["clicks"][0, 1:] == -1).all()
    assert not first["previous_mask"].any()
    assert second["clicks"][0, 1, 2] == 0
    # the second click is told the first one's probability, unrounded: sigmoid(12 - distance)
    y, x = np.mgrid[:107, :128]
    distance = np.hypot(x - expected[0], y - expected[1])
    np.testing.assert_allclose(
        second["previous_mask"][0, 0, :107], 1 / (1 + np.exp(distance - 12)), atol=1e-4
    )
    assert not second["previous_mask"][0, 0, 107:].any()


def test_network_without_previous_mask_is_fed_none_and_refuses_set_mask() -> None:
    session, backend = new_session(input={"previous_mask": False})
    session.click(60, 40)
    session.click(30, 40)
    assert all("previous_mask" not in feeds for feeds in backend.decoded)
    with pytest.raises(InvalidInputError, match="set_mask needs a network that takes a previous mask"):
        session.set_mask(np.zeros((100, 120), bool))
    assert len(session.clicks) == 2


@pytest.mark.parametrize("previous", [True, False])
def test_the_click_limit_names_set_mask_only_where_it_works(previous) -> None:
    session, _ = new_session(input={"previous_mask": previous, "max_clicks": 1})
    session.click(60, 40)
    with pytest.raises(SessionStateError, match="remove or undo one") as caught:
        session.click(30, 40)
    assert ("set_mask" in str(caught.value)) == previous


def test_the_crop_is_encoded_once_and_again_only_when_it_moves() -> None:
    session, backend = new_session()
    for x in (20, 40, 60):
        session.click(x, 40)
    assert backend.encode_calls == 1
    assert backend.decode_calls == 3
    session.undo()
    session.click(70, 40)
    session.remove(0)
    assert backend.encode_calls == 1
    cropping, backend = new_session(400, 300, crop=CROP)
    cropping.click(200, 150)
    cropping.click(210, 150)
    assert backend.encode_calls == 2
    assert cropping.crop != Box(0, 0, 400, 300)


def test_crop_follows_the_mask_and_the_network_sees_it() -> None:
    session, backend = new_session(400, 300, radius=6.0, crop=CROP, input={"sizes": [64, 128]})
    session.click(200, 150)
    disk = session.bbox()
    session.click(204, 150)
    box = session.crop
    assert box is not None
    assert box.x0 <= disk[0]
    assert disk[0] + disk[2] <= box.x1
    assert box.width == math.ceil(box.x0 + 1.4 * disk[2]) - box.x0 or abs(box.width - 1.4 * disk[2]) <= 2
    assert backend.images[0].shape[-1] == 128  # 400 px: the largest
    assert backend.images[1].shape[-1] == 64  # 1.4 * 12 network pixels of 400 / 128: about 53 px
    outside = np.ones((300, 400), bool)
    outside[box.slices] = False
    assert not session.mask[outside].any()
    assert not session.probability[outside].any()


def test_previous_mask_moves_with_the_crop() -> None:
    """The previous mask on the new crop shows the old disk, where it is in the image."""
    session, backend = new_session(400, 300, crop=CROP, input={"sizes": [128]})
    session.click(200, 150)
    mask = session.mask
    session.click(204, 150)
    box = session.crop
    assert box is not None
    told = backend.decoded[1]["previous_mask"][0, 0] > 0.5
    view = session._history.now.view
    assert view is not None
    for row in range(0, view.valid_size[1], 7):
        for column in range(0, view.valid_size[0], 7):
            x, y = view.to_image(column, row)
            if abs(math.hypot(x - 200, y - 150) - 37.5) > 3:  # 12 network pixels of 400 / 128
                assert told[row, column] == mask[round(y), round(x)]


def test_fixed_size_and_policy_of_the_session_override_the_bundle() -> None:
    segmenter = make_segmenter(crop=CROP)
    backend = segmenter.backend
    assert isinstance(backend, RecordingBackend)
    session = segmenter.session(make_image(400, 300), crop_policy="none", size=64)
    session.click(200, 150)
    session.click(210, 150)
    assert session.crop == Box(0, 0, 400, 300)
    assert [image.shape[-1] for image in backend.images] == [64]
    policy = CropPolicy("fbrs", start_click=2, min_size=40, hysteresis_iou=0.0)
    session = segmenter.session(make_image(400, 300), crop_policy=policy)
    session.click(200, 150)
    session.click(205, 150)
    crop = session.crop
    session.click(203, 150)
    assert session.crop == crop != Box(0, 0, 400, 300)


@pytest.mark.parametrize(
    "options", [{"crop_policy": "zoom"}, {"size": 100}, {"coordinates": "corners"}, {"crop_policy": 7}]
)
def test_unknown_options_are_refused(options) -> None:
    with pytest.raises(InvalidInputError, match="must be"):
        make_segmenter().session(make_image(10, 10), **options)


def test_public_coordinates_feed_scaled_clicks() -> None:
    segmenter = make_segmenter(input={"sizes": [64]})
    backend = segmenter.backend
    assert isinstance(backend, RecordingBackend)
    session = segmenter.session(make_image(32, 16), coordinates="public")
    session.click(31, 15)
    np.testing.assert_allclose(backend.decoded[0]["clicks"][0, 0], [62, 30, 1])


def test_set_mask_is_the_mask_and_the_previous_mask_of_the_first_click() -> None:
    session, backend = new_session(128, 64, input={"sizes": [128]})
    start = np.zeros((64, 128), np.uint8)
    start[10:30, 20:50] = 255
    session.click(5, 5)
    mask = session.set_mask(start)
    start[:] = 0  # it was copied
    assert mask.sum() == 20 * 30
    assert session.bbox() == [20, 10, 30, 20]
    assert session.clicks == ()
    np.testing.assert_array_equal(session.probability, mask.astype(np.float32))
    session.click(100, 40)
    told = backend.decoded[-1]["previous_mask"][0, 0]
    np.testing.assert_allclose(told[:64], mask, atol=1e-6)
    assert not told[64:].any()


def test_set_mask_guides_the_crop() -> None:
    session, _ = new_session(400, 300, crop={**CROP, "start_click": 1})
    start = np.zeros((300, 400), bool)
    start[100:200, 100:200] = True
    session.set_mask(start)
    session.click(150, 150)
    assert session.crop == Box(80, 80, 220, 220)


def test_set_mask_of_another_shape_is_refused() -> None:
    session, _ = new_session(120, 100)
    with pytest.raises(InvalidInputError, match=r"\(100, 120\), but got \(120, 100\)"):
        session.set_mask(np.zeros((120, 100), bool))


@pytest.mark.parametrize(
    "arguments", [(-1, 5), (120, 5), (5, 100), (float("nan"), 5), (True, 5), ("5", 5), (5, 5, 1)]
)
def test_bad_clicks_change_nothing(arguments) -> None:
    session, _ = new_session(120, 100)
    session.click(50, 50)
    before = everything(session)
    with pytest.raises(InvalidInputError):
        session.click(*arguments)
    assert everything(session) == before


def test_too_many_clicks_say_so_and_change_nothing() -> None:
    session, backend = new_session(input={"max_clicks": 3})
    session.click(10, 10)
    with pytest.raises(SessionStateError, match="at most 3 clicks, but got 4"):
        session.replay([(20, 10, True), (30, 10, True), (40, 10, True)])
    assert backend.decode_calls == 1  # none of the three was made
    for x in (20, 30):
        session.click(x, 10)
    before = everything(session)
    with pytest.raises(SessionStateError, match="at most 3 clicks"):
        session.click(40, 10)
    with pytest.raises(SessionStateError, match="at most 3 clicks"):
        session.replay([(40, 10, True)])
    assert everything(session) == before
    session.undo()
    session.click(40, 10)


@pytest.mark.parametrize("step", ["fail_encode", "fail_decode"])
def test_a_failure_of_the_runtime_leaves_the_session_as_it_was(step) -> None:
    session, backend = new_session(400, 300, crop=CROP, echo=True)
    session._segmenter.crops.budget = 0  # or the crops of the removed click's successors would still be here
    for x in (200, 230, 215):
        session.click(x, 150)
    session.undo()
    before = everything(session)
    setattr(backend, step, True)
    attempts = [
        lambda: session.click(100, 100),
        lambda: session.remove(0),
        lambda: session.replay([(9, 9, True)]),
    ]
    for attempt in attempts:
        with pytest.raises(BackendError, match="broke"):
            attempt()
        assert everything(session) == before
    setattr(backend, step, False)
    session.redo()
    assert session.click(100, 100).any()


def test_a_failure_while_painting_leaves_the_session_as_it_was(monkeypatch) -> None:
    session, _ = new_session()
    for x in (50, 60, 70):
        session.click(x, 50)
    session.undo()
    before = everything(session)

    def broken(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("clickmask.paste.paste_with_box", broken)
        for attempt in (lambda: session.click(5, 5), session.undo, session.redo, lambda: session.remove(1)):
            with pytest.raises(MemoryError):
                attempt()
    assert everything(session) == before


def test_predict_equals_a_session() -> None:
    segmenter = make_segmenter(crop=CROP, echo=True)
    image = make_image(400, 300)
    points = [(200, 150, True), (230, 150, True), (150, 150, False)]
    session = segmenter.session(image)
    for point in points:
        session.click(*point)
    np.testing.assert_array_equal(segmenter.predict(image, points), session.mask)
    np.testing.assert_array_equal(segmenter.predict(image, session.clicks), session.mask)
    with pytest.raises(InvalidInputError, match="at least one click"):
        segmenter.predict(image, [])
    with pytest.raises(InvalidInputError, match="outside the image"):
        segmenter.predict(image, [(400, 0, True)])


def test_warmup_meets_every_size() -> None:
    """Exactly the shapes that the runtime meets in full sessions, one at each size."""

    def shapes(segmenter: Segmenter) -> list:
        assert isinstance(segmenter.backend, RecordingBackend)
        met = [image.shape for image in segmenter.backend.images]
        return met + [{k: v.shape for k, v in feeds.items()} for feeds in segmenter.backend.decoded]

    for spec in ({"max_clicks": 20}, {"max_clicks": 3, "previous_mask": False}):
        warm, used = make_segmenter(input=spec), make_segmenter(input=spec)
        warm.warmup()
        for size in used.bundle.manifest.input.sizes:
            used.session(make_image(40, 30), size=size).replay([(5, 5, True)] * spec["max_clicks"])
        met = shapes(used)
        once = [shape for i, shape in enumerate(met) if shape not in met[:i]]
        assert sorted(once, key=str) == sorted(shapes(warm), key=str)


def test_close_ends_the_sessions_clicks_but_not_their_masks() -> None:
    with make_segmenter() as segmenter:
        session = segmenter.session(make_image(50, 40))
        mask = session.click(20, 20)
    with pytest.raises(BackendError, match="close"):
        session.click(30, 20)
    np.testing.assert_array_equal(session.mask, mask)
