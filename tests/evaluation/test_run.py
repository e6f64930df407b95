"""The robot at work, in one process, in several, and on a cluster."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from benchmarks import SIZE, disk, photo, save, save_indexed
from sessions import make_segmenter

from clickmask import Segmenter, rle_decode
from clickmask.clicks import Click
from clickmask.errors import BackendError, InvalidInputError
from clickmask.evaluation.datasets import read_dataset
from clickmask.evaluation.methods import BundleMethod
from clickmask.evaluation.pools import Task, here, in_processes, on_ray
from clickmask.evaluation.run import Curve, annotate
from clickmask.evaluation.samples import Sample
from clickmask.evaluation.truths import IndexedTruth


def one_object(folder: Path, indices: np.ndarray) -> Sample:
    image = save(folder / "image.png", photo(indices > 0))
    return Sample("one", image, IndexedTruth(save_indexed(folder / "mask.png", indices)), "alone")


class Scripted:
    """An annotator that answers with masks prepared beforehand."""

    def __init__(self, masks: Iterable[np.ndarray]) -> None:
        self.masks = iter(masks)

    def session(self, _: np.ndarray) -> Scripted:
        return self

    def click(self, *_: object) -> np.ndarray:
        return next(self.masks)


def test_a_curve_holds_what_happened(dataset: Path) -> None:
    # FakeBackend draws disks around clicks, so more clicks on a disk-shaped object help.
    segmenter = make_segmenter()
    for sample in read_dataset(dataset):
        curve = annotate(segmenter, sample, 8)
        assert 1 <= len(curve.ious) <= 8
        assert len(curve.seconds) == len(curve.ious) == len(curve.boundary) == len(curve.clicks)
        assert max(curve.ious) > curve.ious[0]
        assert curve.loop_seconds > sum(curve.seconds)


def test_the_masks_are_those_of_a_session(dataset: Path) -> None:
    sample = read_dataset(dataset)[0]
    curve = annotate(make_segmenter(), sample, 6)
    session = make_segmenter().session(sample.image())
    truth, ignored = sample.truth()
    for click, value in zip(curve.clicks, curve.ious, strict=True):
        mask = session.click(click.x, click.y, click.positive)
        assert value == (mask & truth & ~ignored).sum() / ((mask | truth) & ~ignored).sum()
    np.testing.assert_array_equal(rle_decode({"size": list(SIZE), "counts": curve.mask}), mask)


def test_a_curve_survives_json(dataset: Path) -> None:
    curve = annotate(make_segmenter(), read_dataset(dataset)[0], 5)
    restored = Curve.from_json(curve.to_json())
    assert restored.ious == curve.ious  # to the last bit: a rounded value could cross a threshold
    assert (restored.clicks, restored.mask, restored.group) == (curve.clicks, curve.mask, curve.group)


def test_empty_predictions_are_clicked_until_the_limit(tmp_path: Path) -> None:
    truth = disk(40, 40, 9)
    curve = annotate(Scripted([np.zeros(SIZE, bool)] * 7), one_object(tmp_path, truth), 7)
    assert curve.ious == curve.boundary == (0.0,) * 7
    assert len(set(curve.clicks)) == 7  # never the same pixel again
    assert all(click.positive and truth[int(click.y), int(click.x)] for click in curve.clicks)


def test_an_object_of_one_pixel(tmp_path: Path) -> None:
    truth = np.zeros(SIZE, bool)
    truth[7, 9] = True
    curve = annotate(Scripted([np.ones(SIZE, bool), truth]), one_object(tmp_path, truth), 5)
    assert curve.clicks[0] == Click(9, 7, True)
    assert not curve.clicks[1].positive
    assert curve.ious == (1 / truth.size, 1.0)


def test_the_robot_stops_where_nothing_is_wrong(tmp_path: Path) -> None:
    indices = disk(40, 40, 9) * 1
    indices[:5] = 255
    mask = indices == 1
    mask[:5] = True  # wrong only where it does not count
    assert annotate(Scripted([mask]), one_object(tmp_path, indices), 20).ious == (1.0,)


def test_until_stops_at_the_iou(tmp_path: Path) -> None:
    truth = disk(40, 40, 9)
    masks = [disk(40, 40, 4), disk(40, 40, 8), truth]
    curve = annotate(Scripted(masks), one_object(tmp_path, truth), 20, until=0.7)
    assert len(curve.ious) == 2
    assert curve.ious[0] < 0.7 <= curve.ious[1] < 1


def test_a_mask_of_another_size_than_its_image_is_refused(dataset: Path) -> None:
    save(dataset / "images/a.png", np.zeros((160, 120, 3), np.uint8))
    with pytest.raises(InvalidInputError, match="of one size"):
        annotate(make_segmenter(), read_dataset(dataset)[0], 3)


# Places to work


def outcome(curves: Iterable[Curve]) -> list[Curve]:
    """Curves without their seconds, which differ from run to run."""
    return [replace(curve, seconds=(), loop_seconds=0.0) for curve in curves]


@pytest.fixture
def task(bundle: Path) -> Task:
    return Task(BundleMethod("tiny", bundle, "onnxruntime", "cpu", threads=1), 4)


def test_processes_give_the_same_curves_in_the_same_order(task: Task, dataset: Path) -> None:
    samples = read_dataset(dataset) * 2
    expected = outcome(here(task, samples))
    assert len({curve.name for curve in expected}) == 4
    assert outcome(in_processes(task, samples, 2)) == expected


def test_a_workers_error_reaches_the_caller(task: Task, dataset: Path) -> None:
    samples = read_dataset(dataset)
    save(dataset / "images/b.png", np.zeros((9, 9, 3), np.uint8))
    curves = in_processes(task, samples, 1)
    assert next(curves).name == "a.png"
    with pytest.raises(InvalidInputError, match=r"b\.png: expected image and mask of one size"):
        next(curves)


class Deadly:
    """A method whose process dies."""

    name, device, threads = "deadly", "cpu", 1

    def open(self) -> Segmenter:
        import os

        os._exit(3)

    def settings(self) -> dict[str, Any]:
        return {}


def test_a_worker_that_dies_is_reported(dataset: Path) -> None:
    with pytest.raises(BackendError, match="ended on its own"):
        list(in_processes(Task(Deadly(), 3), read_dataset(dataset), 1))


class FakeRay(types.ModuleType):
    """As much of Ray as the evaluation uses, in this process; it remembers what was asked of it."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.calls: list[Any] = []
        self.exceptions = types.SimpleNamespace(RayError=type("RayError", (Exception,), {}))
        self.util = types.ModuleType("ray.util")
        self.util.ActorPool = FakePool  # type: ignore[attr-defined]

    def is_initialized(self) -> bool:
        return False

    def init(self, **options: Any) -> None:
        self.calls.append(("init", options["address"]))
        if options["address"] == "nowhere:1":
            raise ConnectionError("no cluster there")

    def shutdown(self) -> None:
        self.calls.append("shutdown")

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 6.0}

    def remote(self, kind: type) -> Any:
        calls = self.calls

        class Remote:
            @staticmethod
            def options(**needs: float) -> type[Remote]:
                calls.append(needs)
                return Remote

            @staticmethod
            def remote(*arguments: Any) -> Any:
                calls.append("actor")
                actor = kind(*arguments)
                work = types.SimpleNamespace(remote=actor.work)
                return types.SimpleNamespace(work=work)

        return Remote


