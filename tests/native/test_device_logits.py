"""Logits that a backend leaves on the device, on doubles of CUDA and its runtimes, with kernels and without.

Nothing here says anything of a real GPU.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import DIFFUSION, prompt
from gpu_machine import PIPELINES, Machine, pretended, truth

from clickmask.backends.cuda_memory import DeviceArray
from clickmask.backends.device_kernels import ViewKernels
from clickmask.backends.device_lane import DeviceLane
from clickmask.backends.fake import FakeBackend
from clickmask.errors import BackendError, InvalidInputError


@pytest.fixture(params=[True, False], ids=["kernels", "no_kernels"])
def kernels(request: pytest.FixtureRequest, host_kernels: ViewKernels) -> ViewKernels | None:
    return host_kernels if request.param else None


@pytest.fixture(params=["tensorrt", "onnxruntime"])
def machine(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kernels: ViewKernels | None,
) -> Machine:
    return pretended(monkeypatch, tmp_path / "bundle", request.param, kernels)


def host(machine: Machine, array: DeviceArray) -> np.ndarray:
    return machine.cuda.array(array.pointer, array.shape, array.dtype).copy()


def device(backend: Any, array: np.ndarray) -> DeviceArray:
    with backend._running():
        return backend._upload(array)


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_they_are_the_networks(machine: Machine, pipeline: str, warm: bool) -> None:
    options = PIPELINES[pipeline]
    backend = machine.open(**options)
    if warm:
        backend.warmup()
    kept = []
    for seed, (batch, size, slots) in enumerate([(1, 64, 4), (3, 64, 8), (1, 96, 4), (1, 64, 4)]):
        image, clicks, mask = prompt(batch, size, slots, seed)
        features, told = backend.encode(image), None
        if pipeline != "no_mask":
            told = device(backend, mask)
            expected = truth(options, image, clicks, mask)
            np.testing.assert_allclose(backend.decode(features, clicks, told), expected, rtol=0, atol=2e-6)
        kept.append((backend.decode_on_device(features, clicks, told), truth(options, image, clicks, mask)))
    # after all of them, and longer than the backend
    backend.close()
    for found, expected in kept:
        assert [one.shape for one in found] == [(1, 1, *expected.shape[2:])] * len(expected)
        for one, item in zip(found, expected, strict=True):
            np.testing.assert_allclose(host(machine, one)[0], item, rtol=0, atol=2e-6)
    del kept, found, one, features, told
    gc.collect()
    assert machine.cuda.live("device") == machine.cuda.live("pinned") == 0


def test_each_image_of_a_batch_goes_when_nobody_has_it(machine: Machine) -> None:
    backend = machine.open()
    backend.warmup()
    image, clicks, mask = prompt(3, 64)
    first, *others = backend.decode_on_device(backend.encode(image), clicks, mask)
    pointer, kept = first.pointer, [host(machine, one) for one in others]
    del first
    alone = prompt(1, 64)

    again = backend.decode_on_device(backend.encode(alone[0]), *alone[1:])

    assert again[0].pointer == pointer  # used again
    for one, expected in zip(others, kept, strict=True):
        np.testing.assert_array_equal(host(machine, one), expected)


def test_what_crosses_the_bus(machine: Machine, kernels: ViewKernels | None) -> None:
    backend = machine.open(pixel_diffusion=DIFFUSION)
    image, clicks, mask = prompt(1, 64)
    features, told = backend.encode(image), device(backend, mask)
    machine.cuda.crossed.clear()

    backend.decode_on_device(features, clicks, told)

    assert machine.cuda.crossed["in"] == clicks.nbytes
    # without kernels logits are looked at on the host, before Pixel Diffusion and after it
    assert machine.cuda.crossed["out"] == (0 if kernels else 2 * mask.nbytes)


def test_nothing_is_waited_for_between_network_and_pixel_diffusion(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = machine.open(pixel_diffusion=DIFFUSION)
    backend.warmup()
    image, clicks, mask = prompt(1, 64)
    features = backend.encode(image)
    events: list[str] = []
    run, wait = DeviceLane.run, machine.cuda.module.cudaStreamSynchronize  # type: ignore[attr-defined]

    def running(self: DeviceLane, graph: str, feeds: Any) -> Any:
        events.append(graph)
        return run(self, graph, feeds)

    def waiting(stream: Any) -> Any:
        events.append("wait")
        return wait(stream)

    monkeypatch.setattr(DeviceLane, "run", running)
    monkeypatch.setattr(machine.cuda.module, "cudaStreamSynchronize", waiting)
    for decode in (backend.decode, backend.decode_on_device):
        events.clear()
        decode(features, clicks, mask)
        assert events[:3] == ["network", "pixel_diffusion", "wait"]


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("pipeline", ["one_graph", "diffusion"])
def test_one_value_that_is_not_finite_is_found_and_the_next_call_works(
    machine: Machine, pipeline: str, value: float
) -> None:
    options = PIPELINES[pipeline]
    backend = machine.open(**options)
    backend.warmup()
    image, clicks, mask = prompt(1, 64)
    broken = image.copy()
    broken[0, 1, 63, 63] = value
    for decode in (backend.decode, backend.decode_on_device):
        with pytest.raises(BackendError, match="expected finite logits"):
            decode(backend.encode(broken), clicks, mask)
    (found,) = backend.decode_on_device(backend.encode(image), clicks, mask)
    np.testing.assert_allclose(host(machine, found), truth(options, image, clicks, mask), rtol=0, atol=2e-6)


def test_a_previous_mask_on_the_device_is_checked_as_one_of_the_host(machine: Machine) -> None:
    backend = machine.open()
    image, clicks, mask = prompt(1, 64)
    features = backend.encode(image)
    with pytest.raises(InvalidInputError, match="previous_mask: expected float32"):
        backend.decode_on_device(features, clicks, device(backend, prompt(1, 96)[2]))
    with pytest.raises(InvalidInputError, match="previous_mask: expected a NumPy array"):
        backend.decode_on_device(features, clicks, mask.tolist())  # type: ignore[arg-type]


def test_a_backend_without_a_device_leaves_none_there() -> None:
    backend = FakeBackend()
    features = backend.encode(np.zeros((1, 3, 64, 64), np.float32))
    with pytest.raises(InvalidInputError, match="on a GPU, got fake; use decode"):
        backend.decode_on_device(features, np.zeros((1, 4, 3), np.float32))
    held = DeviceArray(1, (1, 1, 64, 64), "float32")
    with pytest.raises(InvalidInputError, match="previous_mask: expected a NumPy array, got DeviceArray"):
        backend.decode(features, np.zeros((1, 4, 3), np.float32), held)
