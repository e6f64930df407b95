"""TorchScript's CUDA path on the CPU, on a double of torch.cuda. Nothing here tells of a real GPU."""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from at_once import at_once
from bundles import DIFFUSION, expected_diffusion, expected_logits, make_bundle, prompt

torch = pytest.importorskip("torch", reason="TorchScript needs torch")

from torch_double import FakeTorch  # noqa: E402

from clickmask.backends import Features, torchscript  # noqa: E402
from clickmask.backends.cuda_memory import DeviceArray  # noqa: E402
from clickmask.backends.lanes import LANES, Lanes  # noqa: E402
from clickmask.backends.torch_lane import TorchLane  # noqa: E402
from clickmask.backends.torchscript import TorchScriptBackend  # noqa: E402
from clickmask.bundle import load_bundle  # noqa: E402
from clickmask.errors import BackendError  # noqa: E402


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTorch:
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    return FakeTorch()


@pytest.fixture
def backend(fake: FakeTorch, tmp_path: Any, request: pytest.FixtureRequest) -> Any:
    options = getattr(request, "param", {"encodes_once": True, "pixel_diffusion": DIFFUSION})
    options |= {"input": {"sizes": [64, 96], "max_clicks": 8}}
    bundle = load_bundle(make_bundle(tmp_path / "bundle", backends=("torchscript",), **options))
    opened = TorchScriptBackend.open(bundle, bundle.manifest.artefacts[0], "cpu")
    opened._lanes = Lanes(lambda: TorchLane(fake, "cpu"))
    return opened


