"""Images and masks of torch and CuPy on this GPU, without a copy; and what many sessions hold there."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gpu_scenes import free_bytes
from gpu_wants import missing, needed

from clickmask import Segmenter
from clickmask.backends.device_kernels import view_kernels
from clickmask.errors import InvalidInputError

pytestmark = pytest.mark.gpu

LARGE = (3000, 4000)
MASK_BYTES = LARGE[0] * LARGE[1]
Open = Callable[[str, str], Any]


class Torch:
    """What these tests ask of a library."""

    def __init__(self) -> None:
        import torch

        self.torch = torch

    def put(self, array: np.ndarray) -> Any:
        return self.torch.from_numpy(array.copy()).cuda()

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return self.torch.empty(shape, dtype=getattr(self.torch, dtype), device="cuda")

    def pointer(self, array: Any) -> int:
        return int(array.data_ptr())

    def host(self, array: Any) -> np.ndarray:
        return array.cpu().numpy()

    def from_dlpack(self, array: Any) -> Any:
        return self.torch.from_dlpack(array)

    def from_interface(self, array: Any) -> Any:
        return self.torch.as_tensor(array, device="cuda")


class Cupy:
    """Likewise."""

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as exc:
            missing(f"needs CuPy: {exc}; run: pip install cupy-cuda13x==14.2.0")
        self.cupy = cupy

    def put(self, array: np.ndarray) -> Any:
        return self.cupy.asarray(array)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return self.cupy.empty(shape, dtype)

    def pointer(self, array: Any) -> int:
        return int(array.data.ptr)

    def host(self, array: Any) -> np.ndarray:
        return self.cupy.asnumpy(array)

    def from_dlpack(self, array: Any) -> Any:
        return self.cupy.from_dlpack(array)

    def from_interface(self, array: Any) -> Any:
        return self.cupy.asarray(array)


@pytest.fixture(params=[Torch, Cupy], ids=["torch", "cupy"])
def library(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture(params=["torchscript", "onnxruntime", "tensorrt"])
def segmenter(request: pytest.FixtureRequest, built: Open) -> Any:
    with needed():
        view_kernels()
    with Segmenter.load(built(request.param, "fp16").path, request.param, "cuda", prefetch=False) as opened:
        yield opened


def large(seed: int = 0) -> np.ndarray:
    """A picture of 12 megapixels: 36 MB that nobody should copy."""
    y, x = np.mgrid[: LARGE[0], : LARGE[1]]
    disk = np.hypot(x - 2000, y - 1500) < 900
    noise = np.random.default_rng(seed).integers(0, 60, (*LARGE, 3), np.uint8)
    return noise + np.where(disk, 180, 40).astype(np.uint8)[..., None]


def test_an_image_is_used_where_it_is(segmenter: Any, library: Any) -> None:
    picture = large()
    size = segmenter.bundle.manifest.input.sizes[0]  # of which little is held beside the picture
    given = library.put(picture)
    segmenter.session(given, size=size).click(2000, 1500)  # libraries that load at first use have done so
    before = free_bytes()
    session = segmenter.session(given, size=size)
    mask = session.click(2000, 1500)
    assert before - free_bytes() < picture.nbytes // 2
    copied = segmenter.session(picture, size=size).click(2000, 1500)
    assert (mask & copied).sum() >= 0.98 * (mask | copied).sum()
    np.testing.assert_array_equal(library.host(given), picture)


@pytest.mark.parametrize("dtype", ["bool", "uint8"])
def test_a_mask_is_painted_into_an_array_of_the_application(segmenter: Any, library: Any, dtype: str) -> None:
    session = segmenter.session(library.put(large()))
    mask = session.click(2000, 1500)
    out = library.empty(LARGE, dtype)
    assert session.device_mask(out=out) is out
    assert mask.any()
    np.testing.assert_array_equal(library.host(out), mask)


@pytest.mark.parametrize("protocol", ["from_dlpack", "from_interface"])
def test_a_new_mask_is_taken_without_a_copy_and_lives_as_long_as_it_is_used(
    segmenter: Any, library: Any, protocol: str
) -> None:
    session = segmenter.session(library.put(large()))
    mask = session.click(2000, 1500)
    painted = session.device_mask()
    taken = getattr(library, protocol)(painted)
    assert library.pointer(taken) == painted.pointer
    del painted
    gc.collect()
    session.click(100, 100, positive=False)
    others = [session.device_mask() for _ in range(3)]
    assert library.pointer(taken) not in [other.pointer for other in others]
    np.testing.assert_array_equal(library.host(taken), mask)
    before = free_bytes()
    del taken
    gc.collect()
    assert free_bytes() - before >= MASK_BYTES // 2


def test_memory_of_the_host_is_refused(segmenter: Any) -> None:
    import torch

    with pytest.raises(InvalidInputError, match="host memory"):
        segmenter.session(torch.from_numpy(large()))
    session = segmenter.session(torch.from_numpy(large()).cuda())
    session.click(2000, 1500)
    with pytest.raises(InvalidInputError, match="out"):
        session.device_mask(out=torch.empty(LARGE, dtype=torch.bool))


@pytest.mark.parametrize("backend", ["torchscript", "onnxruntime", "tensorrt"])
def test_many_sessions_share_a_budget_of_memory(backend: str, built: Open) -> None:
    """Crops of all sessions together stay within `crops_bytes`; what is the sessions' own comes on top."""
    path, many = built(backend, "fp16").path, 48
    picture = large()[:512, :512].copy()
    with Segmenter.load(path, backend, "cuda", crops_bytes=0, prefetch=False) as opened:
        size = opened.bundle.manifest.input.sizes[-1]
        encoded = opened.backend.encode(np.zeros((1, 3, size, size), np.float32)).tensors
        crop = sum(4 * math.prod(tensor.shape) for name, tensor in encoded.items() if name != "image")
    logits = 4 * size * size
    own = picture.nbytes + 2 * logits  # room to work on them is shared
    with Segmenter.load(path, backend, "cuda", crops_bytes=4 * crop, prefetch=False) as opened:
        sessions = []

        def annotate(count: int) -> None:
            for number in range(count):
                sessions.append(opened.session(picture.copy(), size=size))
                sessions[-1].click(10 * number, 20)

        annotate(8)
        before = free_bytes()
        annotate(many)
        assert before - free_bytes() < many * (own + crop // 2)
