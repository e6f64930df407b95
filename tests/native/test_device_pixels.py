"""Crops and masks on a device, on a double of CUDA and on a GPU: those that the host makes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_machines import (
    HEIGHT,
    HERE,
    NEW,
    OLD,
    PAD,
    THRESHOLD,
    WIDTH,
    Double,
    assert_crops,
    logits_on,
    picture,
    pixels_of,
)

from clickmask import encode, paste
from clickmask.backends import cuda_device, device_pixels
from clickmask.backends.cuda_memory import DeviceArray
from clickmask.backends.fake import FakeBackend, fake_manifest
from clickmask.bundle import Bundle
from clickmask.errors import BackendError, InvalidInputError
from clickmask.mask import mask_box
from clickmask.segmenter import Segmenter
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
    assert_crops(pixels, np.repeat(rgb[..., :1], 3, axis=2) if layout == "grey" else rgb)


def test_the_mask_is_what_the_host_makes(machine: Any) -> None:
    pixels, logits = pixels_of(machine), logits_on(OLD)
    mask = pixels.device_mask(logits, OLD)
    assert (mask.__cuda_array_interface__["typestr"], mask.shape) == ("|b1", (HEIGHT, WIDTH))
    near = np.abs(paste.paste_probability(logits, OLD, (WIDTH, HEIGHT)) - THRESHOLD) < 1e-5
    expected = paste.paste_with_box(logits, OLD, (WIDTH, HEIGHT), THRESHOLD).mask
    assert (machine.host(mask) == expected)[~near].all()


@pytest.mark.parametrize("shift", [0.0, -100.0], ids=["some", "none"])
def test_a_mask_for_the_host_comes_as_bits_and_is_the_one_on_the_device(machine: Any, shift: float) -> None:
    pixels = pixels_of(machine)
    for view in (OLD, NEW, View(Box(7, 3, 20, 9), 64)):
        logits = logits_on(view) + np.float32(shift)
        mask, box, _ = pixels.paint(logits, view)
        assert (mask.shape, mask.dtype) == ((HEIGHT, WIDTH), np.bool_)
        np.testing.assert_array_equal(mask, machine.host(pixels.device_mask(logits, view)))
        tight = mask_box(mask)
        assert box == pixels.find(logits, view) == (Box(*tight) if tight else None)


def test_crops_stay_on_the_device_for_a_backend_that_takes_them_there(machine: Any) -> None:
    pixels, image = pixels_of(machine, takes_device_arrays=True), picture()
    crops = {view: pixels.crop(view) for view in (OLD, NEW)}
    for view, found in crops.items():
        assert isinstance(found, DeviceArray)
        assert np.abs(machine.host(found) - encode.image_tensor(image, view, PAD)).max() < 1.01 / 255


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8])
def test_a_mask_is_written_into_an_array_of_the_application(machine: Any, dtype: Any) -> None:
    pixels, logits = pixels_of(machine), logits_on(NEW)
    out = machine.foreign(np.full((HEIGHT, WIDTH), 1, dtype))
    assert pixels.device_mask(logits, NEW, out) is out
    np.testing.assert_array_equal(machine.host(out) != 0, machine.host(pixels.device_mask(logits, NEW)))


def test_masks_already_given_stay_as_they_are(double: Double) -> None:
    pixels, logits = pixels_of(double), logits_on(OLD)
    first = pixels.device_mask(logits, OLD)
    kept = double.host(first)
    pixels.device_mask(-logits, OLD)
    np.testing.assert_array_equal(double.host(first), kept)


def test_threads_share_the_pixels_of_an_image(double: Double) -> None:
    pixels, image = pixels_of(double), picture()
    arrays = [sign * logits_on(OLD) for sign in (1, -1)]
    expected = [double.host(pixels.device_mask(logits, OLD)) for logits in arrays]

    def work(number: int) -> None:
        for _ in range(5):
            mask = pixels.device_mask(arrays[number % 2], OLD)
            np.testing.assert_array_equal(double.host(mask), expected[number % 2])
            assert_crops(pixels, image)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_logits_of_another_view_and_masks_of_another_size_are_refused(double: Double) -> None:
    pixels, logits = pixels_of(double), logits_on(OLD)
    for wrong in (logits[:-1], logits.astype(np.float64), np.zeros((64, 64), np.float32)):
        with pytest.raises(InvalidInputError, match="float32 of this view"):
            pixels.device_mask(wrong, OLD)
    with pytest.raises(InvalidInputError, match="out: expected the image's shape"):
        pixels.device_mask(logits, OLD, double.foreign(np.zeros((5, 5), np.bool_)))


def test_a_view_off_the_image_raises_and_the_next_call_works(double: Double) -> None:
    double.kernels = double.kernels.kernels  # at once, as arguments are checked before anything is queued
    pixels = pixels_of(double)
    with pytest.raises(BackendError, match="view inside the image"):
        pixels.crop(View(Box(100, 100, 300, 300), 64))
    assert_crops(pixels, picture())


def test_a_session_on_a_gpu_image_is_the_session_on_the_host_image(
    double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_device, "host_facts", lambda: HERE)
    monkeypatch.setattr(device_pixels, "view_kernels", lambda: double.kernels)
    manifest = fake_manifest(encodes_once=True, crop={"kind": "fbrs", "start_click": 2, "min_size": 40})
    segmenter = Segmenter(Bundle(Path("nowhere"), manifest), FakeBackend(manifest))
    segmenter.backend.device = "cuda"
    image = picture()
    on_gpu, on_host = segmenter.session(double.foreign(image)), segmenter.session(image)
    for click in ((70, 60, True), (80, 50, True), (20, 20, False)):
        np.testing.assert_array_equal(on_gpu.click(*click), on_host.click(*click))
        assert on_gpu.crop == on_host.crop
    out = double.foreign(np.full((HEIGHT, WIDTH), 7, np.uint8))
    assert on_gpu.device_mask(out=out) is out
    near = np.abs(on_host.probability - manifest.threshold) < 1e-5
    assert ((out.memory != 0) == on_host.mask)[~near].all()
    assert out.memory.max() == 1
