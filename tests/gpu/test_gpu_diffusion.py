"""Pixel Diffusion by the kernel for CUDA is that of the bundle's graph, in every runtime on a real GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gpu_scenes import KINDS, Scene, iou, make_scene, on_host
from gpu_wants import needed

from clickmask.backends import open_artefact
from clickmask.backends.device_diffusion import diffusion_library

pytestmark = pytest.mark.gpu

# Of confidences, which are in [-1, 1]. The kernel's own error is 2e-4 (tests/native); the rest is room for a
# network that two sessions of a runtime compute in different ways.
TOLERANCE = {"fp32": 2e-3, "fp16": 0.03}
LEAST_IOU = {"fp32": 0.999, "fp16": 0.98}
KIND = pytest.mark.parametrize(("backend", "precision"), KINDS, ids=lambda value: value)


@pytest.fixture(autouse=True, scope="module")
def _library() -> None:
    with needed():
        diffusion_library()


@contextmanager
def both(bundle: Any) -> Iterator[tuple[Any, Any]]:
    """The bundle with the kernel and with its graph."""
    artefact = bundle.manifest.artefacts[0]
    with ExitStack() as stack:
        with needed():
            kernel, graph = (
                stack.enter_context(closing(open_artefact(bundle, artefact, "cuda", pixel_diffusion=place)))
                for place in ("native", "graph")
            )
        yield kernel, graph


def pairs(manifest: Any, photo: np.ndarray) -> Iterator[Scene]:
    """Two images at once, at every size, with few clicks and with padded rows of them."""
    for size in manifest.input.sizes:
        for clicks in (1, 3, 6):
            first = make_scene(manifest, photo, size, clicks)
            image = np.concatenate([first.image, first.image[..., ::-1]])
            rows = np.concatenate([first.clicks, first.clicks[:, ::-1]])
            mask = None if first.previous_mask is None else np.concatenate([first.previous_mask] * 2)
            yield replace(first, image=image, clicks=rows, previous_mask=mask)


@KIND
def test_the_kernel_gives_what_the_graph_gives(
    backend: str,
    precision: str,
    built: Callable[[str, str], Any],
    photo: np.ndarray,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with both(built(backend, precision)) as (kernel, graph):
        assert (kernel.pixel_diffusion, kernel.pixel_diffusion_reason) == ("native", "CUDA")
        for _ in ("cold", "warm"):
            for scene in pairs(kernel.manifest, photo):
                found, expected = scene.run(kernel), scene.run(graph)
                apart = np.abs(np.tanh(found / 2) - np.tanh(expected / 2)).max()
                assert apart <= TOLERANCE[precision], scene.size
                assert iou(found, expected, kernel.manifest.threshold) >= LEAST_IOU[precision]
            for runtime in (kernel, graph):
                runtime.warmup((1, 2))
    assert "without a CUDA graph" not in caplog.text


@KIND
def test_captured_kernels_leave_the_logits_on_the_device(
    backend: str, precision: str, built: Callable[[str, str], Any], photo: np.ndarray
) -> None:
    with both(built(backend, precision)) as (kernel, _):
        kernel.warmup()
        kept = []
        for size in kernel.manifest.input.sizes:
            scene = make_scene(kernel.manifest, photo, size)
            features = kernel.encode(scene.image)
            kept.append((kernel.decode_on_device(features, scene.clicks, scene.previous_mask), scene))
        for (left,), scene in kept:
            np.testing.assert_allclose(on_host(left), scene.run(kernel), rtol=0.02, atol=0.05)
