"""Images for a device: which are taken, which are copied there, and whose memory lives how long."""

from __future__ import annotations

import dataclasses
import gc
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda_double import Error
from device_machines import (
    HEIGHT,
    HERE,
    NEW,
    OLD,
    PAD,
    WIDTH,
    Double,
    Foreign,
    assert_crops,
    backend_of,
    logits_on,
    padded,
    picture,
    pixels_of,
)

from clickmask import encode
from clickmask.backends import cuda_device, device_kernels, device_library, device_pixels
from clickmask.backends.device_pixels import UploadedPixels
from clickmask.backends.fake import FakeBackend
from clickmask.backends.host_facts import HostFacts
from clickmask.errors import BackendUnavailableError, InvalidInputError
from clickmask.image import image_sha256
from clickmask.pixels import pixels_of as session_pixels
from clickmask.pixels import sha256 as session_sha256
from clickmask.view import Box, View


def test_a_host_image_is_copied_to_the_device_once(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_pixels, "view_kernels", lambda: double.kernels)
    backend, image = backend_of(), picture()
    pixels = session_pixels(image, backend)
    assert isinstance(pixels, UploadedPixels)
    assert session_sha256(pixels) == image_sha256(image)
    for view in (OLD, NEW, OLD):
        found = pixels.crop(view)
        assert np.abs(double.host(found) - encode.image_tensor(image, view, PAD)).max() < 1.01 / 255
    assert double.fake.calls["cudaMemcpyAsync"] == 1  # the image's own
    del pixels, found
    gc.collect()
    assert {kind: double.fake.live(kind) for kind in ("device", "pinned", "stream")} == dict.fromkeys(
        ("device", "pinned", "stream"), 0
    )


def test_host_images_leave_a_quarter_of_the_device_to_networks(
    double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_pixels, "view_kernels", lambda: double.kernels)
    backend, image = backend_of(), picture()
    double.fake.memory_limit = 4 * image.nbytes
    taken = [session_pixels(image, backend) for _ in range(5)]
    assert [isinstance(pixels, UploadedPixels) for pixels in taken] == [True] * 3 + [False] * 2
    del taken[0]
    gc.collect()
    assert isinstance(session_pixels(image, backend), UploadedPixels)


@pytest.mark.parametrize("lacks", ["kernels", "memory"])
def test_a_host_image_stays_where_it_cannot_be_copied(
    double: Double, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lacks: str
) -> None:
    if lacks == "kernels":
        monkeypatch.setattr(device_library, "_LIBRARY", tmp_path / "none.so")
        device_kernels.view_kernels.cache_clear()
    else:
        monkeypatch.setattr(device_pixels, "view_kernels", lambda: double.kernels)
        double.fake.memory_limit = 1000
    pixels = session_pixels(picture(), backend_of())
    np.testing.assert_array_equal(pixels.crop(OLD), encode.image_tensor(picture(), OLD, PAD))


def test_the_image_is_not_copied_and_lives_as_long_as_its_pixels(double: Double) -> None:
    array = double.foreign(picture())
    pixels = pixels_of(double, array)
    assert pixels.holds is array
    assert double.fake.live("device") == 0
    array.memory[:] = 0  # seen, as it is the same memory
    assert not double.host(pixels.crop(View(Box(0, 0, 64, 64), 64))).any()


def test_work_that_fills_an_image_is_waited_for(double: Double) -> None:
    stream, image = double.cuda.new_stream(), np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    double.fake.put(stream, lambda: np.copyto(image, picture()))
    assert_crops(double, pixels_of(double, double.foreign(image, int(stream))), picture())


