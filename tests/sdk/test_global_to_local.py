"""Global to local: each click is seen in the whole image first, then in a crop around what that found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sessions import GLOBAL_TO_LOCAL, RecordingBackend, everything, make_image, make_segmenter, new_session

from clickmask import encode, paste
from clickmask.clicks import Click
from clickmask.errors import BackendError
from clickmask.session import Session
from clickmask.view import Box, View

WIDTH, HEIGHT = 400, 300
WHOLE = Box(0, 0, WIDTH, HEIGHT)
PAD = (0.5, 0.5, 0.5)


def start(**overrides) -> tuple[Session, RecordingBackend]:
    options = {"crop": GLOBAL_TO_LOCAL, "input": {"sizes": [64, 128]}, **overrides}
    return new_session(WIDTH, HEIGHT, **options)


def whole_view() -> View:
    return View(WHOLE, 128)


def disk(view: View, x: float, y: float, radius: float = 12.0) -> np.ndarray:
    """What the fake network says of one positive click at (x, y), by its definition."""
    width, height = view.valid_size
    column, row = view.to_network(x, y)
    rows, columns = np.mgrid[:height, :width]
    return (radius - np.hypot(columns - column, rows - row)).astype(np.float32)


def test_first_pass_sees_the_image_second_one_a_crop_around_what_it_found() -> None:
    session, backend = start()
    session.click(200, 150)
    # 12 network pixels of 400 / 128 are 37.5: pixels 163 .. 237, 75 wide; +40 % is 105, 15 more on each side
    assert session.crop == Box(148, 98, 253, 203)
    image = make_image(WIDTH, HEIGHT)
    for seen, view in zip(backend.images, (whole_view(), View(session.crop, 128)), strict=True):
        np.testing.assert_array_equal(seen, encode.image_tensor(image, view, PAD))
    for fed, view in zip(backend.decoded, (whole_view(), View(session.crop, 128)), strict=True):
        np.testing.assert_array_equal(fed["clicks"], encode.clicks_tensor([Click(200, 150)], view, 4))


def test_second_pass_is_told_the_first_one_s_probability() -> None:
    session, backend = start()
    session.click(200, 150)
    first, second = backend.decoded
    assert not first["previous_mask"].any()
    assert session.crop is not None
    view = View(session.crop, 128)
    width, height = view.valid_size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    distance = np.hypot(*(np.array(view.to_image(x, y)) - np.array([200, 150])[:, None, None]))
    expected = 1 / (1 + np.exp(distance * 128 / 400 - 12))  # the disk of the first pass, in image pixels
    # but for what linear interpolation cuts off a sigmoid between pixels: at most 0.096 / 8 along each axis
    np.testing.assert_allclose(second["previous_mask"][0, 0, :height, :width], expected, atol=0.024)


def test_second_pass_is_the_state_and_the_next_click_s_previous_mask() -> None:
    session, backend = start()
    mask = session.click(200, 150)
    assert session.crop is not None
    view = View(session.crop, 128)
    # 12 network pixels of 105 / 128, no longer of 400 / 128
    expected = paste.paste_with_box(disk(view, 200, 150), view, (WIDTH, HEIGHT), 0.5).mask
    np.testing.assert_array_equal(mask, expected)
    assert session.bbox()[2:] == [19, 19]
    session.click(210, 150)
    probability = encode.sigmoid(disk(view, 200, 150))
    told, valid = encode.blank_previous(whole_view())
    valid[:] = encode.resample(probability, view, whole_view())
    np.testing.assert_allclose(backend.decoded[2]["previous_mask"], told, atol=1e-6)
    assert len(session.clicks) == 2


def test_crop_is_around_the_new_pass_not_the_last_mask() -> None:
    session, _ = start()
    session.click(60, 60)
    session.click(340, 240)
    # disks of 37.5 px around both clicks: 23 .. 377 and 23 .. 277, with 40 % more than the image
    assert session.crop == WHOLE
    session.undo()
    assert session.crop == Box(8, 8, 113, 113)


def test_initial_mask_is_told_to_the_first_pass_only() -> None:
    session, backend = start()
    initial = np.zeros((HEIGHT, WIDTH), bool)
    initial[200:260, 300:380] = True
    session.set_mask(initial)
    session.click(60, 60)
    told, valid = encode.blank_previous(whole_view())
    valid[:] = encode.mask_probability(initial, whole_view())
    np.testing.assert_array_equal(backend.decoded[0]["previous_mask"], told)
    assert session.crop == Box(8, 8, 113, 113)  # the first pass did not find the initial mask


def test_nothing_found_is_a_second_look_at_the_whole_image() -> None:
    session, backend = start()
    assert not session.click(200, 150, positive=False).any()
    assert session.crop == WHOLE
    assert backend.decode_calls == 2
    assert backend.encode_calls == 1  # the same network and view
    told = backend.decoded[1]["previous_mask"][0, 0, :96]
    np.testing.assert_allclose(told, 1 / (1 + math.exp(12)), rtol=1e-3)


def test_before_the_first_crop_there_is_one_pass() -> None:
    session, backend = start(crop={**GLOBAL_TO_LOCAL, "start_click": 2})
    session.click(200, 150)
    assert (session.crop, backend.decode_calls) == (WHOLE, 1)
    session.click(205, 150)
    assert session.crop != WHOLE
    assert backend.decode_calls == 3


@pytest.mark.parametrize("encodes_once", [False, True])
def test_the_whole_image_is_encoded_once_and_each_crop_when_it_moves(encodes_once) -> None:
    session, backend = start(encodes_once=encodes_once)
    session.click(200, 150)
    assert backend.encode_calls == 2
    session.click(200, 150)  # the same disk: the same crop
    assert backend.encode_calls == 2
    session.click(230, 150)
    assert backend.encode_calls == 3
    session.undo()
    session.click(200, 150)  # the crop of before is still here
    assert backend.encode_calls == 3
    assert backend.decode_calls == 8


def test_network_without_previous_mask_places_the_crop_in_its_first_pass() -> None:
    session, backend = start(input={"sizes": [128], "previous_mask": False})
    session.click(200, 150)
    assert session.crop == Box(148, 98, 253, 203)
    assert all("previous_mask" not in fed for fed in backend.decoded)


@pytest.mark.parametrize("step", ["fail_encode", "fail_decode"])
def test_a_failure_of_the_second_pass_leaves_the_session_as_it_was(step) -> None:
    session, backend = start(echo=True)
    session.click(200, 150)
    session.click(210, 160)
    session.undo()
    before = everything(session)
    first_pass = backend._run

    def then_fail(graph, feeds):
        outputs = first_pass(graph, feeds)
        setattr(backend, step, True)
        return outputs

    backend._run = then_fail  # type: ignore[method-assign]
    with pytest.raises(BackendError, match="broke"):
        session.click(300, 100)
    assert len(backend.decoded) == 5
    assert everything(session) == before
    backend._run = first_pass  # type: ignore[method-assign]
    setattr(backend, step, False)
    session.redo()
    assert session.click(300, 100).any()


def test_only_the_second_pass_is_kept() -> None:
    session, _ = start()
    session.replay([(200, 150, True), (230, 150, True)])
    state, logits = session._history.now, 0
    while state.before is not None:
        state, logits = state.before, logits + 1
    assert logits == 2


# Two networks


def test_each_pass_has_its_own_network() -> None:
    session, backend = start(local_network=True, crop={})
    session.click(200, 150)
    session.click(230, 150, positive=False)
    assert backend.graphs == ["network", "local_network"] * 2


def test_two_networks_encode_the_same_view_each_for_itself() -> None:
    session, backend = start(local_network=True, crop={})
    session.click(200, 150, positive=False)
    assert session.crop == WHOLE
    assert backend.encode_calls == 2
    session.click(210, 150, positive=False)
    assert backend.encode_calls == 2
    assert backend.graphs == ["network", "local_network"] * 2


@pytest.mark.parametrize("policy", ["none", "fbrs", "paper"])
def test_another_policy_runs_the_first_network_alone(policy) -> None:
    segmenter = make_segmenter(local_network=True)
    session = segmenter.session(make_image(WIDTH, HEIGHT), crop_policy=policy)
    session.replay([(200, 150, True)] * 4)
    assert isinstance(segmenter.backend, RecordingBackend)
    assert segmenter.backend.graphs == ["network"] * 4


def test_warmup_meets_every_size_of_both_networks() -> None:
    segmenter = make_segmenter(local_network=True, input={"sizes": [64, 96], "max_clicks": 5})
    segmenter.warmup()
    backend = segmenter.backend
    assert isinstance(backend, RecordingBackend)
    shapes = [(feeds["image"].shape[-1], feeds["clicks"].shape[1]) for feeds in backend.decoded]
    assert sorted(zip(backend.graphs, shapes, strict=True)) == [
        (graph, (size, slots))
        for graph in ("local_network", "network")
        for size in (64, 96)
        for slots in (4, 5)
    ]
