"""Pixel Diffusion by the kernel for CUDA, through each backend, against the float64 reference and the graph.

The kernel is its arithmetic compiled for the processor; CUDA, TensorRT, ONNX Runtime's CUDA and torch.cuda
are the doubles of tests/sdk. Nothing here tells of a real GPU.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reference_pixel_diffusion as reference
from at_once import at_once
from bundles import artefact as artefact_of
from bundles import change_manifest, expected_logits, file_entry, make_bundle, prompt, read_manifest
from gpu_machine import Machine, pretended
from scenes import TOLERANCE, assert_same_state, make_scene

torch = pytest.importorskip("torch", reason="TorchScript needs torch")

from torch_double import FakeTorch  # noqa: E402

from clickmask.backends import diffusion, open_backend, torchscript  # noqa: E402
from clickmask.backends.device_diffusion import Call, DeviceDiffusion, declared  # noqa: E402
from clickmask.backends.device_kernels import ViewKernels  # noqa: E402
from clickmask.backends.lanes import LANES, Lanes  # noqa: E402
from clickmask.backends.torch_lane import TorchLane  # noqa: E402
from clickmask.backends.torchscript import TorchScriptBackend  # noqa: E402
from clickmask.bundle import default_bundle_path, load_bundle  # noqa: E402
from clickmask.errors import BackendError  # noqa: E402
from clickmask.native_diffusion import DiffusionOptions  # noqa: E402
from clickmask_export.build import _places  # noqa: E402
from clickmask_export.recipes import describe_diffusion  # noqa: E402
from clickmask_models.pixel_diffusion import PixelDiffusionConfig  # noqa: E402
from clickmask_models.presets import preset  # noqa: E402

CONFIG = dataclasses.replace(PixelDiffusionConfig(), iterations=3, output="state")
PIPELINE: dict[str, Any] = {
    "encodes_once": True,
    "bias": -1.0,
    "pixel_diffusion": dataclasses.asdict(describe_diffusion(CONFIG)),
}
# Batch, size, slots for clicks; the rest of the slots is padding.
SHAPES = [(1, 64, 4), (2, 96, 8), (1, 128, 4), (2, 64, 4), (1, 96, 8)]


def scene_of(batch: int, size: int, slots: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Textured images and clicks at quarters of a pixel, where every precision agrees on a disk's border."""
    _, clicks, mask = prompt(batch, size, slots, seed=size + slots)
    clicks[:, :, :2] = np.round(4 * clicks[:, :, :2]) / 4
    clicks[clicks[:, :, 2] < 0] = -1
    images = [make_scene(size, size, "textured", seed)[1].transpose(2, 0, 1) for seed in range(batch)]
    return np.stack(images), clicks, mask


def expected(image: np.ndarray, clicks: np.ndarray, mask: np.ndarray) -> np.ndarray:
    logits = expected_logits(image, clicks, mask, encodes_once=True) - 1
    states = [
        reference.pixel_diffusion(plane[0], picture.transpose(1, 2, 0), rows, CONFIG)
        for plane, picture, rows in zip(logits, image, clicks, strict=True)
    ]
    return np.stack(states)[:, None]


def check(backend: Any, shapes: list[tuple[int, int, int]]) -> None:
    for shape in shapes:
        image, clicks, mask = scene_of(*shape)
        features = backend.encode(image)
        for rows in (clicks, clicks[:, ::-1].copy()):
            assert_same_state(backend.decode(features, rows, mask), expected(image, rows, mask))


@pytest.fixture(params=["onnxruntime", "tensorrt"])
def machine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host_kernels: ViewKernels
) -> Machine:
    return pretended(monkeypatch, tmp_path / "bundle", request.param, host_kernels)


# In lanes: ONNX Runtime and TensorRT


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_logits_are_the_references(machine: Machine, warm: bool, caplog: pytest.LogCaptureFixture) -> None:
    backend = machine.open(place="native", **PIPELINE)
    assert (backend.pixel_diffusion, backend.pixel_diffusion_reason) == ("native", "CUDA")
    if warm:
        backend.warmup()

    with caplog.at_level(logging.WARNING, "clickmask"):
        check(backend, SHAPES)
    assert "without a CUDA graph" not in caplog.text


