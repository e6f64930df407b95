"""Masks, COCO run lengths and boxes: hand-made vectors, slow references by definition, round trips."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pictures import RING, picture

from clickmask import mask as mask_module
from clickmask.errors import InvalidInputError
from clickmask.mask import as_mask, mask_box, rle, rle_decode

masks = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def compress_reference(counts: list[int]) -> str:
    """COCO's string, character by character, from its definition."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


@pytest.mark.parametrize(
    ("mask", "counts", "text"),
    [
        # counts, then by hand: 100 = 3 * 32 + 4 is (4 + 32 more, 3) -> chr(84) chr(51)
        (np.zeros((10, 10), bool), [100], "T3"),
        (np.zeros((1, 1), bool), [1], "1"),
        (np.ones((1, 1), bool), [0, 1], "01"),
        # 16 needs a second group, since its top bit would read as a sign: (16 + 32, 0) -> "`" "0"
        (np.zeros((4, 4), bool), [16], "`0"),
        # columns first: #. over .# is object, background x 2, object
        (picture("#. .#"), [0, 1, 2, 1], "0120"),
        # the fourth run is stored as 1 - 3 = -2 -> 30 -> chr(78)
        (picture("..###....#"), [2, 3, 4, 1], "234N"),
    ],
)
def test_run_lengths_by_hand(mask, counts, text) -> None:
    size = list(mask.shape)
    assert rle(mask, compressed=False) == {"size": size, "counts": counts}
    assert rle(mask) == {"size": size, "counts": text}
    for form in (counts, text, text.encode(), bytearray(text.encode())):
        np.testing.assert_array_equal(rle_decode({"size": size, "counts": form}), mask)


def test_run_lengths_of_a_bool_mask_that_holds_other_bytes() -> None:
    """NumPy takes any byte but 0 as true, so a view of labels as bool is such a mask."""
    mask = np.array([[0, 1, 2, 2], [0, 1, 3, 0]], np.uint8).view(np.bool_)
    before = mask.tobytes()
    assert rle(mask, compressed=False)["counts"] == [2, 5, 1]
    assert mask.tobytes() == before


def test_run_lengths_of_a_box_by_hand() -> None:
    """A 3 x 4 box at (x 2, y 1) in 6 x 8: columns of 6, the box's rows 1..3 in columns 2..5."""
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:6] = True
    assert rle(mask, compressed=False)["counts"] == [13, 3, 3, 3, 3, 3, 3, 3, 14]
    # 13, 3, 3 as they are, then differences from two before: five zeros, 14 - 3 = 11
    assert rle(mask)["counts"] == "=3300000;"


@pytest.fixture(params=["at once", "in bands"])
def bands(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns laid end to end all at once, as small masks are, and a few at a time."""
    if request.param == "in bands":
        monkeypatch.setattr(mask_module, "_BAND_PIXELS", 25)


@pytest.mark.usefixtures("bands")
@given(masks)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_run_lengths_round_trip_and_follow_the_definition(mask) -> None:
    counts = rle(mask, compressed=False)["counts"]
    assert isinstance(counts, list)
    assert sum(counts) == mask.size
    assert all(c > 0 for c in counts[1:])
    assert rle(mask)["counts"] == compress_reference(counts)
    for encoded in (rle(mask), rle(mask, compressed=False)):
        np.testing.assert_array_equal(rle_decode(encoded), mask)


def test_run_lengths_of_a_large_mask_take_little_room_beside_it() -> None:
    mask = np.zeros((3000, 4000), np.bool_)
    mask[200:2900, 300:3500] = True
    encoded = rle(mask)
    for call, room in ((lambda: rle(mask), 0.5), (lambda: rle_decode(encoded), 1.5)):
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < room * mask.size


@given(st.lists(st.integers(1, 2**24), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_long_runs_compress_by_the_definition(counts) -> None:
    from clickmask.mask import _compress, _decompress

    text = _compress(np.array(counts, np.int64))
    assert text == compress_reference(counts)
    assert _decompress(text.encode()).tolist() == counts


@given(masks)
@settings(max_examples=50, deadline=None)
def test_run_lengths_equal_pycocotools(mask) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert rle(mask)["counts"] == expected["counts"].decode()


@pytest.mark.parametrize(
    "encoded",
    [
        {"size": [2, 2]},
        {"size": [2, 2, 2], "counts": "4"},
        {"size": "22", "counts": "4"},
        {"size": [2, -2], "counts": "4"},
        {"size": [2.0, 2], "counts": [4]},
        {"size": [2, 2], "counts": [3]},
        {"size": [0, 2], "counts": [0]},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [2, 2], "counts": [True, 3]},
        {"size": [2, 2], "counts": ""},
        {"size": [2, 2], "counts": "T"},
        {"size": [2, 2], "counts": "é"},
        {"size": [2, 2], "counts": "~~"},
        {"size": [2, 2], "counts": "P" * 9 + "0"},
        {"size": [2, 2], "counts": "OOOO1"},
        {"size": [2, 2], "counts": None},
        None,
        np.zeros(3),
    ],
)
def test_run_lengths_that_cannot_be_are_refused(encoded) -> None:
    with pytest.raises(InvalidInputError, match="run lengths must be"):
        rle_decode(encoded)


def test_run_lengths_that_memory_cannot_hold_are_refused() -> None:
    side, counts = 1 << 24, np.full(1 << 10, 1 << 38)  # more bytes than a process can address
    with pytest.raises(InvalidInputError, match="a mask that memory holds"):
        rle_decode({"size": [side, side], "counts": mask_module._compress(counts)})


def test_tight_box() -> None:
    assert mask_box(RING) == (1, 1, 5, 4)
    assert mask_box(np.zeros((3, 4), bool)) is None
    assert mask_box(np.ones((3, 4), bool)) == (0, 0, 4, 3)


@given(masks)
@settings(deadline=None)
def test_box_is_tight(mask) -> None:
    box = mask_box(mask)
    assert (box is None) == (not mask.any())
    if box is not None:
        x0, y0, x1, y1 = box
        inside = mask[y0:y1, x0:x1]
        assert inside.sum() == mask.sum()
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()


def test_as_mask_accepts_the_usual_forms() -> None:
    expected = picture("#. .#")
    for form in (
        expected,
        expected.astype(np.uint8),
        expected.astype(np.uint8) * 255,
        np.asfortranarray(expected),
    ):
        result = as_mask(form, (2, 2))
        assert result.dtype == bool
        assert result.flags.c_contiguous
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ([[True]], "NumPy array.*list"),
        (np.zeros((0, 3), bool), "at least one pixel"),
        (np.zeros((2, 2, 1), bool), r"shape \(2, 2, 1\)"),
        (np.zeros((3, 2), bool), r"image's shape \(2, 3\), but got \(3, 2\)"),
        (np.full((2, 3), 7, np.uint8), "0 and 255"),
        (np.uint8([[0, 1, 2], [0, 0, 0]]), "0 and 255"),
        (np.uint8([[0, 1, 255], [0, 0, 0]]), "0 and 255"),
        (np.zeros((2, 3), np.float32), "mask > 0.5"),
        (np.zeros((2, 3), np.int64), "int64"),
    ],
)
def test_as_mask_refuses_the_rest(mask, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        as_mask(mask, (3, 2))
