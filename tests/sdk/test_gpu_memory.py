"""Memory of the backends that manage a GPU's themselves, on doubles: what is held, and given back when."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from bundles import (
    prompt,
)
from cuda_double import Error
from gpu_machine import Machine

from clickmask.backends.cuda_memory import DevicePool, PinnedArrays
from clickmask.backends.cuda_runtime import CudaRuntime
from clickmask.errors import BackendError

# Ownership


def test_everything_is_given_back(any_machine: Machine, pipeline: dict[str, Any]) -> None:
    backend = any_machine.open(**pipeline)
    backend.warmup()
    image, clicks, mask = prompt(2, 64)
    features = backend.encode(image)
    masked = pipeline.get("input", {}).get("previous_mask", True)
    backend.decode(features, clicks, mask if masked else None)

    backend.close()
    backend.close()

    held = len(features.tensors)
    assert any_machine.cuda.live("device") == held
    del features
    gc.collect()
    kinds = ("device", "pinned", "stream", "event", "graph", "executable")
    assert {kind: any_machine.cuda.live(kind) for kind in kinds} == dict.fromkeys(kinds, 0)
    with pytest.raises(BackendError, match=r"after close\(\)"):
        backend.encode(image)


def test_memory_of_features_is_used_again(any_machine: Machine) -> None:
    backend = any_machine.open(encodes_once=True)
    image, _, _ = prompt(1, 64)
    backend.encode(image)
    blocks = any_machine.cuda.calls["cudaMalloc"]

    for _ in range(5):
        backend.encode(image)

    assert any_machine.cuda.calls["cudaMalloc"] == blocks
    assert any_machine.cuda.calls["cudaFree"] == 0


def test_a_backend_that_nobody_closed_gives_everything_back_when_it_goes(any_machine: Machine) -> None:
    backend = any_machine.open(encodes_once=True)
    backend.warmup()
    image, clicks, mask = prompt(1, 64)
    backend.decode(backend.encode(image), clicks, mask)

    gone = weakref.ref(backend)
    del backend
    assert gone() is None  # at once: no cycle keeps it until the collector comes

    kinds = ("device", "pinned", "stream", "event", "executable")
    assert {kind: any_machine.cuda.live(kind) for kind in kinds} == dict.fromkeys(kinds, 0)


def test_close_gives_up_the_engines_whose_weights_fill_the_device(machine: Machine) -> None:
    backend = machine.open()
    image, clicks, mask = prompt(1, 64)
    backend.decode(backend.encode(image), clicks, mask)
    loaded = weakref.ref(machine.trt.contexts[0].engine)
    machine.trt.contexts.clear()  # the double's own record of them

    backend.close()
    gc.collect()

    assert loaded() is None


def test_memory_of_a_call_that_fails_is_not_used_again_before_its_work_is_done(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = machine.open()
    features = backend.encode(prompt(4, 64)[0])
    size = prompt(1, 64)[0].nbytes
    machine.cuda.memory_limit = 2 * size + sum(
        nbytes for _, nbytes, kind in machine.cuda.blocks.values() if kind == "device"
    )
    unfinished: list[int] = []
    give = DevicePool.give

    def watched(self: DevicePool, pointer: int, nbytes: int) -> None:
        unfinished.append(sum(len(stream.work) for stream in machine.cuda.streams.values()))
        give(self, pointer, nbytes)

    monkeypatch.setattr(DevicePool, "give", watched)
    with pytest.raises(BackendError, match="cudaMalloc failed"):
        backend.split(features)  # the third of four finds no memory
    gc.collect()

    assert unfinished == [0, 0]


def test_memory_that_is_kept_idle_is_freed_before_giving_up(machine: Machine) -> None:
    backend = machine.open(encodes_once=True)
    backend.encode(prompt(4, 96)[0])
    in_use = sum(block[1] for block in machine.cuda.blocks.values() if block[2] == "device")
    machine.cuda.memory_limit = in_use

    backend.encode(prompt(1, 64)[0])

    assert machine.cuda.calls["cudaFree"] > 0


def test_no_memory_at_all_names_the_call(any_machine: Machine) -> None:
    backend = any_machine.open()
    any_machine.cuda.memory_limit = 0

    with pytest.raises(BackendError, match=r"cudaMalloc failed with cudaErrorMemoryAllocation: text of"):
        backend.encode(prompt(1, 64)[0])


@pytest.mark.parametrize("own", [[], ["the application's"]], ids=["none", "its_own"])
def test_a_threads_context_is_left_as_it_was_and_other_devices_alone(
    machine: Machine, own: list[Any]
) -> None:
    contexts = machine.cuda.driver
    contexts.stack.extend(own)
    backend = machine.open(device="cuda:1")
    image, clicks, mask = prompt(1, 64)
    features = backend.encode(image)
    backend.decode(features, clicks, mask)
    backend.warmup()
    backend.close()
    del features  # freed by whichever thread it goes in
    gc.collect()

    assert contexts.stack == own
    assert contexts.primaries == {1}
    assert machine.cuda.live("device") == 0


def test_memory_that_cuda_does_not_free_is_freed_later(machine: Machine) -> None:
    cuda = CudaRuntime(0)
    pool, pinned = DevicePool(cuda), PinnedArrays(cuda)
    held = [pool.take((nbytes,), "uint8") for nbytes in (1000, 1000, 2000)]
    for name in ("image", "clicks"):
        pinned.array(name, (9,), "uint8")
    del held
    kept = {kind: machine.cuda.live(kind) for kind in ("device", "pinned")}
    assert kept == {"device": 3, "pinned": 2}
    for name in ("cudaFree", "cudaFreeHost"):
        machine.cuda.fail[name] = Error.cudaErrorInvalidValue
    for free, name in ((pool.trim, "cudaFree"), (pinned.close, "cudaFreeHost")):
        with pytest.raises(BackendError, match=f"{name} failed"):
            free()
    assert {kind: machine.cuda.live(kind) for kind in kept} == kept

    machine.cuda.fail.clear()
    pool.trim()
    pinned.close()

    assert {kind: machine.cuda.live(kind) for kind in kept} == dict.fromkeys(kept, 0)
