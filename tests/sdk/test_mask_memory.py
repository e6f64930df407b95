"""Memory of masks that is used again: never while anybody can see it, and nothing of before shows."""

from __future__ import annotations

import ctypes
import gc
import threading
import tracemalloc

import numpy as np
import pytest
from sessions import new_session

from clickmask import native_library, paste
from clickmask.mask_memory import MaskMemory
from clickmask.view import Box, View

SHAPE = (30, 40)


def place(mask: np.ndarray) -> int:
    """The address of the first pixel."""
    return mask.__array_interface__["data"][0]


@pytest.fixture
def made(monkeypatch) -> list[tuple[int, int]]:
    """Shapes of the arrays that NumPy makes uncleared: an address alone may be the allocator's choice."""
    shapes, empty = [], np.empty

    def spy(shape, *rest):
        shapes.append(shape)
        return empty(shape, *rest)

    monkeypatch.setattr(np, "empty", spy)
    return shapes


def test_memory_is_used_again_once_its_mask_is_gone(made) -> None:
    memory = MaskMemory(SHAPE)
    mask = memory.mask()
    assert (mask.shape, mask.dtype, mask.flags.c_contiguous) == (SHAPE, np.bool_, True)
    first = place(mask)
    other = memory.mask()
    assert made == [SHAPE, SHAPE]
    assert place(other) != first
    del mask
    again = memory.mask()
    assert made == [SHAPE, SHAPE]
    assert place(again) == first


def test_the_memory_of_one_mask_waits_at_most(made: list[tuple[int, int]]) -> None:
    memory = MaskMemory(SHAPE)
    for _ in range(2):
        masks = [memory.mask() for _ in range(3)]
        del masks
    assert len(made) == 3 + 2


def torch_tensor(mask: np.ndarray) -> object:
    return pytest.importorskip("torch").from_numpy(mask)


HOLD = {
    "rows": lambda mask: mask[3:5],
    "one pixel of a view of a view": lambda mask: mask.view(np.uint8).T[1:][2, 3:4],
    "read only": lambda mask: np.lib.stride_tricks.as_strided(mask, (2, 2), (0, 0)),
    "buffer": memoryview,
    "ctypes": lambda mask: (ctypes.c_ubyte * mask.size).from_buffer(mask.view(np.uint8)),
    "torch": torch_tensor,
}


@pytest.mark.parametrize("hold", HOLD.values(), ids=HOLD)
def test_memory_that_anybody_sees_is_not_used_again(made, hold) -> None:
    memory = MaskMemory(SHAPE)
    mask = memory.mask()
    first, held = place(mask), hold(mask)
    del mask
    gc.collect()
    other = memory.mask()
    second = place(other)
    assert made.count(SHAPE) == 2
    assert second != first
    del held, other
    gc.collect()
    assert place(memory.mask()) in (first, second)
    assert made.count(SHAPE) == 2


@pytest.mark.parametrize("library", [True, False])
def test_nothing_of_an_earlier_mask_shows(monkeypatch, made, library) -> None:
    """Somebody wrote to all of it, other values than 0 and 1 too; the crop is a part of the image."""
    if library and (reason := native_library.unavailable_because()):
        pytest.skip(reason)
    monkeypatch.setattr(native_library, "available", lambda: library)
    memory, image_size = MaskMemory((240, 330)), (330, 240)
    for number, box in enumerate((Box(13, 7, 313, 227), Box(0, 0, 330, 240), Box(200, 100, 260, 150))):
        view = View(box, 64)
        logits = np.random.default_rng(number).normal(0, 3, view.valid_size[::-1]).astype(np.float32)
        made.clear()
        used = memory.mask()
        assert len(made) == (number == 0)
        used.view(np.uint8)[:] = 7
        first = place(used)
        del used
        mask, found, _ = paste.paste_with_box(logits, view, image_size, 0.5, memory)
        expected, expected_box, _ = paste.paste_with_box(logits, view, image_size, 0.5)
        assert place(mask) == first
        np.testing.assert_array_equal(mask.view(np.uint8), expected.view(np.uint8))
        assert found == expected_box
        del mask


def test_threads_never_get_the_same_memory() -> None:
    memory, wrong = MaskMemory(SHAPE), []

    def take(number: int) -> None:
        for _ in range(300):
            mask = memory.mask()
            mask.view(np.uint8)[:] = number
            wrong.extend(mask.view(np.uint8)[mask.view(np.uint8) != number])

    threads = [threading.Thread(target=take, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_masks_of_a_session_stay_and_the_next_ones_are_clean() -> None:
    """A caller who keeps a mask, writes to another, which is read-only, past NumPy, and drops it."""
    session, _ = new_session(320, 240)
    other, _ = new_session(320, 240)
    kept = session.click(100, 100)
    before = kept.copy()
    dropped = session.click(150, 120)
    with pytest.raises(ValueError, match="WRITEABLE"):
        dropped.setflags(write=True)
    ctypes.memset(place(dropped), 1, dropped.size)
    del dropped
    np.testing.assert_array_equal(
        session.click(60, 80), other.replay([(100, 100, True), (150, 120, True), (60, 80, True)])
    )
    np.testing.assert_array_equal(kept, before)


def test_a_session_holds_two_bytes_a_pixel_and_none_when_it_is_gone() -> None:
    side = 4000
    session, _ = new_session(side, side)
    tracemalloc.start()
    mask = session.click(2000, 1500)
    for x in (2100, 1900, 2200):
        mask = session.click(x, 1500)
    peak = tracemalloc.get_traced_memory()[1]
    assert peak < 2.1 * side * side + 4e6
    del session, mask
    gc.collect()
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert left < 0.1 * side * side
