"""What every backend promises, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import DIFFUSION, LOCAL_BIAS, expected_diffusion, expected_logits, make_bundle, prompt

from clickmask.backends import Backend, Features, open_backend
from clickmask.backends.fake import FakeBackend, fake_manifest
from clickmask.bundle import load_bundle
from clickmask.errors import BackendError, BundleError, InvalidInputError

SIZES = [64, 96, 128]
Make = Callable[..., Backend]


@pytest.fixture(params=["fake", "onnxruntime", "torchscript"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Opens a backend of each kind on the CPU."""

    def open_one(**options: Any) -> Backend:
        if request.param == "fake":
            return FakeBackend(fake_manifest(**options))
        if request.param == "torchscript":
            pytest.importorskip("torch", reason="TorchScript needs torch")
        folder = make_bundle(tmp_path / "bundle", backends=(request.param,), **options)
        return open_backend(load_bundle(folder), request.param, "cpu", threads=1)

    return open_one


def truth(
    backend: Backend, image: np.ndarray, clicks: np.ndarray, previous_mask: np.ndarray | None
) -> np.ndarray:
    """What a backend should give: the tiny network's formula, or the fake's rule pixel by pixel."""
    if not isinstance(backend, FakeBackend):
        return expected_logits(image, clicks, previous_mask, backend.manifest.encodes_once)
    logits = np.empty((len(image), 1, *image.shape[2:]))
    for b, _, row, column in np.ndindex(logits.shape):
        nearest, value = np.inf, -backend.radius
        for x, y, label in clicks[b]:
            distance = np.hypot(column - float(x), row - float(y))
            if label >= 0 and distance <= nearest:
                nearest = distance
                value = backend.radius - distance if label > 0 else -backend.radius
        logits[b, 0, row, column] = value
    return logits


# Every backend


@pytest.mark.parametrize("encodes_once", [False, True], ids=["one_graph", "two_graphs"])
@pytest.mark.parametrize(("batch", "size"), [(1, 64), (2, 64), (1, 96)])
def test_logits_equal_a_numpy_computation(make: Make, encodes_once: bool, batch: int, size: int) -> None:
    backend = make(encodes_once=encodes_once)
    image, clicks, previous_mask = prompt(batch, size)

    logits = backend.decode(backend.encode(image), clicks, previous_mask)

    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, truth(backend, image, clicks, previous_mask), atol=2e-5)


def test_each_of_two_networks_decodes_its_own_features(make: Make) -> None:
    backend = make(local_network=True)
    image, clicks, previous_mask = prompt(1, 64)
    expected = truth(backend, image, clicks, previous_mask)

    passes = [backend.encode(image, local) for local in (False, True)]  # both, before either is decoded
    logits = [backend.decode(features, clicks, previous_mask) for features in passes]

    more = 0 if isinstance(backend, FakeBackend) else LOCAL_BIAS
    np.testing.assert_allclose(logits, [expected, expected + more], atol=2e-5)


@pytest.mark.parametrize("encodes_once", [False, True], ids=["one_graph", "two_graphs"])
@pytest.mark.parametrize("batch", [1, 2])
def test_pixel_diffusion_follows_the_network(make: Make, encodes_once: bool, batch: int) -> None:
    backend = make(encodes_once=encodes_once, pixel_diffusion=DIFFUSION)
    image, clicks, previous_mask = prompt(batch, 64)
    expected = truth(backend, image, clicks, previous_mask)
    if not isinstance(backend, FakeBackend):  # which leaves the logits as they are
        expected = expected_diffusion(image, clicks, expected)

    logits = backend.decode(backend.encode(image), clicks, previous_mask)

    assert backend.pixel_diffusion == "graph"
    np.testing.assert_allclose(logits, expected, atol=2e-5)


def test_pixel_diffusion_follows_both_networks(make: Make) -> None:
    backend = make(local_network=True, pixel_diffusion=DIFFUSION)
    image, clicks, previous_mask = prompt(1, 64)

    first, second = (
        backend.decode(backend.encode(image, local), clicks, previous_mask) for local in (False, True)
    )

    more = 0 if isinstance(backend, FakeBackend) else LOCAL_BIAS / 2
    np.testing.assert_allclose(second, first + more, atol=2e-6)


def test_bundle_without_pixel_diffusion_says_so(make: Make) -> None:
    backend = make()

    assert backend.pixel_diffusion == "none"
    assert backend.pixel_diffusion_reason == "the bundle has no Pixel Diffusion"


@pytest.mark.parametrize("encodes_once", [False, True], ids=["one_graph", "two_graphs"])
def test_encode_for_a_second_network_that_is_not_there(make: Make, encodes_once: bool) -> None:
    backend = make(encodes_once=encodes_once)

    with pytest.raises(InvalidInputError, match="local: expected False, as this bundle has only"):
        backend.encode(np.zeros((1, 3, 64, 64), np.float32), local=True)


