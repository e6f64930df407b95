"""The kernels between an image and the network: on the processor, and on a GPU where there is one.

The truth is `clickmask.encode` (OpenCV and NumPy) and, for the pixels of a crop, the float64 definition too.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "sdk"))
from sessions import resize_reference

from clickmask import encode, paste
from clickmask.backends.device_kernels import ImageStruct, ViewKernels
from clickmask.blend import blend_into
from clickmask.clicks import Click
from clickmask.errors import BackendError, BackendUnavailableError
from clickmask.view import Box, View

PAD = (0.25, 0.5, 0.75)
IMAGE_SIZE = (190, 140)
BOXES = [
    Box(0, 0, 190, 140),  # shrinks at 64
    Box(20, 30, 60, 65),  # grows at 64
    Box(10, 60, 180, 100),  # letterboxed: the short side shrinks too
    Box(50, 50, 51, 51),  # one pixel
    Box(7, 0, 8, 140),  # one column
    Box(100, 20, 164, 84),  # neither at 64
]
VIEWS = [
    View(box, size, fit, coordinates)
    for box in BOXES
    for size in (64, 96)
    for fit in ("letterbox", "squash")
    for coordinates in ("half_pixel", "public")
]


def view_id(view: View) -> str:
    return f"{view.box.width}x{view.box.height}-{view.size}-{view.fit}-{view.coordinates}"


class HostMemory:
    """What the tests need of a device, on the processor: arrays are addresses already."""

    def __init__(self, kernels: ViewKernels) -> None:
        self.kernels, self.stream = kernels, 0

    def put(self, array: np.ndarray) -> np.ndarray:
        return array.copy()

    def empty(self, shape: tuple, dtype: Any) -> np.ndarray:
        return np.full(shape, 77, dtype)

    def address(self, array: np.ndarray) -> int:
        return array.ctypes.data

    def get(self, array: np.ndarray) -> np.ndarray:
        return array


class TorchMemory:
    """A GPU's, through torch."""

    def __init__(self, kernels: ViewKernels) -> None:
        import torch

        self.torch, self.kernels = torch, kernels
        self.stream = torch.cuda.current_stream().cuda_stream

    def put(self, array: np.ndarray) -> Any:
        return self.torch.from_numpy(array).cuda()

    def empty(self, shape: tuple, dtype: Any) -> Any:
        return self.torch.from_numpy(np.full(shape, 77, dtype)).cuda()

    def address(self, array: Any) -> int:
        return array.data_ptr()

    def get(self, array: Any) -> np.ndarray:
        return array.cpu().numpy()


@pytest.fixture
def on_host(host_kernels: ViewKernels) -> HostMemory:
    return HostMemory(host_kernels)


@pytest.fixture
def on_gpu(cuda_kernels: ViewKernels) -> TorchMemory:
    return TorchMemory(cuda_kernels)


@pytest.fixture(params=["on_host", pytest.param("on_gpu", marks=pytest.mark.gpu)])
def memory(request: pytest.FixtureRequest) -> Iterator[Any]:
    return request.getfixturevalue(request.param)


