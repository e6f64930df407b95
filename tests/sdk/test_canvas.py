"""Masks on memory that is met again: right, unchanged while anybody has them, and forgotten in time."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickmask import canvas, native_library
from clickmask.native_pixels import Runs

pytestmark = pytest.mark.skipif(not native_library.available(), reason="the native library is not built")
SIZE = (23, 17)


@pytest.fixture(autouse=True)
def none_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    """And small masks treated as large ones are."""
    monkeypatch.setattr(canvas, "_LARGE", 0)
    canvas.clear()


def drawn(seed: int) -> tuple[np.ndarray, Runs]:
    """A random mask in a random part of the image, and its runs."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SIZE[::-1], np.bool_)
    left, top = int(rng.integers(0, 20)), int(rng.integers(0, 15))
    width, height = int(rng.integers(1, 24 - left)), int(rng.integers(1, 18 - top))
    part = rng.random((height, width)) < rng.choice([0.0, 0.2, 0.8, 1.0])
    mask[top : top + height, left : left + width] = part
    return mask, Runs.of(part, (left, top))


@given(st.lists(st.tuples(st.integers(0, 10**6), st.booleans()), min_size=1, max_size=12))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_mask_is_right_and_stays_so_while_it_is_held(steps) -> None:
    """However many are held and whichever memory comes back in which order."""
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for seed, let_go in steps:
        expected, runs = drawn(seed)
        held.append((canvas.show(runs, SIZE), expected))
        if let_go:
            held.pop(seed % len(held))
        for shown, right in held:
            np.testing.assert_array_equal(shown, right)


def test_memory_is_met_again_once_no_view_of_the_mask_is_left() -> None:
    mask = canvas.show(drawn(1)[1], SIZE)
    address, rows = mask.ctypes.data, mask[3:5].view(np.uint8)
    del mask
    gc.collect()
    other = canvas.show(drawn(2)[1], SIZE)
    assert other.ctypes.data != address  # a view still has it
    del rows
    gc.collect()
    expected, runs = drawn(3)
    again = canvas.show(runs, SIZE)
    assert again.ctypes.data == address
    np.testing.assert_array_equal(again, expected)


def test_a_mask_cannot_be_made_writable() -> None:
    mask = canvas.show(drawn(4)[1], SIZE)
    assert not mask.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        mask.setflags(write=True)


def test_another_size_gets_memory_of_its_own() -> None:
    canvas.show(drawn(5)[1], SIZE)
    expected = np.zeros((40, 30), np.bool_)
    expected[2:5, 7:9] = True
    np.testing.assert_array_equal(canvas.show(Runs.of(expected), (30, 40)), expected)
    assert [memory.shape for memory, _ in canvas._spare] == [(40, 30)]
    canvas.clear()
    assert not canvas._spare