def check(backend: Any, seed: int, size: int, slots: int, batch: int = 1) -> None:
    image, clicks, mask = prompt(batch, size, slots, seed)
    features = backend.encode(image)
    for rows in (clicks, clicks[:, ::-1].copy()):
        logits = expected_logits(image, rows, mask, encodes_once=True)
        expected = expected_diffusion(image, rows, logits)
        np.testing.assert_allclose(backend.decode(features, rows, mask), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_results_are_the_networks(backend: Any, fake: FakeTorch, warm: bool) -> None:
    if warm:
        backend.warmup()
    fake.counts.clear()

    for seed, (size, slots) in enumerate([(64, 4), (96, 8), (64, 8), (96, 4)]):
        check(backend, seed, size, slots)
    check(backend, 9, 64, 4, batch=3)

    assert fake.counts["capture"] == 0
    # Four warm shapes: an encoder each, then decoder and Pixel Diffusion for two clicks.
    assert fake.counts["replay"] == (4 * (1 + 2 * 2) if warm else 0)


def test_each_shape_is_captured_once_in_each_lane(backend: Any, fake: FakeTorch) -> None:
    backend.warmup()
    backend.warmup()

    # 2 sizes: the encoder, and decoder and Pixel Diffusion with 4 and 8 rows.
    assert fake.counts["capture"] == 2 * (1 + 2 * 2) * LANES


def test_graphs_for_few_and_for_many_clicks_share_the_memory_of_features(backend: Any) -> None:
    backend.warmup()

    with backend._lanes.lent() as lane:
        decoders = [captured for key, captured in lane._graphs.items() if key[0] == "decoder"]
    features = backend.manifest.graphs["decoder"].inputs[0].name
    assert features.startswith("feature")
    # 2 sizes, 4 and 8 rows each.
    assert (len(decoders), len({inputs[0].data_ptr() for _, inputs, _ in decoders})) == (4, 2)


def test_images_on_the_device_are_taken_as_they_are(backend: Any) -> None:
    backend.takes_device_arrays = True
    prompts = [prompt(1, 64, seed=seed) for seed in range(2)]
    given = [DeviceArray(image.ctypes.data, image.shape, "float32", image) for image, _, _ in prompts]
    whole = backend.join([Features({"image": image}, "encoder") for image in given]).tensors["image"]
    together = backend.split(backend.encode(whole))

    for features, device, (image, clicks, mask) in zip(together, given, prompts, strict=True):
        logits = expected_logits(image, clicks, mask, encodes_once=True)
        expected = expected_diffusion(image, clicks, logits)
        for one in (features, backend.encode(device)):
            np.testing.assert_allclose(backend.decode(one, clicks, mask), expected, rtol=0, atol=2e-6)
    assert backend.encode(given[0]).tensors["image"].data_ptr() == given[0].pointer


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_logits_stay_on_the_device_in_memory_of_their_own(backend: Any, warm: bool) -> None:
    backend.takes_device_arrays = True
    if warm:
        backend.warmup()
    kept = []
    for seed, batch in enumerate((1, 3, 1)):
        image, clicks, mask = prompt(batch, 64, seed=seed)
        told = DeviceArray(mask.ctypes.data, mask.shape, "float32", mask)
        logits = expected_logits(image, clicks, mask, encodes_once=True)
        found = backend.decode_on_device(backend.encode(image), clicks, told)
        kept.append((found, expected_diffusion(image, clicks, logits)))
    for found, expected in kept:
        assert len(found) == len(expected)
        for one, item in zip(found, expected, strict=True):
            assert (one.shape, one.dtype) == ((1, 1, 64, 64), "float32")
            memory = (ctypes.c_ubyte * one.nbytes).from_address(one.pointer)
            array = np.frombuffer(memory, np.float32).reshape(one.shape)
            np.testing.assert_allclose(array[0], item, rtol=0, atol=2e-6)


def test_of_logits_that_stay_only_a_flag_comes_to_the_host(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: Any) -> Any:
        raise AssertionError("brought to the host")

    backend.takes_device_arrays = True
    image, clicks, mask = prompt(1, 64)
    features = backend.encode(image)
    monkeypatch.setattr(TorchLane, "download", nothing)

    assert len(backend.decode_on_device(features, clicks, mask)) == 1


def test_features_are_not_overwritten_by_the_next_encode(backend: Any) -> None:
    backend.warmup()
    first, second = prompt(1, 64, seed=1), prompt(1, 64, seed=2)
    kept = backend.encode(first[0])
    backend.encode(second[0])

    logits = expected_logits(first[0], first[1], first[2], encodes_once=True)
    expected = expected_diffusion(first[0], first[1], logits)
    np.testing.assert_allclose(backend.decode(kept, *first[1:]), expected, rtol=0, atol=2e-6)


def test_results_are_not_overwritten_by_the_next_click(backend: Any) -> None:
    backend.warmup()
    image, clicks, mask = prompt(1, 64)
    features = backend.encode(image)
    first = backend.decode(features, clicks, mask)
    kept = first.copy()

    backend.decode(features, clicks, np.zeros_like(mask))

    np.testing.assert_array_equal(first, kept)


def test_what_cannot_be_captured_runs_without_a_graph(
    backend: Any, fake: FakeTorch, caplog: pytest.LogCaptureFixture
) -> None:
    fake.refuses_capture = True

    with caplog.at_level(logging.WARNING, "clickmask"):
        backend.warmup()

    assert (
        "encoder runs without a CUDA graph, which costs launch time: operation not permitted" in caplog.text
    )
    check(backend, 0, 64, 4)
    assert fake.counts["replay"] == 0


@pytest.mark.parametrize(
    "backend",
    [{"bias": float("nan")}, {"bias": float("inf"), "pixel_diffusion": DIFFUSION}],
    ids=["plain", "diffusion"],
    indirect=True,
)
def test_logits_that_are_not_finite_are_refused(backend: Any) -> None:
    image, clicks, mask = prompt(1, 64)

    with pytest.raises(BackendError, match="expected finite logits"):
        backend.decode(backend.encode(image), clicks, mask)
    backend.takes_device_arrays = True
    with pytest.raises(BackendError, match="expected finite logits"):
        backend.decode_on_device(backend.encode(image), clicks, mask)


def test_join_and_split(backend: Any) -> None:
    images = [prompt(1, 64, seed=seed)[0] for seed in range(3)]
    whole = backend.join([backend.encode(image) for image in images])

    assert whole.tensors["image"].shape == (3, 3, 64, 64)
    for image, part in zip(images, backend.split(whole), strict=True):
        np.testing.assert_array_equal(part.tensors["image"].numpy(), image)


def test_many_threads_at_once(backend: Any) -> None:
    backend.warmup()

    def annotate(seed: int) -> None:
        for turn in range(3):
            check(backend, 10 * seed + turn, (64, 96)[(seed + turn) % 2], (4, 8)[turn % 2])

    at_once(annotate, 4)


def test_an_error_that_shows_at_the_end_of_a_call_is_a_backend_error(backend: Any, fake: FakeTorch) -> None:
    backend.encode(prompt(1, 64)[0])

    def broken() -> None:
        raise RuntimeError("an illegal memory access was encountered")

    fake.cuda.Stream = lambda _: SimpleNamespace(synchronize=broken)
    backend._lanes = Lanes(lambda: TorchLane(fake, "cpu"))

    for _ in range(LANES + 1):
        with pytest.raises(BackendError, match="torchscript on cpu failed: an illegal memory access"):
            backend.encode(prompt(1, 64)[0])


def test_one_capture_at_a_time(fake: FakeTorch) -> None:
    under_way, most = 0, 0
    plain = fake.cuda.graph

    @contextmanager
    def counted(*arguments: Any, **options: Any) -> Iterator[None]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        time.sleep(0.02)
        with plain(*arguments, **options):
            yield
        under_way -= 1

    def capture(_: int) -> None:
        lane = TorchLane(fake, "cpu")
        lane.warming = True
        lane.run("network", torch.sin, (torch.zeros(3),))

    fake.cuda.graph = counted
    at_once(capture, 3)

    assert (most, fake.counts["capture"]) == (1, 3)


@pytest.mark.parametrize(("device", "place"), [("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
def test_a_device_without_a_number_is_the_first_in_every_thread(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, device: str, place: str
) -> None:
    made: list[str] = []

    class Lane:
        def __init__(self, _torch: Any, device: str) -> None:
            made.append(device)
            raise RuntimeError("no such device")

    monkeypatch.setattr(torchscript, "TorchLane", Lane)
    manifest = load_bundle(make_bundle(tmp_path / "bundle", backends=("torchscript",))).manifest
    backend = TorchScriptBackend(manifest, {}, device, "a test")

    with pytest.raises(BackendError, match=f"torchscript on {device} failed: no such device"):
        backend.encode(prompt(1, 64)[0])
    with pytest.raises(BackendError, match="no such device"):
        backend.warmup()
    assert made == [place] * 2


def test_after_close(backend: Any) -> None:
    backend.close()

    with pytest.raises(BackendError, match=r"after close\(\)"):
        backend.encode(prompt(1, 64)[0])