def picture(seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: smooth, with noise and a saturated patch."""
    random = np.random.default_rng(seed)
    width, height = IMAGE_SIZE
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 13)], axis=2)
    image = 128 + 90 * waves + random.normal(0, 25, (height, width, 3))
    image[:20, :30] = 255
    return np.clip(image, 0, 255).astype(np.uint8)


def crop(
    memory: Any, view: View, image: np.ndarray, strides: tuple | None = None, offset: int = 0
) -> np.ndarray:
    """`image` is (H, W, 3), or any memory with strides and an offset that make it so."""
    held, out = memory.put(image), memory.empty((1, 3, view.size, view.size), np.float32)
    width, height = IMAGE_SIZE
    steps = ImageStruct._fields_[1][1](*(strides or image.strides))
    struct = ImageStruct(memory.address(held) + offset, steps, height, width)
    memory.kernels.crop(view, struct, PAD, memory.address(out), memory.stream)
    return memory.get(out)


@pytest.mark.parametrize("view", VIEWS, ids=view_id)
def test_a_crop_is_the_networks_image(memory: Any, view: View) -> None:
    image = picture()
    found, expected = crop(memory, view, image), encode.image_tensor(image, view, PAD)
    width, height = view.valid_size
    difference = np.abs(found - expected)
    assert (
        difference[..., height:, :].max(initial=0) == difference[..., width:].max(initial=0) == 0
    )  # padding
    shrinks = view.coordinates == "half_pixel" and (width < view.box.width or height < view.box.height)
    # means that lie between two levels are rounded either way by OpenCV; interpolated once more at most
    assert difference.max() <= (1.001 / 255 if shrinks else 4e-6)
    assert (difference > 4e-6).mean() < 0.01
    exact = resize_reference(image[view.box.slices], (width, height), view.coordinates) / 255
    assert np.abs(found[0, :, :height, :width].transpose(1, 2, 0) - exact).max() < (
        0.51 / 255 if shrinks else 1e-5
    )


def test_a_crop_without_resizing_is_bit_exact(memory: Any) -> None:
    view = View(Box(100, 20, 164, 84), 64)
    np.testing.assert_array_equal(crop(memory, view, picture()), encode.image_tensor(picture(), view, PAD))


@pytest.mark.parametrize("layout", ["planes", "rgba", "pitched", "upside_down", "grey"])
def test_images_of_any_strides_give_the_same_crop(memory: Any, layout: str) -> None:
    view, (width, height) = View(Box(15, 12, 165, 110), 64), IMAGE_SIZE
    image, offset, strides = picture(), 0, None
    if layout == "planes":
        kept, strides = np.ascontiguousarray(image.transpose(2, 0, 1)), (width, 1, width * height)
    elif layout == "rgba":
        kept, strides = np.dstack([image, image[..., :1]]), (4 * width, 4, 1)
    elif layout == "pitched":
        kept = np.zeros((height, 1024), np.uint8)
        kept[:, : 3 * width] = image.reshape(height, -1)
        strides = (1024, 3, 1)
    elif layout == "upside_down":
        kept = np.ascontiguousarray(image[::-1])
        strides, offset = (-3 * width, 3, 1), 3 * width * (height - 1)
    else:
        kept = np.ascontiguousarray(image[..., 0])
        strides, image = (width, 1, 0), np.repeat(image[..., :1], 3, axis=2)
    np.testing.assert_array_equal(crop(memory, view, kept, strides, offset), crop(memory, view, image))


def padded(logits: np.ndarray, view: View) -> np.ndarray:
    """(S, S), as a network gives them, with NaN where nobody may look."""
    whole = np.full((view.size, view.size), np.nan, np.float32)
    whole[: logits.shape[0], : logits.shape[1]] = logits
    return whole


def logits_of(view: View, seed: int) -> np.ndarray:
    """The network's output on the view's valid part."""
    random = np.random.default_rng(seed)
    width, height = view.valid_size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    wave = 4 * np.sin(x / 5) * np.cos(y / 6) + random.normal(0, 0.7, x.shape)
    return wave.astype(np.float32)


@pytest.mark.parametrize("view", VIEWS, ids=view_id)
def test_packed_the_mask_is_the_same(memory: Any, view: View) -> None:
    logits, box = logits_of(view, 4), view.box
    held, out = memory.put(padded(logits, view)), memory.empty(IMAGE_SIZE[::-1], np.uint8)
    bits = memory.empty((box.height, (box.width + 7) // 8), np.uint8)
    memory.kernels.paste(view, memory.address(held), IMAGE_SIZE, 0.5, memory.address(out), memory.stream)
    memory.kernels.bits(view, memory.address(held), 0.5, memory.address(bits), memory.stream)
    expected = np.packbits(memory.get(out)[box.slices] != 0, axis=1)
    np.testing.assert_array_equal(memory.get(bits), expected)


@pytest.mark.parametrize("view", VIEWS, ids=view_id)
def test_a_mask_is_pasted(memory: Any, view: View) -> None:
    threshold = 0.5 if view.size == 64 else 0.3
    logits = logits_of(view, 3)
    held, out = memory.put(padded(logits, view)), memory.empty(IMAGE_SIZE[::-1], np.uint8)
    memory.kernels.paste(
        view, memory.address(held), IMAGE_SIZE, threshold, memory.address(out), memory.stream
    )
    mask = memory.get(out)
    assert set(np.unique(mask)) <= {0, 1}
    # a pixel may fall on the other side only where its probability is the threshold but for rounding
    near = np.abs(paste.paste_probability(logits, view, IMAGE_SIZE) - threshold) < 1e-5
    assert ((mask != 0) == paste.paste_with_box(logits, view, IMAGE_SIZE, threshold)[0])[~near].all()
    assert near.mean() < 1e-3


def previous(memory: Any, logits: np.ndarray, old: View, new: View) -> np.ndarray:
    held = memory.put(padded(logits, old))
    scratch = memory.empty((old.size, new.size), np.float32)
    out = memory.empty((new.size, new.size), np.float32)
    where = (memory.address(held), old, new, memory.address(scratch), memory.address(out))
    memory.kernels.previous(*where, memory.stream)
    return memory.get(out)


PAIRS = [
    (old, new) for old in VIEWS for new in VIEWS if (old.fit, old.coordinates) == (new.fit, new.coordinates)
]


@pytest.mark.parametrize("coordinates", ["half_pixel", "public"])
@pytest.mark.parametrize("fit", ["letterbox", "squash"])
def test_a_previous_mask_is_the_hosts_whichever_way_the_crop_moved(
    memory: Any, fit: str, coordinates: str
) -> None:
    for old, new in PAIRS:
        if (old.fit, old.coordinates) != (fit, coordinates):
            continue
        logits, (width, height) = logits_of(old, 5), new.valid_size
        found = previous(memory, logits, old, new)
        expected = encode.resample(encode.sigmoid(logits), old, new)
        np.testing.assert_allclose(
            found[:height, :width], expected, rtol=0, atol=2e-6, err_msg=f"{old} {new}"
        )
        assert not found[height:].any()
        assert not found[:, width:].any()


def test_a_previous_mask_on_the_same_view_is_the_sigmoid(memory: Any) -> None:
    view = View(Box(10, 60, 180, 100), 64)
    logits, (width, height) = logits_of(view, 6), view.valid_size
    logits[0, :3] = -200, 0, 200
    exact = 1 / (1 + np.exp(-logits.astype(np.float64)))
    found = previous(memory, logits, view, view)[:height, :width]
    np.testing.assert_allclose(found, exact, rtol=0, atol=2e-7)
    assert found[0, :3].tolist() == [0, 0.5, 1]


CLOSE = [
    (old, new)
    for new, old in PAIRS
    if old.box.x0 >= new.box.x0 and old.box.y0 >= new.box.y0
    if old.box.x1 <= new.box.x1 and old.box.y1 <= new.box.y1
]


@pytest.mark.parametrize("coordinates", ["half_pixel", "public"])
@pytest.mark.parametrize("fit", ["letterbox", "squash"])
@pytest.mark.parametrize("how", [(1.0, None), (0.25, Click(80, 70.5))], ids=["close look", "click before"])
def test_logits_are_blended_in_as_on_the_host(
    memory: Any, how: tuple[Any, ...], fit: str, coordinates: str
) -> None:
    seen = 0
    for near, view in PAIRS if how[1] else CLOSE:
        if (view.fit, view.coordinates) != (fit, coordinates):
            continue
        logits, close = logits_of(view, 7), logits_of(near, 8)
        (width, height), held = view.valid_size, padded(logits, view)
        given, part = memory.put(held), memory.put(padded(close, near))
        scratch = memory.empty((near.size, view.size), np.float32)
        out = memory.empty((view.size, view.size), np.float32)
        looks = (memory.address(given), view, memory.address(part), near)
        places = (memory.address(scratch), memory.address(out), memory.stream)
        memory.kernels.blend(*looks, *how, *places)
        found = memory.get(out)
        blend_into(logits, view, close, near, *how)
        np.testing.assert_allclose(
            found[:height, :width], logits, rtol=1e-5, atol=1e-5, err_msg=f"{near} {view}"
        )
        np.testing.assert_array_equal(found[height:], held[height:])
        np.testing.assert_array_equal(found[:, width:], held[:, width:])
        seen += 1
    assert seen > 20


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("place", [(0, 0), (4, 8), (69, 44)], ids=str)
def test_one_value_that_is_not_finite_is_found(memory: Any, place: tuple[int, int], value: float) -> None:
    values = np.random.default_rng(0).normal(size=(70, 45)).astype(np.float32)
    values[3, 3], values[5, 5] = np.finfo(np.float32).max, np.finfo(np.float32).min
    for wrong in (False, True):
        if wrong:
            values[place] = value
        held, found = memory.put(values), memory.put(np.zeros(1, np.int32))
        memory.kernels.find_not_finite(memory.address(held), 70, 45, memory.address(found), memory.stream)
        assert memory.get(found).tolist() == [wrong]


OFF_THE_IMAGE = [Box(150, 100, 200, 140), Box(-5, 0, 60, 60), Box(0, 100, 60, 141)]


@pytest.mark.parametrize("box", OFF_THE_IMAGE, ids=str)
def test_a_view_outside_the_image_is_refused(on_host: HostMemory, box: Box) -> None:
    view, logits = View(box, 64), np.zeros((64, 64), np.float32)
    with pytest.raises(BackendError, match="expected a view inside the image"):
        crop(on_host, view, picture())
    with pytest.raises(BackendError, match="expected a view inside the image"):
        on_host.kernels.paste(view, logits.ctypes.data, IMAGE_SIZE, 0.5, 1, 0)
    if box.x0 < 0:
        with pytest.raises(BackendError, match="expected a view inside the image"):
            on_host.kernels.bits(view, logits.ctypes.data, 0.5, 1, 0)


def test_a_view_larger_than_the_kernels_do_is_refused(on_host: HostMemory) -> None:
    image = ImageStruct(1, (1, 1, 1), 140, 190)
    with pytest.raises(BackendError, match="4096"):
        on_host.kernels.crop(View(Box(0, 0, 64, 64), 5000), image, PAD, 1, 0)


def test_null_addresses_are_refused(on_host: HostMemory) -> None:
    view = View(Box(0, 0, 64, 64), 64)
    for logits, out in ((0, 1), (1, 0)):
        with pytest.raises(BackendError):
            on_host.kernels.paste(view, logits, IMAGE_SIZE, 0.5, out, 0)
        with pytest.raises(BackendError):
            on_host.kernels.bits(view, logits, 0.5, out, 0)
        with pytest.raises(BackendError):
            on_host.kernels.previous(logits, view, view, 1, out, 0)
        with pytest.raises(BackendError):
            on_host.kernels.find_not_finite(logits, 1, 1, out, 0)
        with pytest.raises(BackendError):
            on_host.kernels.blend(logits, view, logits, view, 1.0, None, 1, out, 0)


def test_a_library_of_another_version_is_refused(tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    source = tmp_path / "other.c"
    source.write_text("int clickmask_view_abi(void) { return 99; }")
    library = tmp_path / "other.so"
    subprocess.run(["c++", "-x", "c", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    with pytest.raises(BackendUnavailableError, match="expected version 6"):
        ViewKernels(library)
    (tmp_path / "junk.so").write_bytes(b"junk")
    with pytest.raises(BackendUnavailableError, match="cmake"):
        ViewKernels(tmp_path / "junk.so")
