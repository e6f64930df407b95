"""Sessions on an image in GPU memory, from pixels to mask, on doubles: what crosses the bus and comes out.

The kernels are those for the processor; CUDA, TensorRT and ONNX Runtime's CUDA are the doubles of tests/sdk.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_machines import HEIGHT, WIDTH, Foreign, LateKernels
from gpu_machine import Machine, pretended

from clickmask import encode, paste
from clickmask.backends import device_pixels
from clickmask.backends.device_kernels import ViewKernels
from clickmask.batching import BatchingBackend, batched
from clickmask.bundle import load_bundle
from clickmask.segmenter import Segmenter

CLICKS = ((70, 60, True), (20, 20, False), (80, 50, True))


@pytest.fixture(params=["tensorrt", "onnxruntime"])
def machine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host_kernels: ViewKernels
) -> Machine:
    pretender = pretended(monkeypatch, tmp_path / "bundle", request.param)
    late: Any = LateKernels(host_kernels, pretender.cuda)
    monkeypatch.setattr(device_pixels, "view_kernels", lambda: late)
    return pretender


def picture(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-40, 41, (HEIGHT, WIDTH, 3))
    return np.clip(noise + np.linspace(0, 255, WIDTH)[:, None], 0, 255).astype(np.uint8)


def segmenter_of(machine: Machine, max_batch: int = 1) -> Segmenter:
    crop = {"kind": "fbrs", "start_click": 2, "min_size": 40}
    opened = machine.open(encodes_once=True, crop=crop, bias=-0.95)
    return Segmenter(load_bundle(machine.folder), batched(opened, max_batch, 1000))


def on_the_host(segmenter: Segmenter, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A session whose crops are cut on the processor."""
    with monkeypatch.context() as patch:
        patch.setattr(segmenter.backend, "takes_device_arrays", False, raising=False)
        return segmenter.session(image)


@pytest.mark.parametrize("given", ["device", "host"])
def test_masks_are_those_of_a_session_on_the_processor(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    segmenter, image = segmenter_of(machine), picture()
    session = segmenter.session(Foreign(image, None) if given == "device" else image)
    plain = on_the_host(segmenter, image, monkeypatch)

    for click in CLICKS:
        mask, expected = session.click(*click), plain.click(*click)
        near = np.abs(plain.probability - 0.5) < 2 / 255  # a crop's levels may differ by one
        assert (mask == expected)[~near].all()
        assert 0.05 < mask.mean() < 0.95
    if given == "host":
        assert session.to_json() == plain.to_json()


def test_crops_do_not_cross_the_bus_and_masks_do_so_as_bits(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: Any) -> Any:
        raise AssertionError("on the processor")

    for module, name in ((encode, "image_tensor"), (paste, "paste_with_box"), (paste, "paste_box")):
        monkeypatch.setattr(module, name, nowhere)
    segmenter = segmenter_of(machine)
    session = segmenter.session(Foreign(picture(), None))
    machine.cuda.crossed.clear()

    session.replay(CLICKS[:1])

    size = 128  # the image's long side is larger than every input size
    plane = size * size * 4
    # In: clicks and previous mask, and for the mask the logits. The crop would be three planes.
    assert machine.cuda.crossed["in"] < 2.1 * plane
    # Out: logits, and the mask in bits.
    assert machine.cuda.crossed["out"] < 1.1 * plane


def test_crops_of_several_sessions_are_encoded_together_on_the_device(machine: Machine) -> None:
    segmenter = segmenter_of(machine, max_batch=4)
    assert isinstance(segmenter.backend, BatchingBackend)
    sessions = [segmenter.session(Foreign(picture(seed), None), prefetch=False) for seed in range(5)]
    alone = [segmenter.session(picture(seed), prefetch=False) for seed in range(5)]
    machine.cuda.crossed.clear()
    masks: dict[int, np.ndarray] = {}
    inside, release = threading.Event(), threading.Event()
    encode = segmenter.backend.encodes._run_one

    def held(image: Any) -> Any:  # the first, until the others wait together
        inside.set()
        assert release.wait(20)
        return encode(image)

    segmenter.backend.encodes._run_one = held

    def click(number: int) -> None:
        masks[number] = sessions[number].click(70, 60)

    threads = [threading.Thread(target=click, args=(number,)) for number in range(5)]
    threads[0].start()
    assert inside.wait(20)
    for thread in threads[1:]:
        thread.start()
    for thread in threads[1:]:
        thread.join(20)
    release.set()
    threads[0].join(20)
    segmenter.backend.encodes._run_one = encode

    assert segmenter.backend.encodes.batches[4] == 1
    for number, session in enumerate(alone):
        expected = session.click(70, 60)
        near = np.abs(session.probability - 0.5) < 2 / 255
        assert (masks[number] == expected)[~near].all()