def test_streams_and_memory_are_given_back(double: Double) -> None:
    pixels = pixels_of(double)
    logits = double.device(padded(logits_on(OLD), OLD))
    pixels.crop(NEW)
    pixels.previous_mask(logits, OLD, NEW)
    pixels.paint(logits, OLD)
    kept = pixels.device_mask(logits, OLD)
    del logits
    assert (double.fake.live("stream"), double.fake.live("pinned")) == (1, 1)
    del pixels
    gc.collect()
    assert (double.fake.live("stream"), double.fake.live("pinned")) == (0, 0)
    assert double.host(kept).any()  # an array that somebody has keeps its memory
    del kept
    gc.collect()
    assert double.fake.live("device") == 0


def test_pixels_that_go_after_the_device_broke_say_nothing(double: Double) -> None:
    pixels = pixels_of(double)
    pixels.crop(NEW)
    for name in ("cudaFree", "cudaFreeHost", "cudaStreamDestroy"):
        double.fake.fail[name] = Error.cudaErrorInvalidValue
    del pixels
    gc.collect()  # pytest makes an error of what a finaliser raises


@pytest.mark.parametrize(
    ("place", "message"),
    [(("Host", 0), "that of the host"), (("Device", 1), "expected an array on cuda:0.*got one on cuda:1")],
)
def test_memory_elsewhere_is_refused(double: Double, place: tuple, message: str) -> None:
    double.fake.place = place
    with pytest.raises(InvalidInputError, match=f"image: .*{message}"):
        pixels_of(double)
    double.fake.place = ("Managed", 1)
    pixels_of(double)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 5, 3), np.float32), np.zeros((3, 40, 50), np.uint8), np.zeros((4, 5, 3), np.uint16)],
    ids=["float", "planes", "16bit"],
)
def test_what_is_no_image_is_refused(double: Double, image: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="image: expected"):
        pixels_of(double, double.foreign(image))


def test_an_array_in_host_memory_is_told_so_on_every_machine() -> None:
    import torch

    tensor = torch.zeros((20, 30, 3), dtype=torch.uint8)
    with pytest.raises(InvalidInputError, match=r"host memory.*NumPy"):
        device_pixels.device_pixels(tensor, FakeBackend())


@pytest.mark.parametrize(
    ("facts", "device", "message"),
    [
        (dataclasses.replace(HERE, gpus=()), "cuda", "cuda with 0 CUDA device.*nvidia-smi"),
        (HERE, "cuda:1", "cuda:1 with 1 CUDA device"),
        (HERE, "cpu", "got cpu"),
        (dataclasses.replace(HERE, foreign_context=True), "cuda", "import pycuda.autoprimaryctx"),
        (HERE, "cuda", r"cuda-python.*pip install"),
    ],
    ids=["no_gpu", "no_such_gpu", "cpu", "foreign_context", "no_cuda_python"],
)
def test_a_machine_that_cannot_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, facts: HostFacts, device: str, message: str
) -> None:
    monkeypatch.setattr(cuda_device, "host_facts", lambda: facts)
    backend = backend_of()
    backend.device = device
    for name in ("cuda", "cuda.bindings"):  # which another test may have imported
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendUnavailableError, match=message):
        device_pixels.device_pixels(Foreign(picture(), None), backend)


def test_a_backend_that_takes_host_arrays_takes_no_image_on_a_gpu(
    double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert double
    monkeypatch.setattr(cuda_device, "host_facts", lambda: HERE)
    backend = backend_of()
    backend.takes_device_arrays = False
    with pytest.raises(BackendUnavailableError, match="fake, which takes host arrays; pass a NumPy array"):
        device_pixels.device_pixels(Foreign(picture(), None), backend)


def test_without_the_compiled_kernels_the_command_that_builds_them_is_named(
    double: Double, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert double
    monkeypatch.setattr(cuda_device, "host_facts", lambda: HERE)
    monkeypatch.setattr(device_library, "_LIBRARY", tmp_path / "none.so")
    device_kernels.view_kernels.cache_clear()
    with pytest.raises(BackendUnavailableError, match=r"cmake --install .* --component cuda"):
        device_pixels.device_pixels(Foreign(picture(), None), backend_of())
