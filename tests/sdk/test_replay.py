"""Sessions as JSON text: bit-identical replay, and a clear refusal of everything that does not belong."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sessions import make_image, make_segmenter

from clickmask.clicks import Click
from clickmask.crop import CropPolicy
from clickmask.errors import BackendError, InvalidInputError, SessionStateError
from clickmask.mask import _compress
from clickmask.segmenter import Segmenter
from clickmask.session import Session

CROP = {"kind": "fbrs", "start_click": 2, "min_size": 40}
IMAGE = make_image(300, 200)


def make(**overrides) -> Segmenter:
    return make_segmenter(echo=True, crop=CROP, **overrides)


def annotated(segmenter: Segmenter | None = None, **options) -> Session:
    session = (segmenter or make()).session(IMAGE, **options)
    session.set_mask(np.random.default_rng(0).random((200, 300)) > 0.99)
    for x, y, positive in ((150, 100, True), (190.25, 1 / 3, True), (40, 30, False), (150, 120, True)):
        session.click(x, y, positive)
    session.remove(1)
    return session


def assert_same(a: Session, b: Session) -> None:
    assert a.clicks == b.clicks
    assert a.crop == b.crop
    np.testing.assert_array_equal(a.mask, b.mask)
    assert a.probability.tobytes() == b.probability.tobytes()
    assert a.to_json() == b.to_json()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"crop_policy": "paper", "size": 96},
        {"coordinates": "public", "crop_policy": "none"},
        {"crop_policy": "global_to_local"},
        {"crop_policy": CropPolicy("global_to_local", small_object_expansion=2.5, min_size=7)},
    ],
)
def test_replay_is_bit_identical_in_a_fresh_segmenter(options) -> None:
    session = annotated(**options)
    assert session.mask.any()
    text = session.to_json()
    for form in (text, text.encode()):
        assert_same(Session.from_json(make(), IMAGE, form), session)


def test_replay_is_bit_identical_with_momentum() -> None:
    session = annotated(make(momentum=0.4))
    assert not np.array_equal(session.probability, annotated().probability)
    assert_same(Session.from_json(make(momentum=0.4), IMAGE, session.to_json()), session)


def test_replayed_session_goes_on_as_the_saved_one() -> None:
    session = annotated()
    copy = Session.from_json(make(), IMAGE, session.to_json())
    for each in (session, copy):
        each.click(100, 50)
        each.remove(0)
    assert_same(copy, session)


def test_untouched_session_round_trips() -> None:
    session = make().session(IMAGE)
    copy = Session.from_json(make(), IMAGE, session.to_json())
    assert_same(copy, session)
    assert not copy.can_undo


def test_undo_after_restore_takes_back_the_clicks_one_by_one() -> None:
    copy = Session.from_json(make(), IMAGE, annotated().to_json())
    left = []
    while copy.can_undo:
        copy.undo()
        left.append(len(copy.clicks))
    assert left == [2, 1, 0, 0]  # the last one takes the initial mask back
    assert not copy.mask.any()


def test_what_the_text_holds() -> None:
    session = make().session(IMAGE, size=96)
    session.click(1.5, 2)
    document = json.loads(session.to_json())
    parts = {"format", "version", "image", "bundle", "options", "clicks", "initial_mask", "mask"}
    assert set(document) == parts
    assert document["mask"] == session.rle()
    assert (document["format"], document["version"]) == ("clickmask-session", 2)
    assert document["image"]["size"] == [300, 200]
    assert len(document["image"]["sha256"]) == 64
    assert document["bundle"]["name"] == "fake"
    assert len(document["bundle"]["sha256"]) == 64
    assert document["options"]["size"] == 96
    assert document["options"]["coordinates"] == "half_pixel"
    assert document["options"]["crop"]["kind"] == "fbrs"
    assert document["clicks"] == [{"x": 1.5, "y": 2.0, "positive": True}]
    assert document["initial_mask"] is None
    session.set_mask(np.zeros((200, 300), bool))
    document = json.loads(session.to_json())
    nothing = {"size": [200, 300], "counts": "Pcj1"}  # one run of 60000 = 0 + 19 * 32 + 26 * 32^2 + 1 * 32^3
    assert document["initial_mask"] == document["mask"] == nothing


coordinate = st.floats(-0.5, 199.4)


@given(st.lists(st.tuples(coordinate, coordinate, st.booleans()), max_size=5))
@settings(max_examples=25, deadline=None)
def test_any_clicks_survive_the_text(points) -> None:
    segmenter = make()
    session = segmenter.session(IMAGE)
    session.replay(points)
    assert_same(Session.from_json(segmenter, IMAGE, session.to_json()), session)


def test_grey_and_its_rgb_form_are_the_same_image() -> None:
    grey = IMAGE[..., 0]
    session = make().session(grey)
    session.click(5, 5)
    assert_same(Session.from_json(make(), np.dstack([grey] * 3), session.to_json()), session)


def test_another_image_is_refused() -> None:
    text = annotated().to_json()
    with pytest.raises(InvalidInputError, match="300 x 200 pixels, but got one of 200 x 300"):
        Session.from_json(make(), make_image(200, 300), text)
    altered = IMAGE.copy()
    altered[7, 8, 2] ^= 1
    with pytest.raises(InvalidInputError, match=r"sha256 .* pass the original pixels"):
        Session.from_json(make(), altered, text)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"source": {"checkpoint": "fake.safetensors", "sha256": "1" * 64}},
        {"threshold": 0.49},
        {"input": {"sizes": [64, 96]}},
    ],
)
def test_another_bundle_is_refused(change) -> None:
    with pytest.raises(InvalidInputError, match=r"made with the bundle 'fake'.* load that bundle"):
        Session.from_json(make(**change), IMAGE, annotated().to_json())


def test_another_bundle_is_told_before_a_size_that_it_lacks() -> None:
    text = annotated(size=96).to_json()
    with pytest.raises(InvalidInputError, match="load that bundle"):
        Session.from_json(make(input={"sizes": [64]}), IMAGE, text)


def test_a_session_of_another_bundle_goes_on_from_its_mask_where_that_is_wished() -> None:
    session = annotated(size=96, crop_policy="paper")
    later = make(input={"sizes": [64, 128]}, name="later")  # has not even the record's input size
    again = Session.from_json(later, IMAGE, session.to_json(), other_bundle=True)
    np.testing.assert_array_equal(again.mask, session.mask)
    assert again.clicks == ()
    other = later.session(IMAGE)
    other.set_mask(session.mask)
    for each in (again, other):
        each.click(150, 110)
    assert_same(again, other)  # with the options of its own bundle
    assert_same(Session.from_json(later, IMAGE, again.to_json()), again)


def test_a_session_of_the_same_bundle_has_its_clicks_all_the_same() -> None:
    session = annotated()
    assert_same(Session.from_json(make(), IMAGE, session.to_json(), other_bundle=True), session)


def test_what_another_bundle_goes_on_from_is_checked_too() -> None:
    later, text = make(name="later"), annotated().to_json()
    with pytest.raises(InvalidInputError, match="pass the original image"):
        Session.from_json(later, make_image(200, 300), text, other_bundle=True)
    with pytest.raises(InvalidInputError, match="add up to 200 x 300"):
        Session.from_json(later, IMAGE, changed("mask.counts", "T3"), other_bundle=True)
    with pytest.raises(InvalidInputError, match="expected the key 'mask'"):
        Session.from_json(later, IMAGE, changed("mask", ...), other_bundle=True)


def test_a_network_that_takes_no_mask_goes_on_from_none() -> None:
    blind, text = make(name="blind", input={"previous_mask": False}), annotated().to_json()
    with pytest.raises(InvalidInputError, match=r"load that bundle$"):
        Session.from_json(blind, IMAGE, text)
    with pytest.raises(InvalidInputError, match="'blind' has none"):
        Session.from_json(blind, IMAGE, text, other_bundle=True)


@pytest.mark.parametrize("previous_mask", [True, False])
def test_an_untouched_session_goes_on_untouched_in_another_bundle(previous_mask) -> None:
    later, text = make(name="later", input={"previous_mask": previous_mask}), make().session(IMAGE).to_json()
    again = Session.from_json(later, IMAGE, text, other_bundle=True)
    assert not again.can_undo
    assert_same(again, later.session(IMAGE))


def test_a_session_set_to_an_empty_mask_restores_as_one_without() -> None:
    session = make().session(IMAGE)
    session.set_mask(np.zeros((200, 300), bool))
    session.click(150, 100)
    copy = Session.from_json(make(), IMAGE, session.to_json())
    np.testing.assert_array_equal(copy.mask, session.mask)
    np.testing.assert_array_equal(copy.probability, session.probability)
    assert (copy.clicks, copy.crop) == (session.clicks, session.crop)


@pytest.mark.parametrize("counts", ["two runs", "a million empty ones"])
def test_the_image_is_compared_before_a_mask_is_decoded(counts: str) -> None:
    side, count = 8000, 2 if counts == "two runs" else 1_000_000
    runs = np.zeros(count, np.int64)
    runs[0], runs[-1] = 10, side * side - 10
    document = json.loads(changed("mask", {"size": [side, side], "counts": _compress(runs)}))
    document["image"]["size"] = [side, side]
    text, later = json.dumps(document), make(name="later")
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInputError, match="pass the original image"):
            Session.from_json(later, IMAGE, text, other_bundle=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(text) + 1_000_000  # of the mask 64 MB, of its million runs 65 bytes each


@pytest.mark.parametrize("path", ["options.crop.extra", "options.crop.kind", "clicks", "extra"])
def test_what_a_later_version_says_besides_does_not_hold_its_mask_back(path) -> None:
    text = changed(path, "what this version does not know")
    again = Session.from_json(make(name="later"), IMAGE, text, other_bundle=True)
    np.testing.assert_array_equal(again.mask, annotated().mask)


def test_the_same_network_with_other_artefacts_is_the_same_bundle() -> None:
    session = annotated()
    later = make(created="2027-02-03")
    assert later.identity == make().identity
    assert_same(Session.from_json(later, IMAGE, session.to_json()), session)


def changed(path: str, value: object) -> str:
    """The text of a session with one value set; a value of ... takes the key out."""
    document = json.loads(annotated().to_json())
    *parents, last = path.split(".")
    at = document
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at[key]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("format", "other", '"format": "clickmask-session"'),
        ("format", ..., '"format": "clickmask-session"'),
        ("version", 1, '"version": 2 .restore it with the clickmask that wrote it., got 1'),
        ("version", True, '"version": 2 .*, got True'),
        ("version", 2.0, '"version": 2 .*, got 2.0'),
        ("version", "1" * 10_000, '"version": 2 .*, got '),
        ("version", ..., '"version": 2'),
        ("extra", 1, "expected only the keys .* got also .'extra'"),
        ("clicks", ..., "expected the key 'clicks'"),
        ("clicks", {}, "clicks: expected an array"),
        ("clicks", [{"x": 1, "y": 1, "positive": True}] * 1025, "clicks: expected an array of 0 to 1024"),
        ("clicks.0.x", float("nan"), "expected finite numbers, got NaN"),
        ("clicks.0.y", "1", r"clicks\[0\].y: expected a number"),
        ("clicks.0.y", 10**30, "expected integers of at most"),
        ("clicks.1.positive", 1, r"clicks\[1\].positive: expected true or false"),
        ("clicks.1.label", 1, r"clicks\[1\]: expected only the keys"),
        ("clicks.2.x", 300, r"clicks\[2\].x: expected a number from -0.5 to 299.5, got 300"),
        ("clicks.2.x", 299.5, "outside the image"),
        ("image", None, "image: expected an object"),
        ("image.size", [300], "image.size: expected an array of 2 items"),
        ("image.size", [300, -1], r"image.size\[1\]: expected an integer"),
        ("image.size", [300, 200.0], r"image.size\[1\]: expected an integer"),
        ("image.sha256", 5, "image.sha256: expected a sha256"),
        ("image.sha256", "F" * 64, "image.sha256: expected a sha256"),
        ("bundle.sha256", ["a"], "bundle.sha256: expected a sha256"),
        ("bundle.name", "n" * 513, "bundle.name: expected 1 to 512 printable"),
        ("bundle.name", "\x1b[2J", "bundle.name: expected 1 to 512 printable"),
        ("bundle.name", "\ud800", "bundle.name: expected 1 to 512 printable"),
        ("options.size", 100, "size must be None or one of"),
        ("options.size", "96", "options.size: expected an integer"),
        ("options.size", 96.0, "options.size: expected an integer"),
        ("options.coordinates", "corner", "options.coordinates"),
        ("options.crop.kind", "zoom", "options.crop.kind: expected one of"),
        ("options.crop.expansion", 0.5, "options.crop.expansion: expected a number"),
        (
            "options.crop.small_object_expansion",
            ...,
            "options.crop: expected the key 'small_object_expansion'",
        ),
        ("options.crop.small_object_expansion", 0, "options.crop.small_object_expansion: expected a number"),
        ("options.crop.start_click", 2.0, "options.crop.start_click: expected an integer"),
        ("options.crop.extra", 1, "options.crop: expected only the keys"),
        ("initial_mask", "x", "initial_mask: expected an object"),
        ("initial_mask.counts", [1, 2], "initial_mask.counts: expected COCO's string"),
        ("initial_mask.counts", "", "initial_mask.counts: expected COCO's string"),
        ("initial_mask.counts", "\x1b]0;", "initial_mask.counts: expected COCO's string"),
        ("initial_mask.counts", "0" * 120_002, "at most 120001 characters"),
        ("initial_mask.size", [200.0, 300], r"initial_mask.size\[0\]: expected an integer"),
        ("initial_mask.counts", "T3", "add up to 200 x 300"),
        ("initial_mask.size", [2**30, 2**30], "initial_mask.size: expected the image's"),
        ("mask", None, "mask: expected an object"),
        ("mask.counts", "", r"\.mask\.counts: expected COCO's string"),
    ],
)
def test_altered_text_is_refused_by_name(path, value, words: str) -> None:
    refused(changed(path, value), words)


def refused(text: str | bytes, words: str) -> None:
    """The text is refused in these words, in a message that is fit for a terminal and a log."""
    with pytest.raises(InvalidInputError, match=words) as caught:
        Session.from_json(make(), IMAGE, text)
    message = str(caught.value)
    assert len(message) < 1000
    assert message.isprintable()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"version": 2', '"version": 2, "version": 1', "each key once, got 'version' twice"),
        ('"x": 150.0', '"x": 150.0, "x": 9', "each key once, got 'x' twice"),
        ('"x": 150.0', '"x": 1e999', r"clicks\[0\].x: expected a number"),
        ('"x": 150.0', '"x": ' + "1" * 10_000, "expected integers of at most"),
        ('"version": 2', '"version": 2, "' + "k" * 10_000 + '": 1', "1 to 512 printable"),
        ('"version": 2', '"version": 2, "\\u001b[2J": 1', "1 to 512 printable"),
        ('"version": 2', '"version": 2, "\ud800": 1', "UTF-8"),
        ('"version": 2', '"version": 2, "a": ' + "[" * 99 + "]" * 99, "levels of nesting"),
        ("{", "{" + "".join(f'"k{i}": 0, ' for i in range(2000)), "at most 1024 members"),
        ("{", "{" + "".join(f'"{"k" * 500}{i}": 0, ' for i in range(9)), "expected only the keys"),
    ],
)
def test_hostile_text_is_refused_in_a_short_clean_message(old, new, words) -> None:
    refused(annotated().to_json().replace(old, new, 1), words)


def test_names_as_long_as_they_may_be_leave_the_message_short() -> None:
    text = changed("bundle.name", "n" * 512).replace(make().identity.sha256, "0" * 64)
    with pytest.raises(InvalidInputError, match="load that bundle") as caught:
        Session.from_json(make(name="m" * 512), IMAGE, text)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("pattern", ["noise", "checks", "long runs", "full"])
def test_the_limit_of_the_initial_mask_holds_every_mask(pattern) -> None:
    mask = np.ones((200, 300), bool)
    if pattern == "noise":
        mask = np.random.default_rng(0).random((200, 300)) > 0.5
    elif pattern == "checks":
        mask = np.indices((200, 300)).sum(axis=0) % 2 == 1
    elif pattern == "long runs":  # 17 and 1 in turn: most characters for a run
        mask = (np.arange(60_000) % 36 < 17).reshape(300, 200).T | (np.arange(60_000) % 36 == 18).reshape(
            300, 200
        ).T
    session = make().session(IMAGE)
    session.set_mask(mask)
    assert_same(Session.from_json(make(), IMAGE, session.to_json()), session)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", "[" * 100_000, b"\xff\xfe{", '"clickmask-session"']
)
def test_text_that_is_no_session_is_refused(text) -> None:
    with pytest.raises(InvalidInputError, match="expected"):
        Session.from_json(make(), IMAGE, text)


def test_something_else_than_text_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="JSON text, but got dict"):
        Session.from_json(make(), IMAGE, {})  # type: ignore[arg-type]


def test_more_clicks_than_the_bundle_takes_are_refused() -> None:
    document = json.loads(annotated().to_json())
    document["clicks"] *= 11
    with pytest.raises(SessionStateError, match="at most 32 clicks"):
        Session.from_json(make(), IMAGE, json.dumps(document))


def test_failure_of_the_runtime_is_passed_on() -> None:
    segmenter = make()
    segmenter.backend.fail_decode = True  # type: ignore[attr-defined]
    with pytest.raises(BackendError, match="broke"):
        Session.from_json(segmenter, IMAGE, annotated().to_json())


def test_clicks_are_kept_to_the_last_bit() -> None:
    session = make().session(IMAGE)
    session.click(0.1 + 0.2, np.nextafter(1, 2))
    assert Session.from_json(make(), IMAGE, session.to_json()).clicks == (
        Click(0.1 + 0.2, float(np.nextafter(1, 2))),
    )
