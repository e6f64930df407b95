"""Encoded crops: encoded once for all who ask, within a budget, gone with their image."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from sessions import RecordingBackend, make_image, make_segmenter, new_session

from clickmask import Segmenter
from clickmask.backends.fake import fake_manifest
from clickmask.encoded_crops import EncodedCrops, ImageCrops
from clickmask.errors import BackendError, InvalidInputError
from clickmask.pixels import HostPixels
from clickmask.view import Box, View

PAD = (0.5, 0.5, 0.5)
CROP = {"kind": "paper", "start_click": 2, "min_size": 40}
ENTRY = 3 * 64 * 64 * 4  # the fake network without encoder keeps the float32 image alone


def view(x0: int = 0) -> View:
    return View(Box(x0, 0, x0 + 64, 64), 64)


def new_crops(budget: int = 1 << 30) -> tuple[EncodedCrops, ImageCrops, RecordingBackend]:
    shared, backend = EncodedCrops(budget), RecordingBackend(fake_manifest())
    return shared, shared.image(backend, HostPixels(make_image(120, 64), PAD, 0.5)), backend


def kept_before_each(shared: EncodedCrops, backend: RecordingBackend) -> list[int]:
    """Grows with each encode by the bytes that are kept as it begins."""
    inner, kept = backend.encode, []

    def and_count(*arguments: Any, **options: Any) -> Any:
        kept.append(shared.nbytes)
        return inner(*arguments, **options)

    backend.encode = and_count  # type: ignore[method-assign]
    return kept


def test_a_crop_is_encoded_once() -> None:
    _, crops, backend = new_crops()
    first = crops.features(view())
    assert crops.features(view(5)) is not first
    assert crops.features(view()) is first
    assert backend.encode_calls == 2


def test_each_image_and_network_has_its_own() -> None:
    shared, crops, backend = new_crops()
    backend.manifest = fake_manifest(local_network=True)
    other = shared.image(backend, HostPixels(make_image(120, 64, seed=1), PAD, 0.5))
    four = [one.features(view(), local) for one in (crops, other) for local in (False, True)]
    assert len({id(features) for features in four}) == 4
    assert [features.graph for features in four] == ["network", "local_network"] * 2
    assert not np.array_equal(four[0].tensors["image"], four[2].tensors["image"])


@pytest.mark.parametrize("encodes_once", [False, True])
def test_bytes_are_those_of_the_arrays(encodes_once: bool) -> None:
    shared = EncodedCrops()
    backend = RecordingBackend(fake_manifest(encodes_once=encodes_once))
    crops = shared.image(backend, HostPixels(make_image(120, 64), PAD, 0.5))
    crops.features(view())
    assert shared.nbytes == ENTRY + (ENTRY // 16 if encodes_once else 0)  # a feature at stride 4


def test_device_arrays_without_a_byte_count_are_counted_by_shape_and_dtype() -> None:
    class DeviceArray:
        shape, dtype = (1, 3, 64, 64), "float16"

    shared, crops, backend = new_crops()
    backend._upload = lambda _: DeviceArray()  # type: ignore[assignment, method-assign]
    crops.features(view())
    assert shared.nbytes == ENTRY // 2


def test_least_recently_used_go_first_and_the_budget_holds() -> None:
    shared, crops, backend = new_crops(3 * ENTRY)
    other = shared.image(backend, HostPixels(make_image(120, 64, seed=1), PAD, 0.5))
    crops.features(view(0))
    other.features(view(0))
    crops.features(view(1))
    crops.features(view(0))  # used again: the other image's is now the oldest
    crops.features(view(2))
    assert shared.nbytes == 3 * ENTRY
    assert backend.encode_calls == 4
    for x0 in (0, 1, 2):
        crops.features(view(x0))
    assert backend.encode_calls == 4
    other.features(view(0))
    assert backend.encode_calls == 5


def test_a_crop_that_was_touched_outlives_one_used_after_it() -> None:
    _, crops, backend = new_crops(2 * ENTRY)
    crops.features(view(0))
    crops.features(view(1))
    crops.touch(view(0))
    crops.touch(view(5))  # not here: nothing to keep
    crops.features(view(2))
    crops.features(view(0))
    assert backend.encode_calls == 3


def test_the_newest_is_kept_even_beyond_the_budget() -> None:
    shared, crops, backend = new_crops(0)
    assert crops.features(view()) is crops.features(view())
    crops.features(view(1))
    assert shared.nbytes == ENTRY
    crops.features(view())
    assert backend.encode_calls == 3


def test_room_is_made_before_a_crop_takes_its_memory() -> None:
    shared, crops, backend = new_crops(5 * ENTRY // 2)
    kept = kept_before_each(shared, backend)
    for x0 in range(4):
        crops.features(view(x0))
    assert kept == [0, ENTRY, ENTRY, ENTRY]
    assert shared.nbytes == 2 * ENTRY


def four_times(array: np.ndarray) -> np.ndarray:
    """What an encode keeps of an image that takes four times the memory of any before it."""
    return np.repeat(array, 4, axis=1)


def test_a_crop_larger_than_was_expected_drives_out_others_when_it_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared, crops, backend = new_crops(5 * ENTRY)
    crops.features(view(0))
    crops.features(view(1))
    monkeypatch.setattr(backend, "_upload", four_times)
    crops.features(view(2))
    assert shared.nbytes == 5 * ENTRY


def test_room_is_made_for_a_crop_as_large_as_any_before(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, crops, backend = new_crops(5 * ENTRY)
    with monkeypatch.context() as patch:
        patch.setattr(backend, "_upload", four_times)
        crops.features(view(0))
    kept = kept_before_each(shared, backend)
    for x0 in (1, 2, 3):
        crops.features(view(x0))
    assert kept == [0, ENTRY, ENTRY]


def test_a_crop_is_the_newest_when_it_is_done_not_when_it_was_asked_for(monkeypatch) -> None:
    shared, crops, backend = new_crops(0)
    monkeypatch.setattr(shared, "_expect", lambda _: None)  # or the first would have gone before
    crops.features(view())
    inner = backend.encode

    def while_another_is_used(*arguments: Any, **options: Any) -> Any:
        crops.features(view())
        return inner(*arguments, **options)

    backend.encode = while_another_is_used  # type: ignore[method-assign]
    made = crops.features(view(1))
    assert shared.nbytes == ENTRY
    assert crops.features(view(1)) is made


def test_closing_gives_the_memory_of_crops_back_while_sessions_live() -> None:
    segmenter = make_segmenter(crop=CROP, input={"sizes": [64]})
    session = segmenter.session(make_image(120, 100))
    mask = session.click(50, 50)
    segmenter.close()
    assert segmenter.crops.nbytes == 0
    np.testing.assert_array_equal(session.mask, mask)


def test_two_who_ask_for_one_crop_encode_it_once() -> None:
    _, crops, backend = new_crops()
    inner, started, go = backend.encode, threading.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        started.set()
        assert go.wait(timeout=10)
        return inner(*arguments, **options)

    backend.encode = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(crops.features, view()) for _ in range(5)]
        assert started.wait(timeout=10)
        go.set()
        results = [ask.result(timeout=10) for ask in asked]
    assert all(result is results[0] for result in results)
    assert backend.encode_calls == 1


def test_a_failure_is_not_kept_and_everyone_meets_their_own() -> None:
    shared, crops, backend = new_crops()
    calls: list[int] = []

    def broken(*_: Any, **__: Any) -> Any:
        calls.append(1)
        time.sleep(0.01)
        raise BackendError(f"broke {len(calls)}")

    inner, backend.encode = backend.encode, broken  # type: ignore[method-assign]
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(crops.features, view()) for _ in range(3)]
        messages = {str(ask.exception(timeout=10)) for ask in asked}
    assert messages == {"broke 1", "broke 2", "broke 3"}
    assert shared.nbytes == 0
    backend.encode = inner  # type: ignore[method-assign]
    assert crops.features(view()).graph == "network"


def test_many_threads_on_a_small_budget_get_what_they_asked_for() -> None:
    shared, crops, _ = new_crops(2 * ENTRY)
    image = make_image(120, 64).transpose(2, 0, 1) / np.float32(255)

    def storm(seed: int) -> None:
        for x0 in np.random.default_rng(seed).integers(0, 5, 60):
            found = crops.features(view(int(x0))).tensors["image"][0]
            np.testing.assert_allclose(found, image[:, :, x0 : x0 + 64], atol=1e-6)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(storm, range(6)))
    assert shared.nbytes <= 2 * ENTRY


def test_crops_go_with_the_last_of_a_session_and_its_forks() -> None:
    segmenter = make_segmenter(crop=CROP, input={"sizes": [64]})
    session = segmenter.session(make_image(120, 100))
    session.click(50, 50)
    twin = session.fork()
    del session
    gc.collect()
    assert segmenter.crops.nbytes == ENTRY
    del twin
    gc.collect()
    assert segmenter.crops.nbytes == 0


def test_undo_redo_fork_and_remove_find_theirs() -> None:
    session, backend = new_session(400, 300, crop=CROP)
    for x in (100, 140, 220):
        session.click(x, 150)
    crops = backend.encode_calls
    assert crops == 3
    session.undo()
    session.undo()
    session.click(140, 150)
    session.fork().click(220, 150)
    session.remove(1)
    session.click(140, 150)
    assert backend.encode_calls == crops


@pytest.mark.parametrize("value", [-1, 1.5, True, "256"])
def test_budget_is_checked(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="crops_bytes must be a whole number of at least 0"):
        Segmenter.load(crops_bytes=value)