@pytest.mark.parametrize("encodes_once", [False, True], ids=["one_graph", "two_graphs"])
def test_no_previous_mask_means_all_zero(make: Make, encodes_once: bool) -> None:
    backend = make(encodes_once=encodes_once)
    image, clicks, _ = prompt(1, 64)
    features = backend.encode(image)

    zeros = np.zeros((1, 1, 64, 64), np.float32)

    np.testing.assert_array_equal(backend.decode(features, clicks), backend.decode(features, clicks, zeros))


@pytest.mark.parametrize("encodes_once", [False, True], ids=["one_graph", "two_graphs"])
def test_network_without_previous_mask(make: Make, encodes_once: bool) -> None:
    backend = make(encodes_once=encodes_once, input={"previous_mask": False})
    image, clicks, previous_mask = prompt(1, 64)
    features = backend.encode(image)

    np.testing.assert_allclose(
        backend.decode(features, clicks), truth(backend, image, clicks, None), atol=2e-5
    )
    with pytest.raises(InvalidInputError, match="previous_mask: expected None"):
        backend.decode(features, clicks, previous_mask)


@pytest.mark.parametrize("slots", [1, 8, 32])
def test_any_number_of_click_slots_up_to_the_maximum(make: Make, slots: int) -> None:
    backend = make()
    image, clicks, previous_mask = prompt(1, 64, slots)

    logits = backend.decode(backend.encode(image), clicks, previous_mask)

    np.testing.assert_allclose(logits, truth(backend, image, clicks, previous_mask), atol=2e-5)


@pytest.mark.parametrize("encodes_once", [False, True], ids=["one_graph", "two_graphs"])
def test_padding_does_not_change_the_result(make: Make, encodes_once: bool) -> None:
    backend = make(encodes_once=encodes_once)
    image, _, previous_mask = prompt(1, 64)
    features = backend.encode(image)
    clicks = np.array([[30, 20, 1], [8, 40, 0], [50, 50, 1]], np.float32)

    padded = [np.full((1, slots, 3), -1, np.float32) for slots in (4, 8, 32)]
    for rows in padded:
        rows[0, : len(clicks)] = clicks
    bare, *others = (backend.decode(features, rows, previous_mask) for rows in (clicks[None], *padded))

    for logits in others:
        np.testing.assert_array_equal(logits, bare)


def test_one_encode_serves_many_decodes(make: Make) -> None:
    backend = make(encodes_once=True)
    image, _, _ = prompt(1, 64)
    features = backend.encode(image)

    for seed in range(3):
        _, clicks, previous_mask = prompt(1, 64, seed=seed)
        logits = backend.decode(features, clicks, previous_mask)
        np.testing.assert_allclose(logits, truth(backend, image, clicks, previous_mask), atol=2e-5)


def test_features_hold_the_image(make: Make) -> None:
    backend = make(encodes_once=True)

    features = backend.encode(np.zeros((1, 3, 64, 64), np.float32))

    assert set(features.tensors) == {"image", "feature_0"}


def test_one_graph_features_are_the_image_alone(make: Make) -> None:
    features = make().encode(np.zeros((1, 3, 64, 64), np.float32))

    assert set(features.tensors) == {"image"}


@pytest.mark.parametrize("encodes_once", [False, True], ids=["one_graph", "two_graphs"])
def test_decode_leaves_its_inputs_as_they_were(make: Make, encodes_once: bool) -> None:
    backend = make(encodes_once=encodes_once)
    arrays = prompt(2, 64)
    before = [array.copy() for array in arrays]
    features = backend.encode(arrays[0])
    first = backend.decode(features, *arrays[1:])

    second = backend.decode(features, *arrays[1:])

    np.testing.assert_array_equal(first, second)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_logits_belong_to_the_caller(make: Make) -> None:
    backend = make()
    image, clicks, previous_mask = prompt(1, 64)
    features = backend.encode(image)
    first = backend.decode(features, clicks, previous_mask)
    kept = first.copy()

    backend.decode(features, np.full_like(clicks, 7), previous_mask)

    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("encodes_once", [False, True], ids=["one_graph", "two_graphs"])
