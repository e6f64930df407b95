"""Sessions on an image in GPU memory, from pixels to mask, on doubles: what crosses the bus and comes out.

The kernels are those for the processor; CUDA, TensorRT and ONNX Runtime's CUDA are the doubles of tests/sdk.
"""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_machines import HEIGHT, WIDTH, Foreign, slope
from gpu_machine import PIPELINES, Machine, pretended

from clickmask import encode, history, paste
from clickmask.backends.device_kernels import ViewKernels
from clickmask.batching import BatchingBackend, batched
from clickmask.batching_queue import BatchingQueue
from clickmask.bundle import load_bundle
from clickmask.errors import BackendError
from clickmask.segmenter import Segmenter
from clickmask.session import Session
from clickmask.view import Box

WHOLE = Box(0, 0, WIDTH, HEIGHT)
CLICKS = ((70, 60, True), (20, 20, False), (80, 50, True))


@pytest.fixture(params=["tensorrt", "onnxruntime"])
def machine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host_kernels: ViewKernels
) -> Machine:
    return pretended(monkeypatch, tmp_path / "bundle", request.param, host_kernels)


def segmenter_of(machine: Machine, max_batch: int = 1, **options: Any) -> Segmenter:
    crop = {"kind": "fbrs", "start_click": 2, "min_size": 40}
    opened = machine.open(**{"encodes_once": True, "crop": crop, "bias": -0.95, **options})
    return Segmenter(load_bundle(machine.folder), batched(opened, max_batch, 1000))


