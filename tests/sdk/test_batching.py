"""Batches give what single requests give, to whoever asked; one bad request spoils nobody else's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import expected_logits, make_bundle, prompt
from sessions import RecordingBackend, everything, make_image

from clickmask import native_library
from clickmask.backends import open_backend
from clickmask.backends.base import Backend, Features
from clickmask.backends.fake import FakeBackend, fake_manifest
from clickmask.batching import BatchingBackend, batched
from clickmask.bundle import Bundle, default_bundle_path, load_bundle
from clickmask.errors import BackendError, InvalidInputError
from clickmask.segmenter import Segmenter

A_WHILE = 60
FOREVER_MS = 1e6
POINTS = [(70, 60, True), (20, 30, False), (90, 80, True)]


class Held:
    """Holds the first call of a method of a backend until `opened`, so that those after it meet."""

    def __init__(self, backend: Backend, method: str) -> None:
        self.inside, self.opened = threading.Event(), threading.Event()
        self._inner, self._first = getattr(backend, method), threading.Lock()
        setattr(backend, method, self)

    def __call__(self, *arguments: Any) -> Any:
        if self._first.acquire(blocking=False):
            self.inside.set()
            assert self.opened.wait(A_WHILE)
        return self._inner(*arguments)


def joined(inner: Backend, method: str, calls: Sequence[tuple], failures: int = 0) -> list[Any]:
    """Results (or errors) of some calls of `encode` or `decode` that run as one batch of len(calls)."""
    first = Held(inner, method)
    backend = batched(inner, len(calls), FOREVER_MS)
    assert isinstance(backend, BatchingBackend)
    call = getattr(backend, method)
    with ThreadPoolExecutor(len(calls) + 1) as pool:
        lone = pool.submit(call, *calls[0])
        assert first.inside.wait(A_WHILE)
        futures = [pool.submit(call, *arguments) for arguments in calls]
        results = [future.exception(A_WHILE) or future.result() for future in futures]
        first.opened.set()
        lone.exception(A_WHILE)
    queue = backend.encodes if method == "encode" else backend.decodes
    assert queue.batches == {1: 1, len(calls): 1}
    assert queue.failures == failures
    return results


def fake(**overrides: Any) -> FakeBackend:
    return FakeBackend(fake_manifest(**overrides))


@pytest.fixture(scope="module")
def default() -> Iterator[Callable[[str], Backend]]:
    """The engine that ships, opened once for each place of Pixel Diffusion."""
    opened: dict[str, Backend] = {}

    def get(place: str) -> Backend:
        if place == "native" and (reason := native_library.unavailable_because()):
            pytest.skip(reason)
        if place not in opened:
            bundle = load_bundle(default_bundle_path())
            opened[place] = open_backend(bundle, "onnxruntime", "cpu", pixel_diffusion=place)  # type: ignore[arg-type]
        return opened[place]

    yield get
    for backend in opened.values():
        backend.close()


def photo_requests(backend: Backend, size: int) -> list[tuple]:
    """Four crops of a photo with different clicks, numbers of rows and previous masks."""
    import cv2
    from skimage import data

    photo = cv2.resize(data.astronaut(), (size + 60, size + 60)).transpose(2, 0, 1)
    calls: list[tuple] = []
    for i, slots in enumerate((4, 8, 4, 4)):
        image = np.ascontiguousarray(photo[None, :, 15 * i : 15 * i + size, 15 * i : 15 * i + size])
        clicks = np.full((1, slots, 3), -1, np.float32)
        clicks[0, : i + 1] = [(size / 2 + 9 * k, size / 3 + 20 * k, k % 2 == 0) for k in range(i + 1)]
        previous = np.zeros((1, 1, size, size), np.float32)
        previous[..., size // 3 : size // 2, size // 4 : size // 2] = 0.9
        features = backend.encode(image.astype(np.float32) / 255)
        calls.append((features, clicks, previous if i in (1, 2) else None))
    return calls


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    """Logits that differ by rounding only; Pixel Diffusion magnifies that far from 0, hence as states."""
    np.testing.assert_allclose(np.tanh(found / 2), np.tanh(expected / 2), atol=2e-5)
    assert ((found > 0) != (expected > 0)).sum() <= 2
    assert (expected > 0).any()


@pytest.mark.parametrize("place", ["native", "graph"])
def test_on_the_default_engine_a_batch_gives_each_what_it_gets_alone(
    default: Callable[[str], Backend], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    inner = default(place)
    calls = photo_requests(inner, min(inner.manifest.input.sizes))
    alone = [inner.decode(*call) for call in calls]
    monkeypatch.setattr(inner, "decode", inner.decode)  # `joined` replaces it
    results = joined(inner, "decode", calls)
    for result, expected in zip(results, alone, strict=True):
        assert_same(result, expected)


def test_on_the_default_engine_joined_encodes_give_each_its_features(
    default: Callable[[str], Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = default("native")
    requests = photo_requests(inner, min(inner.manifest.input.sizes))
    images = [np.array(inner._download(features.tensors["image"])) for features, _, _ in requests]
    monkeypatch.setattr(inner, "encode", inner.encode)
    results = joined(inner, "encode", [(image,) for image in images])
    for (features, clicks, previous), result in zip(requests, results, strict=True):
        expected = inner.decode(features, clicks, previous)
        assert_same(inner.decode(result, clicks, previous), expected)


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript"])
@pytest.mark.parametrize("encodes_once", [False, True])
def test_every_runtime_joins_and_splits(tmp_path: Path, runtime: str, encodes_once: bool) -> None:
    bundle = load_bundle(make_bundle(tmp_path, encodes_once=encodes_once, backends=(runtime,)))
    inner = open_backend(bundle, runtime, "cpu")
    prompts = [prompt(1, 64, seed=seed) for seed in range(3)]
    if encodes_once:
        features = joined(inner, "encode", [(image,) for image, _, _ in prompts])
    else:
        features = [inner.encode(image) for image, _, _ in prompts]
    calls = [(f, clicks, mask) for f, (_, clicks, mask) in zip(features, prompts, strict=True)]
    results = joined(inner, "decode", calls)
    for result, (image, clicks, mask) in zip(results, prompts, strict=True):
        np.testing.assert_allclose(result, expected_logits(image, clicks, mask, encodes_once), atol=1e-5)


def test_features_of_a_joined_encode_own_their_memory() -> None:
    inner = fake(encodes_once=True)
    images = [np.full((1, 3, 64, 64), i / 4, np.float32) for i in range(4)]
    features = joined(inner, "encode", [(image,) for image in images])
    for image, one in zip(images, features, strict=True):
        np.testing.assert_array_equal(one.tensors["image"], image)
        assert all(array.base is None for array in one.tensors.values())  # no slice of the whole batch


def test_rows_of_clicks_and_missing_previous_masks_are_filled_up() -> None:
    inner = RecordingBackend(fake_manifest())
    features = inner.encode(np.zeros((1, 3, 64, 64), np.float32))
    few, many = np.full((1, 4, 3), -1, np.float32), np.full((1, 8, 3), -1, np.float32)
    few[0, 0], many[0, :5] = (10, 20, 1), (30, 40, 0)
    mask = np.full((1, 1, 64, 64), 0.5, np.float32)
    joined(inner, "decode", [(features, few, None), (features, many, mask)])
    (fed,) = (feeds for feeds in inner.decoded if len(feeds["clicks"]) == 2)
    order = [0, 1] if fed["clicks"][0, 4, 2] == -1 else [1, 0]
    np.testing.assert_array_equal(fed["clicks"][order[0], :4], few[0])
    np.testing.assert_array_equal(fed["clicks"][order[0], 4:], -1)
    np.testing.assert_array_equal(fed["clicks"][order[1]], many[0])
    assert not fed["previous_mask"][order[0]].any()
    np.testing.assert_array_equal(fed["previous_mask"][order[1]], mask[0])


class Signed(RecordingBackend):
    """Fills its logits with the number of the network that gave them."""

    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        number = {"network": 1, "local_network": 2}[graph]
        return {"logits": np.full_like(super()._run(graph, feeds)["logits"], number)}


def test_sizes_and_graphs_do_not_mix() -> None:
    inner = Signed(fake_manifest(local_network=True))
    clicks = np.full((1, 4, 3), -1, np.float32)
    first = Held(inner, "decode")
    backend = batched(inner, 2, FOREVER_MS)
    features = [
        backend.encode(np.zeros((1, 3, size, size), np.float32), local)
        for size in (64, 96)
        for local in (False, True)
    ]
    with ThreadPoolExecutor(10) as pool:
        pool.submit(backend.decode, features[0], clicks)
        assert first.inside.wait(A_WHILE)
        calls = [pool.submit(backend.decode, one, clicks) for _ in range(2) for one in features]
        logits = [call.result(A_WHILE) for call in calls]
        first.opened.set()
    assert [one.shape[-1] for one in logits] == [64, 64, 96, 96] * 2
    assert [one[0, 0, 0, 0] for one in logits] == [1, 2, 1, 2] * 2
    assert {len(feeds["clicks"]) for feeds in inner.decoded} == {1, 2}


def test_a_bad_request_raises_before_it_joins_anything() -> None:
    inner = RecordingBackend(fake_manifest())
    backend = batched(inner, 4, FOREVER_MS)
    features = backend.encode(np.zeros((1, 3, 64, 64), np.float32))
    good = np.full((1, 4, 3), -1, np.float32)
    for call, arguments in (
        (backend.encode, (np.zeros((1, 3, 64, 64)),)),
        (backend.encode, (np.zeros((1, 3, 65, 65), np.float32),)),
        (backend.encode, (np.zeros((1, 3, 64, 64), np.float32), True)),
        (backend.decode, (features, good[0])),
        (backend.decode, (features, np.full((1, 33, 3), -1, np.float32))),
        (backend.decode, (features, good, np.zeros((1, 1, 32, 32), np.float32))),
        (backend.decode, (Features({"image": features.tensors["image"]}, "other"), good)),
    ):
        with pytest.raises(InvalidInputError):
            call(*arguments)
    assert inner.decoded == []


class Poisoned(RecordingBackend):
    """NaN wherever the previous mask is 0.25."""

    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        outputs = super()._run(graph, feeds)
        outputs["logits"][feeds["previous_mask"] == 0.25] = np.nan
        return outputs


def test_a_request_that_makes_its_batch_fail_is_the_only_one_to_fail() -> None:
    inner = Poisoned(fake_manifest())
    features = inner.encode(np.zeros((1, 3, 64, 64), np.float32))
    clicks = np.full((1, 4, 3), -1, np.float32)
    masks = [np.full((1, 1, 64, 64), value, np.float32) for value in (0.5, 0.25, 0.75)]
    results = joined(inner, "decode", [(features, clicks, mask) for mask in masks], failures=1)
    assert isinstance(results[1], BackendError)
    for good in (results[0], results[2]):
        np.testing.assert_array_equal(good, np.full((1, 1, 64, 64), -12, np.float32))


def test_requests_of_several_images_run_as_they_are() -> None:
    inner = RecordingBackend(fake_manifest(encodes_once=True))
    backend = batched(inner, 4, FOREVER_MS)
    features = backend.encode(np.zeros((3, 3, 64, 64), np.float32))
    logits = backend.decode(features, np.full((3, 4, 3), -1, np.float32))
    assert logits.shape == (3, 1, 64, 64)
    assert not backend.decodes.batches
    assert not backend.encodes.batches


def test_closing_ends_every_wait_with_an_error() -> None:
    inner = fake()
    features = inner.encode(np.zeros((1, 3, 64, 64), np.float32))
    clicks = np.full((1, 4, 3), -1, np.float32)
    first = Held(inner, "decode")
    backend = batched(inner, 8, FOREVER_MS)
    assert isinstance(backend, BatchingBackend)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(backend.decode, features, clicks)]
        assert first.inside.wait(A_WHILE)
        calls += [pool.submit(backend.decode, features, clicks) for _ in range(3)]
        backend.close()
        first.opened.set()
        for call in calls:
            with pytest.raises(BackendError, match="after close"):
                call.result(A_WHILE)
    with pytest.raises(BackendError, match="after close"):
        backend.encode(np.zeros((1, 3, 64, 64), np.float32))
    backend.close()


def test_sessions_on_a_batching_segmenter_see_what_they_see_without() -> None:
    crop = {"kind": "fbrs", "start_click": 2, "min_size": 40}
    manifest = fake_manifest(encodes_once=True, crop=crop)
    bundle = Bundle(Path("nowhere"), manifest)
    images = [make_image(150 - 5 * i, 100 + 5 * i, seed=i) for i in range(6)]

    def annotate(segmenter: Segmenter, image: np.ndarray) -> tuple:
        session = segmenter.session(image)
        for point in POINTS:
            session.click(*point)
        session.undo()
        session.remove(0)
        return everything(session)

    alone = [annotate(Segmenter(bundle, FakeBackend(manifest)), image) for image in images]
    shared = Segmenter(bundle, batched(FakeBackend(manifest), 4, 50))
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda image: annotate(shared, image), images, timeout=A_WHILE))
    assert together == alone


def test_warmup_runs_the_sizes_that_batches_have() -> None:
    inner = RecordingBackend(fake_manifest(input={"sizes": [64]}))
    batched(inner, 6, 1).warmup()
    assert {len(feeds["clicks"]) for feeds in inner.decoded} == {1, 2, 4, 6}


def test_batches_are_no_larger_than_the_backend_takes() -> None:
    inner = RecordingBackend(fake_manifest(input={"sizes": [64]}))
    inner.largest_batch = 3
    backend = batched(inner, 16, 1)
    backend.warmup()
    assert max(len(feeds["clicks"]) for feeds in inner.decoded) == backend.largest_batch == 3
    inner.largest_batch = 1
    assert batched(inner, 16, 1) is inner


@pytest.mark.parametrize(
    ("most", "delay", "named"),
    [
        (0, 1, "max_batch"),
        (1.5, 1, "max_batch"),
        (True, 1, "max_batch"),
        (5000, 1, "max_batch"),
        (4, -1, "max_delay_ms"),
        (4, float("nan"), "max_delay_ms"),
        (4, float("inf"), "max_delay_ms"),
        (4, "1", "max_delay_ms"),
    ],
)
def test_numbers_out_of_range_are_refused(most: Any, delay: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        batched(fake(), most, delay)


def test_numbers_out_of_range_are_refused_before_an_engine_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr("clickmask.backends.open_backend", lambda *_, **__: opened.append(1))
    with pytest.raises(InvalidInputError, match="max_batch"):
        Segmenter.load(max_batch=0)
    assert not opened


def test_batches_of_one_need_no_wrapper() -> None:
    inner = fake()
    assert batched(inner, 1, 5) is inner