def test_many_threads_give_what_one_thread_gives(make: Make, encodes_once: bool) -> None:
    backend = make(encodes_once=encodes_once)
    shared_features = backend.encode(prompt(1, 64)[0])
    jobs = [prompt(1 + seed % 2, SIZES[seed % 3], 4 + seed % 3, seed) for seed in range(24)]

    def work(job: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        image, clicks, previous_mask = job
        own = backend.decode(backend.encode(image), clicks, previous_mask)
        return own, backend.decode(shared_features, clicks[:1])

    alone = [work(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(work, jobs))

    for one, many in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one[0], many[0])
        np.testing.assert_array_equal(one[1], many[1])


def test_inputs_that_are_views_of_other_arrays(make: Make) -> None:
    backend = make()
    image, clicks, previous_mask = prompt(1, 64)
    flipped = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    flipped.flags.writeable = False

    logits = backend.decode(backend.encode(flipped), clicks, previous_mask)

    np.testing.assert_allclose(logits, truth(backend, image, clicks, previous_mask), atol=2e-5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 64, 64), np.float32), r"image: expected float32 \['B', 3, 'S', 'S'\].*got float32"),
        (np.zeros((1, 64, 64, 3), np.float32), r"image: expected .* got float32 \[1, 64, 64, 3\]"),
        (np.zeros((1, 3, 64, 96), np.float32), r"image: expected .*S = 64, got float32 \[1, 3, 64, 96\]"),
        (np.zeros((1, 3, 64, 64), np.float64), "image: expected float32 .* got float64"),
        (np.zeros((1, 3, 64, 64), np.uint8), "image: expected float32 .* got uint8"),
        (np.zeros((1, 3, 160, 160), np.float32), r"image: expected S in \[64, 96, 128\]"),
        (np.zeros((0, 3, 64, 64), np.float32), "image: expected .*B >= 1"),
        ([[0.0]], "image: expected a NumPy array, got list"),
    ],
    ids=["rank", "axis_order", "not_square", "float64", "uint8", "size", "empty_batch", "list"],
)
def test_encode_refuses_a_wrong_image(make: Make, image: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make().encode(image)


@pytest.mark.parametrize(
    ("clicks", "previous_mask", "message"),
    [
        (np.zeros((1, 4, 2), np.float32), None, "clicks: expected .* got float32"),
        (np.zeros((2, 4, 3), np.float32), None, "clicks: expected .*B = 1"),
        (np.zeros((1, 0, 3), np.float32), None, "clicks: expected .*1 <= M <= 32"),
        (np.zeros((1, 33, 3), np.float32), None, "clicks: expected .*1 <= M <= 32"),
        (np.zeros((1, 4, 3), np.int64), None, "clicks: expected float32 .* got int64"),
        (np.zeros((1, 4, 3), np.float32), np.zeros((1, 1, 96, 96), np.float32), "previous_mask: expected"),
        (np.zeros((1, 4, 3), np.float32), np.zeros((1, 1, 64, 64), bool), "previous_mask: .* got bool"),
        (np.zeros((1, 4, 3), np.float32), np.zeros((64, 64), np.float32), "previous_mask: expected"),
    ],
    ids=["columns", "batch", "no_slots", "too_many", "integers", "mask_size", "mask_dtype", "mask_rank"],
)
def test_decode_refuses_wrong_arrays(
    make: Make, clicks: np.ndarray, previous_mask: np.ndarray | None, message: str
) -> None:
    backend = make()
    features = backend.encode(np.zeros((1, 3, 64, 64), np.float32))

    with pytest.raises(InvalidInputError, match=message):
        backend.decode(features, clicks, previous_mask)


def test_decode_refuses_features_of_another_pipeline(make: Make) -> None:
    backend = make(encodes_once=True)
    image = {"image": np.zeros((1, 3, 64, 64), np.float32)}

    for foreign, message in (
        (Features(image, "decoder"), "features: expected 'feature_0'"),
        (Features(image, "network"), r"for one of \['decoder', 'encoder'\], got 'network'"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            backend.decode(foreign, np.zeros((1, 4, 3), np.float32))


def test_calls_after_close_are_refused(make: Make) -> None:
    backend = make()
    features = backend.encode(np.zeros((1, 3, 64, 64), np.float32))

    backend.close()
    backend.close()

    with pytest.raises(BackendError, match="after close"):
        backend.encode(np.zeros((1, 3, 64, 64), np.float32))
    with pytest.raises(BackendError, match="after close"):
        backend.decode(features, np.zeros((1, 4, 3), np.float32))


# Two of them, side by side


@pytest.mark.parametrize("encodes_once", [False, True], ids=["one_graph", "two_graphs"])
def test_onnxruntime_and_torchscript_agree(tmp_path: Path, encodes_once: bool) -> None:
    pytest.importorskip("torch", reason="TorchScript needs torch")
    bundle = load_bundle(
        make_bundle(tmp_path, backends=("onnxruntime", "torchscript"), encodes_once=encodes_once)
    )
    image, clicks, previous_mask = prompt(2, 96)

    logits = []
    for name in ("onnxruntime", "torchscript"):
        backend = open_backend(bundle, name, "cpu", threads=1)
        logits.append(backend.decode(backend.encode(image), clicks, previous_mask))

    np.testing.assert_allclose(*logits, atol=1e-6)


@pytest.mark.parametrize("backend", ["onnxruntime", "torchscript"])
def test_a_graph_changed_after_the_bundle_was_loaded_is_refused(tmp_path: Path, backend: str) -> None:
    if backend == "torchscript":
        pytest.importorskip("torch", reason="TorchScript needs torch")
    bundle = load_bundle(make_bundle(tmp_path, backends=(backend,)))
    other = make_bundle(tmp_path / "other", backends=(backend,), encodes_once=True)
    for file in bundle.manifest.artefacts[0].files.values():
        (tmp_path / file.path).write_bytes(next(other.glob("decoder.*")).read_bytes())
    with pytest.raises(BundleError, match="got other bytes than when the bundle was loaded"):
        open_backend(bundle, backend, "cpu")