def on_the_host(segmenter: Segmenter, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A session whose crops are cut on the processor."""
    with monkeypatch.context() as patch:
        patch.setattr(segmenter.backend, "takes_device_arrays", False, raising=False)
        return segmenter.session(image)


def told(session: Session) -> Any:
    """What the network will be told when it looks at the whole image after the clicks so far."""
    state = session._history.now
    assert state.view is not None
    return session._pixels.previous_mask(state.logits, state.view, replace(state.view, box=WHOLE))


@pytest.mark.parametrize("pipeline", ["two_graphs", "two_graphs_diffusion", "no_mask"])
@pytest.mark.parametrize("given", ["device", "host"])
def test_masks_are_those_of_a_session_on_the_processor(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, given: str, pipeline: str
) -> None:
    segmenter, image = segmenter_of(machine, **PIPELINES[pipeline]), slope()
    session = segmenter.session(Foreign(image, None) if given == "device" else image)
    plain = on_the_host(segmenter, image, monkeypatch)
    crops = set()

    for click in CLICKS:
        mask, expected = session.click(*click), plain.click(*click)
        near = np.abs(plain.probability - 0.5) < 2 / 255  # a crop's levels may differ by one
        assert (mask == expected)[~near].all()
        assert session.crop == plain.crop
        crops.add(session.crop)
        np.testing.assert_allclose(session.probability, plain.probability, rtol=0, atol=1.5 / 255)
        left = told(session)
        there = machine.cuda.array(left.pointer, left.shape, left.dtype)
        np.testing.assert_allclose(there, told(plain), rtol=0, atol=1.5 / 255)
    if pipeline == "two_graphs":
        assert 0.05 < mask.mean() < 0.95
        assert len(crops) > 1
    if given == "host":
        saved, expected = json.loads(session.to_json()), json.loads(plain.to_json())
        del saved["mask"], expected["mask"]  # compared above
        assert saved == expected


@pytest.mark.parametrize(
    "settings",
    [{"crop": {"kind": "none", "start_click": 1, "close_above": 0.0}}, {"momentum": 0.5}],
    ids=["close looks", "momentum"],
)
def test_logits_are_blended_as_on_the_processor(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    segmenter, image = segmenter_of(machine, **PIPELINES["two_graphs"], **settings), slope()
    session = segmenter.session(Foreign(image, None))
    plain = on_the_host(segmenter, image, monkeypatch)
    without = segmenter_of(machine, **PIPELINES["two_graphs"])
    once = without.session(Foreign(image, None), crop_policy="none" if "crop" in settings else None)
    for count, click in enumerate(CLICKS, 1):
        for one in (session, plain, once):
            one.click(*click)
        np.testing.assert_allclose(session.probability, plain.probability, rtol=0, atol=1.5 / 255)
        if count > 1 or "crop" in settings:
            assert np.abs(session.probability - once.probability).max() > 2 / 255


@pytest.mark.parametrize("pipeline", ["one_graph", "two_graphs_diffusion"])
def test_of_a_click_the_mask_in_bits_comes_to_the_host_and_nothing_else(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, pipeline: str
) -> None:
    def nowhere(*_: Any, **__: Any) -> Any:
        raise AssertionError("on the processor")

    for module, names in (
        (encode, ("image_tensor", "blank_previous", "sigmoid", "resample")),
        (paste, ("paste_with_box", "paste_box")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, nowhere)
    segmenter = segmenter_of(machine, **PIPELINES[pipeline])
    session = segmenter.session(Foreign(slope(), None), prefetch=False)

    for click in CLICKS:
        machine.cuda.crossed.clear()
        session.click(*click)
        box = session.crop
        assert box is not None
        rows = 4 * 3 * 4  # of clicks: four, three numbers of four bytes each
        assert machine.cuda.crossed == {"in": rows, "out": box.height * ((box.width + 7) // 8)}
    for call in (session.undo, session.redo):
        machine.cuda.crossed.clear()
        call()
        assert machine.cuda.crossed["in"] == 0


def test_what_was_clicked_comes_back_without_the_network(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = segmenter_of(machine)
    session = segmenter.session(slope(), prefetch=False)
    masks = [session.mask, *(session.click(*click) for click in CLICKS)]
    forked = session.fork()
    with monkeypatch.context() as patch:
        patch.setattr(segmenter.backend, "decode_on_device", None)
        for expected in masks[-2::-1]:
            np.testing.assert_array_equal(session.undo(), expected)
        for expected in masks[1:]:
            np.testing.assert_array_equal(session.redo(), expected)
        np.testing.assert_array_equal(forked.undo(), masks[-2])
        np.testing.assert_array_equal(session.remove(len(CLICKS) - 1), masks[-2])
    assert not np.array_equal(session.remove(1), masks[-2])
    again = segmenter.session(slope(), prefetch=False)
    np.testing.assert_array_equal(again.replay((CLICKS[0],)), session.mask)


def test_an_initial_mask_and_two_passes_of_the_network(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    crop = {"kind": "global_to_local", "start_click": 1, "min_size": 40}
    segmenter, image = segmenter_of(machine, crop=crop), slope()
    sessions = segmenter.session(image), on_the_host(segmenter, image, monkeypatch)
    start = np.zeros((HEIGHT, WIDTH), np.bool_)
    start[30:70, 40:90] = True
    for session in sessions:
        session.set_mask(start)
        session.replay(CLICKS[:2])
    np.testing.assert_allclose(sessions[0].probability, sessions[1].probability, rtol=0, atol=2.5 / 255)
    assert sessions[0].probability.any()


def test_the_mask_is_painted_into_an_array_of_the_application(machine: Machine) -> None:
    session = segmenter_of(machine).session(Foreign(slope(), None))
    mask = session.click(*CLICKS[0])
    out = Foreign(np.full((HEIGHT, WIDTH), 7, np.uint8), None)
    assert session.device_mask(out=out) is out
    np.testing.assert_array_equal(out.memory, mask)


def test_history_holds_as_much_of_the_device_as_it_says(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = segmenter_of(machine, encodes_once=False)
    session = segmenter.session(slope(), size=64, prefetch=False)
    plane = 4 * 64 * 64
    monkeypatch.setattr(history, "HISTORY_BYTES", 12 * plane)

    def live() -> int:
        gc.collect()
        segmenter.crops.clear()
        for pool in (segmenter.backend._pool, session._pixels._pool):
            pool.trim()
        return sum(nbytes for _, nbytes, kind in machine.cuda.blocks.values() if kind == "device")

    session.click(*CLICKS[0])
    before, held = live(), session._history.now.nbytes
    session.click(*CLICKS[1])
    assert live() - before == held == plane
    for x in range(30):
        session.undo()
        session.click(70 + x, 60)
    assert live() - before == plane
    for _ in range(6):
        session.click(*CLICKS[0])
        session.reset()
    assert live() - before <= 12 * plane
    while session.can_undo:
        session.undo()


@pytest.mark.parametrize("pipeline", ["two_graphs", "two_graphs_diffusion"])
def test_logits_that_are_not_finite_fail_the_click_and_the_session_goes_on(
    machine: Machine, pipeline: str
) -> None:
    session = segmenter_of(machine, **PIPELINES[pipeline]).session(Foreign(slope(), None), prefetch=False)
    before = session.click(*CLICKS[0])
    decoding = session._segmenter.backend
    features, broken = decoding.encode, np.full((1, 3, 128, 128), np.inf, np.float32)
    with pytest.raises(BackendError, match="expected finite logits"):
        decoding.decode_on_device(features(broken), np.zeros((1, 4, 3), np.float32))
    with pytest.raises(BackendError, match="expected finite logits"):
        decoding.decode(features(broken), np.zeros((1, 4, 3), np.float32))
    np.testing.assert_array_equal(session.mask, before)
    assert session.click(*CLICKS[1]).any()


def clicked_together(
    queue: BatchingQueue, sessions: Sequence[Any], click: tuple[Any, ...]
) -> list[np.ndarray]:
    """Masks of a click in each session, the first of which holds the queue until the others wait together."""
    run_one, inside, release = queue._run_one, threading.Event(), threading.Event()

    def held(item: Any) -> Any:
        inside.set()
        assert release.wait(20)
        return run_one(item)

    masks: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda n=n: masks.update({n: sessions[n].click(*click)}))
        for n in range(len(sessions))
    ]
    queue._run_one = held
    threads[0].start()
    assert inside.wait(20)
    for thread in threads[1:]:
        thread.start()
    for thread in threads[1:]:
        thread.join(20)
    release.set()
    threads[0].join(20)
    queue._run_one = run_one
    return [masks[number] for number in range(len(sessions))]


def test_crops_of_several_sessions_are_encoded_together_on_the_device(machine: Machine) -> None:
    segmenter = segmenter_of(machine, max_batch=4)
    assert isinstance(segmenter.backend, BatchingBackend)
    sessions = [segmenter.session(Foreign(slope(seed), None), prefetch=False) for seed in range(5)]
    alone = [segmenter.session(slope(seed), prefetch=False) for seed in range(5)]
    machine.cuda.crossed.clear()

    masks = clicked_together(segmenter.backend.encodes, sessions, (70, 60))

    assert segmenter.backend.encodes.batches[4] == 1
    for number, session in enumerate(alone):
        expected = session.click(70, 60)
        near = np.abs(session.probability - 0.5) < 2 / 255
        assert (masks[number] == expected)[~near].all()


def test_clicks_of_several_sessions_are_decoded_together_on_the_device(machine: Machine) -> None:
    segmenter = segmenter_of(machine, max_batch=4)
    alone = [segmenter.session(slope(seed), prefetch=False) for seed in range(5)]
    sessions = [segmenter.session(Foreign(slope(seed), None), prefetch=False) for seed in range(5)]
    for session in (*alone, *sessions):
        session.click(*CLICKS[0])
    expected = [session.click(*CLICKS[1]) for session in alone]
    decodes = segmenter.backend.decodes  # type: ignore[attr-defined]

    masks = clicked_together(decodes, sessions, CLICKS[1])

    assert decodes.batches[4] == 1
    assert decodes.failures == 0
    for number, mask in enumerate(expected):
        near = np.abs(alone[number].probability - 0.5) < 1e-5
        assert (masks[number] == mask)[~near].all()
        np.testing.assert_allclose(sessions[number].probability, alone[number].probability, rtol=0, atol=1e-5)
