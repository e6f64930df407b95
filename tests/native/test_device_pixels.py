"""Device pixels as a session would use them: on a double of CUDA, and on a GPU.

The double's device memory is host memory where fresh blocks are NaN or 255, and the kernels are those for the
processor. Queued work is done only when somebody waits for it.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "sdk"))
from cuda_double import Error, FakeCuda
from view_builds import on_cuda, on_processor

from clickmask import encode, paste
from clickmask.backends import cuda_device, device_kernels, device_pixels
from clickmask.backends.cuda_memory import DeviceArray
from clickmask.backends.cuda_runtime import CudaRuntime
from clickmask.backends.device_kernels import ViewKernels
from clickmask.backends.device_pixels import DevicePixels, UploadedPixels
from clickmask.backends.fake import FakeBackend, fake_manifest
from clickmask.backends.host_facts import Gpu, HostFacts
from clickmask.bundle import Bundle
from clickmask.errors import BackendError, BackendUnavailableError, InvalidInputError
from clickmask.image import image_sha256
from clickmask.mask import mask_box
from clickmask.pixels import pixels_of as session_pixels
from clickmask.pixels import sha256 as session_sha256
from clickmask.segmenter import Segmenter
from clickmask.view import Box, View

PAD, THRESHOLD = (0.25, 0.5, 0.75), 0.4
WIDTH, HEIGHT = 150, 110
OLD, NEW = View(Box(0, 0, WIDTH, HEIGHT), 64), View(Box(30, 20, 100, 90), 96)


class LateKernels:
    """The kernels for the processor, run when the stream is waited for."""

    def __init__(self, kernels: ViewKernels, cuda: FakeCuda) -> None:
        self.kernels, self.cuda = kernels, cuda

    def __getattr__(self, name: str) -> Any:
        def queued(*arguments: Any) -> None:
            self.cuda.put(arguments[-1], lambda: getattr(self.kernels, name)(*arguments))

        return queued


class Double:
    """A machine with a double of CUDA."""

    def __init__(self, kernels: ViewKernels, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fake = FakeCuda()
        package = types.ModuleType("cuda")
        package.__path__ = []  # type: ignore[attr-defined]
        bindings = types.ModuleType("cuda.bindings")
        bindings.runtime = self.fake.module  # type: ignore[attr-defined]
        for name, module in (
            ("cuda", package),
            ("cuda.bindings", bindings),
            (self.fake.module.__name__, self.fake.module),
        ):
            monkeypatch.setitem(sys.modules, name, module)
        self.cuda = CudaRuntime(0)
        self.kernels: Any = LateKernels(kernels, self.fake)

    def foreign(self, array: np.ndarray, stream: int | None = None) -> Any:
        """As another library would hold it in device memory."""
        return Foreign(array, stream)

    def host(self, array: Any) -> np.ndarray:
        if isinstance(array, Foreign):
            return array.memory
        return self.fake.array(array.pointer, array.shape, array.dtype).copy()


class Foreign:
    def __init__(self, array: np.ndarray, stream: int | None) -> None:
        self.memory = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": array.strides,
            "version": 3,
            "stream": stream,
        }


class RealGpu:
    """The machine's GPU; arrays of another library are torch's."""

    def __init__(self, kernels: ViewKernels) -> None:
        import torch

        self.torch, self.kernels = torch, kernels
        self.cuda = CudaRuntime(0)

    def foreign(self, array: np.ndarray, stream: int | None = None) -> Any:  # noqa: ARG002 - torch tells its own
        return self.torch.from_numpy(array).cuda()

    def host(self, array: Any) -> np.ndarray:
        return self.torch.as_tensor(array, device="cuda").cpu().numpy()


@pytest.fixture(scope="module")
def host_kernels(root: Path, tmp_path_factory: pytest.TempPathFactory) -> ViewKernels:
    return on_processor(root, tmp_path_factory.mktemp("on_host"))


@pytest.fixture(scope="module")
def real_gpu(root: Path, tmp_path_factory: pytest.TempPathFactory) -> RealGpu:
    pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-python")
    return RealGpu(on_cuda(root, tmp_path_factory.mktemp("on_gpu")))


@pytest.fixture
def double(host_kernels: ViewKernels, monkeypatch: pytest.MonkeyPatch) -> Double:
    return Double(host_kernels, monkeypatch)


@pytest.fixture(params=["double", pytest.param("real_gpu", marks=pytest.mark.gpu)])
def machine(request: pytest.FixtureRequest) -> Iterator[Any]:
    return request.getfixturevalue(request.param)


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def backend_of(takes_device_arrays: bool = False) -> FakeBackend:
    backend = FakeBackend(fake_manifest(threshold=THRESHOLD, input={"pad": list(PAD)}))
    backend.device, backend.takes_device_arrays = "cuda", takes_device_arrays
    return backend


def pixels_of(machine: Any, image: Any = None, takes_device_arrays: bool = False) -> DevicePixels:
    image = machine.foreign(picture()) if image is None else image
    return DevicePixels(image, machine.cuda, machine.kernels, backend_of(takes_device_arrays))


def logits_on(view: View) -> np.ndarray:
    """On the view's valid part, smooth."""
    width, height = view.valid_size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return (5 * np.sin(x / 6) * np.cos(y / 8)).astype(np.float32)