def test_a_warm_click_replays_the_kernels_and_allocates_nothing(machine: Machine) -> None:
    backend = machine.open(**PIPELINE)
    backend.warmup()
    image, clicks, mask = scene_of(1, 96, 8)
    features = backend.encode(image)
    backend.decode(features, clicks, mask)
    machine.cuda.calls.clear()

    backend.decode(features, clicks, mask)

    # Of TensorRT the network is one, too; ONNX Runtime keeps its own.
    assert machine.cuda.calls["cudaGraphLaunch"] == {"onnxruntime": 1, "tensorrt": 2}[machine.runtime]
    assert machine.cuda.calls["cudaMalloc"] == 0


def test_every_shape_is_captured_once_in_each_lane_and_given_up(machine: Machine) -> None:
    backend = machine.open(**PIPELINE)
    backend.warmup()
    backend.warmup()
    # 3 sizes with 4, 8, 16 and 32 rows; of TensorRT also the encoder, and the decoder with as many rows.
    others = {"onnxruntime": 0, "tensorrt": 3 * (1 + 4)}[machine.runtime]
    assert machine.cuda.live("executable") == (3 * 4 + others) * LANES

    backend.close()

    assert [machine.cuda.live(kind) for kind in ("executable", "device")] == [0, 0]


def test_logits_that_stay_on_the_device_are_those_that_come_to_the_host(machine: Machine) -> None:
    backend = machine.open(**PIPELINE)
    image, clicks, mask = scene_of(2, 64, 4)
    features = backend.encode(image)

    left = backend.decode_on_device(features, clicks, mask)

    found = [machine.cuda.array(one.pointer, one.shape, one.dtype).copy() for one in left]
    np.testing.assert_array_equal(np.concatenate(found), backend.decode(features, clicks, mask))


def test_many_threads_at_once(machine: Machine) -> None:
    backend = machine.open(**PIPELINE)
    backend.warmup()

    at_once(lambda number: check(backend, SHAPES[number : number + 2]), 4)


def test_logits_that_are_not_finite_are_refused(machine: Machine) -> None:
    backend = machine.open(**{**PIPELINE, "bias": float("nan")})
    image, clicks, mask = scene_of(1, 64, 4)

    for decode in (backend.decode, backend.decode_on_device):
        with pytest.raises(BackendError, match="expected finite logits"):
            decode(backend.encode(image), clicks, mask)


def no_graph(folder: Path) -> None:
    """Leaves nothing of Pixel Diffusion's graph that could be opened."""
    path = next(folder.glob("pixel_diffusion.*"))
    path.write_bytes(b"no graph")
    (artefact,) = read_manifest(folder)["artefacts"]
    files = artefact["files"] | {"pixel_diffusion": file_entry(path)}
    change_manifest(folder, artefacts=[artefact_of(artefact["backend"], files)])


def test_the_graph_is_opened_only_where_it_runs(machine: Machine) -> None:
    with closing(machine.open(no_graph, **PIPELINE)) as backend:
        check(backend, SHAPES[:1])
    with pytest.raises(BackendError, match=r"does not load|deserialize_cuda_engine"):
        machine.open(no_graph, place="graph", **PIPELINE)


@pytest.mark.parametrize("size", [384, 512])
def test_the_default_bundle_gives_the_logits_of_its_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host_kernels: ViewKernels, size: int
) -> None:
    pretended(monkeypatch, tmp_path, "onnxruntime", host_kernels)
    bundle, found = load_bundle(default_bundle_path()), []
    _, image, clicks = make_scene(size, size)
    rows = np.stack([clicks, clicks[::-1]])
    rows[1, 2:] = -1
    images = np.ascontiguousarray(np.stack([image, image[::-1, ::-1]]).transpose(0, 3, 1, 2))
    for place in diffusion.Place.__args__:
        with closing(open_backend(bundle, "onnxruntime", "cuda", pixel_diffusion=place)) as backend:
            assert backend.pixel_diffusion == {"auto": "native"}.get(place, place)
            found.append(np.tanh(backend.decode(backend.encode(images), rows) / 2))

    assert (found[0] > 0).any()
    assert (found[0] < 0).any()
    for confidences in found[1:]:  # a state's tolerance, of which a confidence is half
        np.testing.assert_allclose(confidences, found[0], rtol=0, atol=TOLERANCE)


def test_a_build_verifies_graph_and_kernel_on_the_device(machine: Machine) -> None:
    machine.open(**PIPELINE).close()
    bundle, on_cuda = load_bundle(machine.folder), SimpleNamespace(verified_on="cuda")

    assert _places(bundle, on_cuda) == ("graph", "native")


