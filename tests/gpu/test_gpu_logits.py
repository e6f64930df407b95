"""Logits that stay on the GPU are those that come to the host, and so are the sessions made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gpu_scenes import KINDS, Scene, free_bytes, make_scene, on_device, on_host
from gpu_wants import needed

from clickmask import Segmenter
from clickmask.backends.device_kernels import view_kernels
from clickmask.backends.device_pixels import UploadedPixels
from clickmask.errors import BackendError
from clickmask.history import HISTORY_BYTES
from clickmask.pixels import HostPixels

pytestmark = pytest.mark.gpu

KIND = pytest.mark.parametrize(("backend", "precision"), KINDS, ids=lambda value: value)
Open = Callable[[str, str], Any]


@pytest.fixture(autouse=True, scope="module")
def _kernels() -> None:
    with needed():
        view_kernels()


def scenes_of(runtime: Any, photo: np.ndarray) -> list[Scene]:
    return [make_scene(runtime.manifest, photo, size) for size in runtime.manifest.input.sizes]


@KIND
def test_logits_on_the_device_are_those_on_the_host(
    backend: str, precision: str, opened: Open, photo: np.ndarray
) -> None:
    """Cold and warm; with a previous mask from the host as with one that is there."""
    runtime = opened(backend, precision)
    for _ in ("cold", "warm"):
        for scene in scenes_of(runtime, photo):
            features = runtime.encode(scene.image)
            expected = scene.run(runtime)
            masks = [scene.previous_mask]
            if scene.previous_mask is not None:
                masks.append(on_device(scene.previous_mask))
            for mask in masks:
                (left,) = runtime.decode_on_device(features, scene.clicks, mask)
                assert left.shape == (1, 1, scene.size, scene.size)
                np.testing.assert_allclose(on_host(left), expected, rtol=0.02, atol=0.05)
        runtime.warmup()


@KIND
def test_later_clicks_leave_earlier_logits_alone(
    backend: str, precision: str, opened: Open, photo: np.ndarray
) -> None:
    runtime = opened(backend, precision)
    scene = make_scene(runtime.manifest, photo, runtime.manifest.input.sizes[0])
    others = [make_scene(runtime.manifest, photo, scene.size, clicks) for clicks in (1, 2, 4, 5, 6)]
    (first,) = runtime.decode_on_device(runtime.encode(scene.image), scene.clicks, scene.previous_mask)
    expected = on_host(first)
    kept = [
        runtime.decode_on_device(runtime.encode(other.image), other.clicks, other.previous_mask)[0]
        for other in others
    ]
    np.testing.assert_array_equal(on_host(first), expected)
    assert len({array.pointer for array in (first, *kept)}) == 6


@KIND
def test_logits_that_are_not_finite_are_heard_of(
    backend: str, precision: str, opened: Open, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put there by hand: whether a runtime's ReLU lets a NaN through is its own affair."""
    import torch

    runtime = opened(backend, precision)
    scene = make_scene(runtime.manifest, photo, runtime.manifest.input.sizes[0])
    run, expected = runtime._run, scene.run(runtime)
    for value in (np.nan, np.inf, -np.inf):

        def broken(graph: str, feeds: Any, value: float = value) -> Any:
            outputs = run(graph, feeds)
            if "logits" in outputs:
                torch.cuda.synchronize()  # our stream does not wait for torch's, nor torch's for ours
                torch.as_tensor(outputs["logits"], device="cuda")[0, 0, 3, 5] = value
                torch.cuda.synchronize()
            return outputs

        features = runtime.encode(scene.image)
        with monkeypatch.context() as patch:
            patch.setattr(runtime, "_run", broken)
            with pytest.raises(BackendError, match="finite logits"):
                runtime.decode_on_device(features, scene.clicks, scene.previous_mask)
        (left,) = runtime.decode_on_device(features, scene.clicks, scene.previous_mask)
        np.testing.assert_allclose(on_host(left), expected, rtol=0.02, atol=0.05)


@KIND
def test_crops_move_on_the_gpu_as_on_the_host(
    backend: str, precision: str, built: Open, photo: np.ndarray
) -> None:
    height, width = photo.shape[:2]
    clicks = [(width / 2, height / 2, True), (5, 5, False), (width / 3, height / 2, True), (9, 9, False)]
    with Segmenter.load(built(backend, precision).path, backend, "cuda", prefetch=False) as segmenter:
        there = segmenter.session(photo, crop_policy="fbrs")
        segmenter.backend.takes_device_arrays = False  # so that its pixels stay on the host
        here = segmenter.session(photo, crop_policy="fbrs")
        segmenter.backend.takes_device_arrays = True
        assert isinstance(there._pixels, UploadedPixels)
        assert isinstance(here._pixels, HostPixels)
        for click in clicks:
            mask, expected = there.click(*click), here.click(*click)
            assert (mask & expected).sum() >= 0.97 * (mask | expected).sum()
        masks = [there.mask]
        segmenter.backend.decode_on_device = None  # what follows is not for the network
        while there.can_undo:
            masks.append(there.undo())
        for mask in reversed(masks[:-1]):
            np.testing.assert_array_equal(there.redo(), mask)
        np.testing.assert_array_equal(there.fork().mask, masks[0])
        assert not masks[-1].any()


@pytest.mark.parametrize("backend", ["torchscript", "onnxruntime", "tensorrt"])
def test_a_long_session_stays_within_its_history(backend: str, built: Open, photo: np.ndarray) -> None:
    height, width = photo.shape[:2]
    with Segmenter.load(built(backend, "fp16").path, backend, "cuda", prefetch=False) as segmenter:
        segmenter.warmup()
        size = segmenter.bundle.manifest.input.sizes[-1]  # where bytes bound the history
        session = segmenter.session(photo, size=size)
        session.click(width / 2, height / 2)
        before = free_bytes()
        places = np.random.default_rng(0).uniform(0, (width - 1, height - 1), (300, 2))
        for number, (x, y) in enumerate(places.tolist()):
            session.click(x, y, number % 3 > 0)
            if number % 20 == 19:
                session.reset()
        assert session.can_undo
        assert before - free_bytes() < HISTORY_BYTES + (64 << 20)