class FakePool:
    def __init__(self, actors: list[Any]) -> None:
        self.actors = actors

    def map(self, submit: Callable[[Any, Any], Any], values: list[Any]) -> Iterator[Any]:
        for index, value in enumerate(values):
            yield submit(self.actors[index % len(self.actors)], value)


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.util", ray.util)
    threads = cv2.getNumThreads()  # its actors live here, and take this process for theirs
    yield ray
    cv2.setNumThreads(threads)


def test_actors_give_the_same_curves_in_the_same_order(task: Task, dataset: Path, fake_ray: FakeRay) -> None:
    samples = read_dataset(dataset)
    assert outcome(on_ray(task, samples, 2, None)) == outcome(here(task, samples))
    assert fake_ray.calls == [
        ("init", None),
        {"num_cpus": 1, "num_gpus": 0},
        "actor",
        "actor",
        "shutdown",
    ]


def test_actors_fill_the_cluster(task: Task, dataset: Path, fake_ray: FakeRay) -> None:
    twice = Task(replace(task.method, threads=2), 1)  # type: ignore[type-var]
    list(on_ray(twice, read_dataset(dataset), None, "head:1"))
    assert fake_ray.calls[0] == ("init", "head:1")
    assert fake_ray.calls.count("actor") == 3  # six cores, two threads each


def test_more_actors_than_the_cluster_has_room_for_are_refused(
    task: Task, dataset: Path, fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = read_dataset(dataset)
    with pytest.raises(InvalidInputError, match=r"--workers: expected at most 6, .* at 1 CPUs .*, got 7"):
        list(on_ray(task, samples, 7, None))
    monkeypatch.setattr(fake_ray, "cluster_resources", lambda: {"CPU": 6.0}, raising=False)
    wide = Task(replace(task.method, threads=8), 1)  # type: ignore[type-var]
    with pytest.raises(InvalidInputError, match="room for a worker, 8 CPUs and 0 GPUs, got 6 and 0"):
        list(on_ray(wide, samples, None, None))
    assert "actor" not in fake_ray.calls  # none that would wait for its place
    assert fake_ray.calls.count("shutdown") == 2


def test_nothing_is_encoded_ahead_while_clicks_are_timed(bundle: Path) -> None:
    method = BundleMethod("tiny", bundle, "onnxruntime", "cpu", threads=1)
    opened = method.open()
    opened.session(np.zeros((*SIZE, 3), np.uint8))
    assert not opened.segmenter.prefetch  # type: ignore[attr-defined]
    assert "clickmask-prefetch" not in {thread.name for thread in threading.enumerate()}


def test_an_actors_error_reaches_the_caller(task: Task, dataset: Path, fake_ray: FakeRay) -> None:
    samples = read_dataset(dataset)
    save(dataset / "images/a.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(InvalidInputError, match="of one size"):
        list(on_ray(task, samples, 1, None))
    assert fake_ray.calls[-1] == "shutdown"


@pytest.mark.usefixtures("fake_ray")
def test_a_cluster_that_is_not_there_is_named(task: Task, dataset: Path) -> None:
    with pytest.raises(InvalidInputError, match="expected a cluster at 'nowhere:1', got: no cluster there"):
        list(on_ray(task, read_dataset(dataset), 1, "nowhere:1"))


def test_missing_ray_is_named_with_its_extra(
    task: Task, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidInputError, match=r"--ray needs Ray: pip install .clickmask\[ray\]"):
        list(on_ray(task, read_dataset(dataset), 1, None))


@pytest.mark.filterwarnings("default")  # Ray's own
def test_a_real_ray_gives_the_same_curves(task: Task, dataset: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra ray, which make test does not install")
    samples = read_dataset(dataset)
    assert outcome(on_ray(task, samples, 2, None)) == outcome(here(task, samples))
