"""The TensorRT backend on doubles of CUDA and TensorRT; nothing here says anything of a real GPU."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from bundles import (
    DIFFUSION,
    prompt,
)
from gpu_machine import Machine, truth

from clickmask.backends.lanes import LANES
from clickmask.errors import BackendError, InvalidInputError


def test_more_images_than_the_plan_takes_cost_no_lane(machine: Machine) -> None:
    backend = machine.open(encodes_once=True)
    assert backend.largest_batch == 8
    backend.warmup()
    captured = machine.cuda.live("executable")
    image, clicks, mask = prompt(9, 64)
    features = backend.join([backend.encode(image[i : i + 1]) for i in range(9)])

    calls = (
        lambda: backend.encode(image),
        lambda: backend.decode(features, clicks, mask),
        lambda: backend.warmup((1, 9)),
    )
    for call in calls:
        with pytest.raises(InvalidInputError, match=r"at most 8 images at once.*got 9.*--max-batch"):
            call()

    assert machine.cuda.live("executable") == captured


def test_graphs_are_captured_at_warmup_and_only_there(machine: Machine) -> None:
    backend = machine.open(pixel_diffusion=DIFFUSION)
    image, clicks, mask = prompt(1, 64)
    backend.decode(backend.encode(image), clicks, mask)
    assert machine.cuda.calls["cudaStreamBeginCapture"] == 0

    backend.warmup()

    # 3 sizes, 4 numbers of click rows (4, 8, 16, 32), network and Pixel Diffusion, in each lane.
    assert machine.cuda.live("executable") == 3 * 4 * 2 * LANES
    enqueued = sum(len(context.runs) for context in machine.trt.contexts)
    before = machine.cuda.calls.copy()
    backend.decode(backend.encode(image), clicks, mask)
    assert sum(len(context.runs) for context in machine.trt.contexts) == enqueued
    assert (machine.cuda.calls - before)["cudaGraphLaunch"] == 2
    assert (machine.cuda.calls - before)["cudaStreamBeginCapture"] == 0
    assert (machine.cuda.calls - before)["cudaMalloc"] == 0
    backend.warmup()
    assert machine.cuda.live("executable") == 3 * 4 * 2 * LANES


@pytest.mark.parametrize("diffusion", [{}, {"pixel_diffusion": DIFFUSION}], ids=["plain", "diffusion"])
def test_an_image_that_overflows_costs_no_captured_graph(machine: Machine, diffusion: dict[str, Any]) -> None:
    backend = machine.open(**diffusion)
    backend.warmup()
    captured = machine.cuda.live("executable")
    image, clicks, mask = prompt(1, 64)

    with pytest.raises(BackendError, match="expected finite logits"):
        backend.decode(backend.encode(np.full_like(image, np.inf)), clicks, mask)

    assert machine.cuda.live("executable") == captured
    backend.decode(backend.encode(image), clicks, mask)


def test_one_context_for_each_size_without_warmup(machine: Machine) -> None:
    backend = machine.open()
    for size in (64, 96, 64, 96):
        for slots in (4, 8):
            image, clicks, mask = prompt(1, size, slots)
            backend.decode(backend.encode(image), clicks, mask)

    assert sorted(context.profile for context in machine.trt.contexts) == [0, 1]


def test_what_cannot_be_captured_runs_without_a_graph(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.trt.fail.add("execute_async_v3 captured")
    backend = machine.open()
    image, clicks, mask = prompt(1, 64)

    with caplog.at_level(logging.WARNING, "clickmask"):
        backend.warmup()

    assert "network runs without a CUDA graph" in caplog.text
    assert machine.cuda.live("graph") == 0
    logits = backend.decode(backend.encode(image), clicks, mask)
    np.testing.assert_allclose(logits, truth({}, image, clicks, mask), rtol=0, atol=2e-6)
