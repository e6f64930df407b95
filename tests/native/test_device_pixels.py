"""Crops, previous masks and masks on a device, on a double of CUDA and on a GPU: as the host makes them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from device_machines import (
    HEIGHT,
    NEW,
    OLD,
    PAD,
    THRESHOLD,
    WIDTH,
    Double,
    assert_crops,
    logits_on,
    padded,
    picture,
    pixels_of,
)

from clickmask import encode, paste
from clickmask.backends.cuda_memory import DeviceArray, DevicePool
from clickmask.errors import BackendError, InvalidInputError
from clickmask.mask import mask_box
from clickmask.pixels import HostPixels
from clickmask.view import Box, View


@pytest.mark.parametrize("layout", ["rgb", "rgba", "planes", "grey"])
def test_images_are_cropped_where_they_are(machine: Any, layout: str) -> None:
    rgb = picture()
    arrays: dict[str, Callable[[], Any]] = {
        "rgb": lambda: machine.foreign(rgb),
        "rgba": lambda: machine.foreign(np.dstack([rgb, rgb[..., :1]])),
        "planes": lambda: machine.foreign(np.ascontiguousarray(rgb.transpose(2, 0, 1))),
        "grey": lambda: machine.foreign(np.ascontiguousarray(rgb[..., 0])),
    }
    given = arrays[layout]()
    if layout == "planes":
        given = (
            given.permute(1, 2, 0)
            if hasattr(given, "permute")
            else machine.foreign(given.memory.transpose(1, 2, 0))
        )
    pixels = pixels_of(machine, given)
    assert pixels.image_size == (WIDTH, HEIGHT)
    assert_crops(machine, pixels, np.repeat(rgb[..., :1], 3, axis=2) if layout == "grey" else rgb)


def test_the_mask_is_what_the_host_makes(machine: Any) -> None:
    pixels, logits = pixels_of(machine), logits_on(OLD)
    mask = pixels.device_mask(machine.device(padded(logits, OLD)), OLD)
    assert (mask.__cuda_array_interface__["typestr"], mask.shape) == ("|b1", (HEIGHT, WIDTH))
    near = np.abs(paste.paste_probability(logits, OLD, (WIDTH, HEIGHT)) - THRESHOLD) < 1e-5
    expected = paste.paste_with_box(logits, OLD, (WIDTH, HEIGHT), THRESHOLD).mask
    assert (machine.host(mask) == expected)[~near].all()


@pytest.mark.parametrize("shift", [0.0, -100.0], ids=["some", "none"])
def test_a_mask_for_the_host_comes_as_bits_and_is_the_one_on_the_device(machine: Any, shift: float) -> None:
    pixels = pixels_of(machine)
    for view in (OLD, NEW, View(Box(7, 3, 20, 9), 64)):
        logits = machine.device(padded(logits_on(view) + np.float32(shift), view))
        mask, box, _ = pixels.paint(logits, view)
        assert (mask.shape, mask.dtype) == ((HEIGHT, WIDTH), np.bool_)
        np.testing.assert_array_equal(mask, machine.host(pixels.device_mask(logits, view)))
        tight = mask_box(mask)
        assert box == pixels.find(logits, view) == (Box(*tight) if tight else None)


def test_crops_stay_on_the_device_and_are_not_overwritten(machine: Any) -> None:
    pixels, image = pixels_of(machine), picture()
    crops = {view: pixels.crop(view) for view in (OLD, NEW)}
    for view, found in crops.items():
        assert isinstance(found, DeviceArray)
        assert np.abs(machine.host(found) - encode.image_tensor(image, view, PAD)).max() < 1.01 / 255


FINE, COARSE = View(Box(60, 50, 80, 66), 96), View(Box(0, 0, WIDTH, HEIGHT), 64)
SIDE = View(Box(80, 0, WIDTH, HEIGHT), 64)
MOVES = {
    "nowhere": (None, OLD),
    "stays": (NEW, NEW),
    "closer": (OLD, NEW),
    "further": (NEW, OLD),
    "much further": (FINE, COARSE),
    "aside": (NEW, SIDE),
    "apart": (FINE, SIDE),
}


@pytest.mark.parametrize("coordinates", ["half_pixel", "public"])
@pytest.mark.parametrize("fit", ["letterbox", "squash"])
@pytest.mark.parametrize("move", MOVES)
def test_the_previous_mask_is_what_the_host_makes(
    machine: Any, move: str, fit: Any, coordinates: Any
) -> None:
    old, new = (view and replace(view, fit=fit, coordinates=coordinates) for view in MOVES[move])
    assert new is not None
    pixels, host = pixels_of(machine), HostPixels(picture(), PAD, THRESHOLD)
    logits = None if old is None else logits_on(old)
    given = None if logits is None or old is None else machine.device(padded(logits, old))

    found = machine.host(pixels.previous_mask(given, old, new))

    expected = host.previous_mask(logits, old, new)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert (found == 0).tolist() == (expected == 0).tolist()
    assert (expected > 0).any() == (move not in ("nowhere", "apart"))


def test_the_probability_comes_to_the_host_when_asked_for(machine: Any) -> None:
    pixels, logits = pixels_of(machine), logits_on(NEW)
    found = pixels.probability(machine.device(padded(logits, NEW)), NEW)
    np.testing.assert_array_equal(found, paste.paste_probability(logits, NEW, (WIDTH, HEIGHT)))


def test_memory_on_the_device_does_not_grow_with_the_number_of_crops(double: Double) -> None:
    pixels = pixels_of(double)

    def look(view: View) -> None:
        logits = double.device(padded(logits_on(view), view))
        pixels.crop(view)
        pixels.paint(logits, view)
        pixels.previous_mask(logits, view, OLD)

    look(View(Box(0, 0, 30, 30), 64))
    blocks = double.fake.live("device")
    for side in range(31, 60):
        look(View(Box(0, 0, side, side), 64))

    assert double.fake.live("device") == blocks


def test_idle_sessions_do_not_keep_what_they_worked_in(double: Double) -> None:
    logits = double.device(padded(logits_on(OLD), OLD))
    sessions = [pixels_of(double) for _ in range(6)]
    live = []
    for pixels in sessions:
        pixels.crop(NEW)
        pixels.paint(logits, OLD)
        pixels.previous_mask(logits, OLD, NEW)
        live.append(double.fake.live("device"))
    assert set(live) == {live[0]}
    del sessions[1:], pixels
    assert_crops(double, sessions[0], picture())


def test_memory_of_a_call_that_fails_is_not_used_again_before_its_work_is_done(
    double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, unfinished = pixels_of(double), []
    logits = double.device(padded(logits_on(OLD), OLD))
    give = DevicePool.give

    def watched(pool: DevicePool, pointer: int, nbytes: int) -> None:
        unfinished.append(sum(len(stream.work) for stream in double.fake.streams.values()))
        give(pool, pointer, nbytes)

    def broken(*_: Any) -> Any:
        raise BackendError("no pinned memory")

    monkeypatch.setattr(DevicePool, "give", watched)
    monkeypatch.setattr(pixels._pinned, "array", broken)
    with pytest.raises(BackendError, match="no pinned memory"):
        pixels.paint(logits, OLD)
    gc.collect()
    assert unfinished == [0]


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8])
def test_a_mask_is_written_into_an_array_of_the_application(machine: Any, dtype: Any) -> None:
    pixels, logits = pixels_of(machine), machine.device(padded(logits_on(NEW), NEW))
    out = machine.foreign(np.full((HEIGHT, WIDTH), 1, dtype))
    assert pixels.device_mask(logits, NEW, out) is out
    np.testing.assert_array_equal(machine.host(out) != 0, machine.host(pixels.device_mask(logits, NEW)))


def test_masks_already_given_stay_as_they_are(double: Double) -> None:
    pixels, logits = pixels_of(double), padded(logits_on(OLD), OLD)
    first = pixels.device_mask(double.device(logits), OLD)
    kept = double.host(first)
    pixels.device_mask(double.device(-logits), OLD)
    np.testing.assert_array_equal(double.host(first), kept)


def test_threads_share_the_pixels_of_an_image(double: Double) -> None:
    pixels, image = pixels_of(double), picture()
    arrays = [double.device(sign * padded(logits_on(OLD), OLD)) for sign in (1, -1)]
    expected = [double.host(pixels.device_mask(logits, OLD)) for logits in arrays]

    def work(number: int) -> None:
        for _ in range(5):
            mask = pixels.device_mask(arrays[number % 2], OLD)
            np.testing.assert_array_equal(double.host(mask), expected[number % 2])
            assert_crops(double, pixels, image)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_logits_of_another_view_and_masks_of_another_size_are_refused(double: Double) -> None:
    pixels, logits = pixels_of(double), double.device(padded(logits_on(OLD), OLD))
    for wrong in (
        logits_on(OLD),
        double.device(padded(logits_on(NEW), NEW)),
        double.device(np.zeros((1, 1, 64, 64))),
    ):
        for use in (pixels.device_mask, pixels.paint, pixels.find, pixels.probability):
            with pytest.raises(InvalidInputError, match="for this view"):
                use(wrong, OLD)
        with pytest.raises(InvalidInputError, match="for this view"):
            pixels.previous_mask(wrong, OLD, NEW)
    with pytest.raises(InvalidInputError, match="out: expected the image's shape"):
        pixels.device_mask(logits, OLD, double.foreign(np.zeros((5, 5), np.bool_)))


def test_a_view_off_the_image_raises_and_the_next_call_works(double: Double) -> None:
    double.kernels = double.kernels.kernels  # at once, as arguments are checked before anything is queued
    pixels = pixels_of(double)
    with pytest.raises(BackendError, match="view inside the image"):
        pixels.crop(View(Box(100, 100, 300, 300), 64))
    assert_crops(double, pixels, picture())
