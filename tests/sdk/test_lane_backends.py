"""What TensorRT and ONNX Runtime on CUDA compute in lanes, on doubles.

Nothing here says anything of a real GPU. The doubles do their work late, fill fresh memory with NaN, notice
memory that is not there, and compute the tiny network of bundles.py, so that results, order and ownership are
checked together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bundles import (
    DIFFUSION,
    LOCAL_BIAS,
    prompt,
)
from gpu_machine import Machine, truth

from clickmask.errors import BackendError


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_results_are_the_networks(any_machine: Machine, pipeline: dict[str, Any], warm: bool) -> None:
    backend = any_machine.open(**pipeline)
    if warm:
        backend.warmup()
    masked = pipeline.get("input", {}).get("previous_mask", True)

    for number, (size, slots) in enumerate([(64, 4), (128, 8), (64, 8), (128, 4), (96, 32)]):
        image, clicks, mask = prompt(1, size, slots, seed=number)
        features = backend.encode(image)
        for rows in (clicks, clicks[:, ::-1].copy()):
            logits = backend.decode(features, rows, mask if masked else None)
            np.testing.assert_allclose(logits, truth(pipeline, image, rows, mask), rtol=0, atol=2e-6)


def test_a_warm_backend_runs_batches_that_were_not_warmed_up(any_machine: Machine) -> None:
    backend = any_machine.open(encodes_once=True, pixel_diffusion=DIFFUSION)
    backend.warmup()
    image, clicks, mask = prompt(3, 96)

    logits = backend.decode(backend.encode(image), clicks, mask)

    expected = truth({"encodes_once": True, "pixel_diffusion": 1}, image, clicks, mask)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-6)


def test_features_outlive_the_calls_between(any_machine: Machine) -> None:
    backend = any_machine.open(encodes_once=True)
    prompts = [prompt(1, 64, seed=seed) for seed in range(4)]
    kept = [backend.encode(image) for image, _, _ in prompts]

    for features, (image, clicks, mask) in reversed(list(zip(kept, prompts, strict=True))):
        expected = truth({"encodes_once": True}, image, clicks, mask)
        np.testing.assert_allclose(backend.decode(features, clicks, mask), expected, rtol=0, atol=2e-6)


def test_second_network_runs_for_the_second_pass(any_machine: Machine) -> None:
    backend = any_machine.open(local_network=True)
    image, clicks, mask = prompt(1, 64)

    difference = backend.decode(backend.encode(image, local=True), clicks, mask) - backend.decode(
        backend.encode(image), clicks, mask
    )

    np.testing.assert_allclose(difference, LOCAL_BIAS, rtol=0, atol=2e-6)


def test_join_and_split(any_machine: Machine) -> None:
    backend = any_machine.open(encodes_once=True)
    prompts = [prompt(1, 64, seed=seed) for seed in range(3)]
    whole = backend.join([backend.encode(image) for image, _, _ in prompts])
    image, clicks, mask = (np.concatenate(arrays) for arrays in zip(*prompts, strict=True))

    together = backend.decode(whole, clicks, mask)
    parts = backend.split(whole)
    del whole
    last = backend.decode(parts[2], clicks[2:], mask[2:])

    expected = truth({"encodes_once": True}, image, clicks, mask)
    np.testing.assert_allclose(together, expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(last, expected[2:], rtol=0, atol=2e-6)


@pytest.mark.parametrize("pipeline", [{}, {"pixel_diffusion": DIFFUSION}], ids=["plain", "diffusion"])
def test_logits_that_are_not_finite_are_refused(any_machine: Machine, pipeline: dict[str, Any]) -> None:
    backend = any_machine.open(bias=float("inf"), **pipeline)
    image, clicks, mask = prompt(1, 64)

    with pytest.raises(BackendError, match="expected finite logits"):
        backend.decode(backend.encode(image), clicks, mask)


def test_infinity_shows_after_calls_that_were_fine(any_machine: Machine) -> None:
    backend = any_machine.open(pixel_diffusion=DIFFUSION)
    backend.warmup()
    image, clicks, mask = prompt(1, 64)
    backend.decode(backend.encode(image), clicks, mask)
    image[0, 0, 5, 5] = np.inf

    with pytest.raises(BackendError, match="expected finite logits"):
        backend.decode(backend.encode(image), clicks, mask)


def test_what_is_on_the_device_already_is_not_copied_again(any_machine: Machine) -> None:
    backend = any_machine.open(pixel_diffusion=DIFFUSION)
    image, clicks, mask = prompt(1, 64)
    features = backend.encode(image)
    before = any_machine.cuda.calls["cudaMemcpyAsync"]

    backend.decode(features, clicks, mask)

    # In: image, clicks, mask, once for both graphs. Out: logits to be looked at, and the diffused ones.
    assert any_machine.cuda.calls["cudaMemcpyAsync"] - before == 5