def assert_crops(pixels: DevicePixels, image: np.ndarray) -> None:
    for view in (OLD, NEW):
        found, expected = pixels.crop(view), encode.image_tensor(image, view, PAD)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 1.01 / 255
        assert np.abs(found - expected).mean() < 1e-4


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
    expected, _ = paste.paste_with_box(logits, OLD, (WIDTH, HEIGHT), THRESHOLD)
    assert (machine.host(mask) == expected)[~near].all()


@pytest.mark.parametrize("shift", [0.0, -100.0], ids=["some", "none"])
def test_a_mask_for_the_host_comes_as_bits_and_is_the_one_on_the_device(machine: Any, shift: float) -> None:
    pixels = pixels_of(machine)
    for view in (OLD, NEW, View(Box(7, 3, 20, 9), 64)):
        logits = logits_on(view) + np.float32(shift)
        mask, box = pixels.paint(logits, view)
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


def test_a_host_image_is_copied_to_the_device_once(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_pixels, "view_kernels", lambda: double.kernels)
    backend, image = backend_of(takes_device_arrays=True), picture()
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
    backend, image = backend_of(takes_device_arrays=True), picture()
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
        monkeypatch.setattr(device_kernels, "_LIBRARY", tmp_path / "none.so")
        device_kernels.view_kernels.cache_clear()
    else:
        monkeypatch.setattr(device_pixels, "view_kernels", lambda: double.kernels)
        double.fake.memory_limit = 1000
    pixels = session_pixels(picture(), backend_of(takes_device_arrays=True))
    np.testing.assert_array_equal(pixels.crop(OLD), encode.image_tensor(picture(), OLD, PAD))


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


def test_the_image_is_not_copied_and_lives_as_long_as_its_pixels(double: Double) -> None:
    array = double.foreign(picture())
    pixels = pixels_of(double, array)
    assert pixels.holds is array
    assert double.fake.live("device") == 0
    array.memory[:] = 0  # seen, as it is the same memory
    assert not pixels.crop(View(Box(0, 0, 64, 64), 64)).any()


def test_work_that_fills_an_image_is_waited_for(double: Double) -> None:
    stream, image = double.cuda.new_stream(), np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    double.fake.put(stream, lambda: np.copyto(image, picture()))
    assert_crops(pixels_of(double, double.foreign(image, int(stream))), picture())


def test_streams_and_memory_are_given_back(double: Double) -> None:
    pixels = pixels_of(double)
    pixels.crop(NEW)
    kept = pixels.device_mask(logits_on(OLD), OLD)
    assert (double.fake.live("stream"), double.fake.live("pinned")) == (1, 2)
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


def test_an_array_in_host_memory_is_told_so_on_every_machine() -> None:
    import torch

    tensor = torch.zeros((20, 30, 3), dtype=torch.uint8)
    with pytest.raises(InvalidInputError, match=r"host memory.*NumPy"):
        device_pixels.device_pixels(tensor, FakeBackend())


GPU = Gpu("a GPU", (9, 0))
HERE = HostFacts("linux x86_64", (13, 0), (GPU,), None, None, "13.0.0")


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


def test_without_the_compiled_kernels_the_command_that_builds_them_is_named(
    double: Double, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert double
    monkeypatch.setattr(cuda_device, "host_facts", lambda: HERE)
    monkeypatch.setattr(device_kernels, "_LIBRARY", tmp_path / "none.so")
    device_kernels.view_kernels.cache_clear()
    with pytest.raises(BackendUnavailableError, match=r"cmake --install .* --component cuda"):
        device_pixels.device_pixels(Foreign(picture(), None), backend_of())