# TorchScript


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, host_kernels: ViewKernels) -> FakeTorch:
    """A double of torch.cuda, and the kernel on it: captured with what torch does."""
    made, library = FakeTorch(), declared(host_kernels._library)

    def launched(name: str) -> Callable[..., int]:
        function = getattr(library, name)
        return lambda *arguments: made.launch(lambda: function(*arguments))

    double = SimpleNamespace(
        clickmask_cuda_affinity_bytes=library.clickmask_cuda_affinity_bytes,
        clickmask_cuda_scratch_bytes=library.clickmask_cuda_scratch_bytes,
        clickmask_cuda_affinity=launched("clickmask_cuda_affinity"),
        clickmask_cuda_diffuse=launched("clickmask_cuda_diffuse"),
    )
    monkeypatch.setattr(diffusion, "diffusion_library", lambda: double)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(cuda_stream=7))
    monkeypatch.setattr(torchscript, "_import_torch", lambda _: torch)
    monkeypatch.setattr(torchscript, "_place", lambda _: "cpu")
    return made


@pytest.fixture
def on_torch(fake: FakeTorch, tmp_path: Path) -> TorchScriptBackend:
    options = PIPELINE | {"input": {"sizes": [64, 96, 128], "max_clicks": 8}}
    bundle = load_bundle(make_bundle(tmp_path / "bundle", backends=("torchscript",), **options))
    backend = TorchScriptBackend.open(bundle, bundle.manifest.artefacts[0], "cuda", pixel_diffusion="native")
    backend._lanes = Lanes(lambda: TorchLane(fake, "cpu"))
    return backend


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_logits_of_torchscript_are_the_references(
    on_torch: TorchScriptBackend, fake: FakeTorch, warm: bool
) -> None:
    if warm:
        on_torch.warmup()
    fake.counts.clear()

    check(on_torch, SHAPES)

    # Three warm shapes: an encoder each, then decoder and kernel for two prompts.
    assert (fake.counts["capture"], fake.counts["replay"]) == (0, 3 * (1 + 2 * 2) if warm else 0)


def test_tensors_that_do_not_lie_as_the_kernel_wants_them(fake: FakeTorch, host_kernels: ViewKernels) -> None:
    options = DiffusionOptions.from_spec(describe_diffusion(CONFIG))
    kernel = DeviceDiffusion(declared(host_kernels._library), options)
    logits, image, clicks = (torch.from_numpy(array) for array in make_scene(64, 64))
    module = torchscript._kernel_module(torch, kernel, ["logits", "image", "clicks"])

    # The image's colours are innermost, and the logits' columns outermost and in double precision.
    found = module(logits.double().T.contiguous().T[None, None], image.permute(2, 0, 1)[None], clicks[None])

    assert found.shape == (1, 1, 64, 64)
    assert fake.counts["capture"] == 0
    state = reference.pixel_diffusion(logits.numpy(), image.numpy(), clicks.numpy(), CONFIG)
    assert_same_state(found[0, 0].numpy(), state)


# The binding


@pytest.mark.parametrize("name", ["paper", "official", "encode_once_mobilenet_v2"])
@pytest.mark.parametrize("kind", ["textured", "flat", "letterboxed", "noise"])
def test_addresses_of_a_batch(host_kernels: ViewKernels, name: str, kind: str) -> None:
    config = dataclasses.replace(preset(name).pixel_diffusion, output="state")
    kernel = DeviceDiffusion(
        declared(host_kernels._library), DiffusionOptions.from_spec(describe_diffusion(config))
    )
    scenes = [make_scene(72, 72, kind, seed) for seed in (1, 2)]
    logits, image, clicks = (np.stack(arrays) for arrays in zip(*scenes, strict=True))
    image, out = np.ascontiguousarray(image.transpose(0, 3, 1, 2)), np.full_like(logits, np.nan)
    scratch = np.full(kernel.scratch_bytes(72) + 8, 0xFF, np.uint8)
    arrays = [array.ctypes.data for array in (image, clicks, logits, out, scratch)]

    kernel.run(Call(*arrays, batch=2, slots=clicks.shape[1], size=72), 0)

    for found, scene in zip(out, scenes, strict=True):
        assert_same_state(found, reference.pixel_diffusion(*scene, config))
    assert (scratch[-8:] == 0xFF).all()
