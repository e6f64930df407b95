"""Where the robot works: in this process, in several, or on a Ray cluster.

Each place gives the same curves in the same order; only the seconds in them differ.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import cv2

from clickmask.errors import BackendError, ClickmaskError, InvalidInputError
from clickmask.evaluation.methods import Annotator, Method
from clickmask.evaluation.run import Curve, annotate
from clickmask.evaluation.samples import Sample


@dataclass(frozen=True)
class Task:
    """What is done to each sample: the method, its limit of clicks, and the IoU to stop at, if any."""

    method: Method
    limit: int
    until: float | None = None


def here(task: Task, samples: Sequence[Sample]) -> Iterator[Curve]:
    """One curve after the other, in this process."""
    annotator = task.method.open()
    for sample in samples:
        yield annotate(annotator, sample, task.limit, task.until)


def in_processes(task: Task, samples: Sequence[Sample], workers: int) -> Iterator[Curve]:
    """The curves from ``workers`` processes, each of which opens the method for itself.

    Raises:
        ClickmaskError: what a worker met.
        BackendError: a worker was ended from outside, as the system does when memory runs out.
    """
    # Spawned, not forked: a runtime's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start, (task,))
    try:
        for outcome in pool.map(_work, samples):
            yield _curve(outcome)
    except BrokenProcessPool as error:
        raise BackendError(
            f"a worker process ended on its own, perhaps for lack of memory; try --workers below {workers}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def on_ray(
    task: Task, samples: Sequence[Sample], workers: int | None, address: str | None
) -> Iterator[Curve]:
    """The curves from actors of a Ray cluster, where bundle and data lie at the same paths.

    Args:
        task: what to do.
        samples: to which objects.
        workers: how many actors; None fills the cluster's CPUs, or GPUs where the device is one.
        address: the cluster's; None starts Ray on this machine, or joins what RAY_ADDRESS names.

    Raises:
        InvalidInputError: Ray is not installed, or the cluster cannot be reached or has no room for them.
        ClickmaskError: what a worker met.
    """
    ray = _import_ray()
    joined = not ray.is_initialized()
    if joined:
        try:
            ray.init(address=address, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InvalidInputError(f"--ray: expected a cluster at {address!r}, got: {error}") from error
    try:
        needs = _needs(task.method)
        room = _places(ray.cluster_resources(), needs)
        count = workers or room
        if count > room:  # an actor without a place would be waited for without end
            raise InvalidInputError(
                f"--workers: expected at most {room}, for which the cluster has room at {needs['num_cpus']} "
                f"CPUs and {needs['num_gpus']} GPUs each, got {count}"
            )
        actor = ray.remote(Worker).options(**needs)
        pool = ray.util.ActorPool([actor.remote(task) for _ in range(min(count, len(samples)))])
        for outcome in pool.map(lambda worker, sample: worker.work.remote(sample), samples):
            yield _curve(outcome)
    except ray.exceptions.RayError as error:
        raise BackendError(f"a Ray worker failed: {error}") from error
    finally:
        if joined:
            ray.shutdown()


class Worker:
    """One process or actor: the open method."""

    def __init__(self, task: Task) -> None:
        """Opens the method when the first sample comes, so that its error reaches the caller."""
        cv2.setNumThreads(1)  # workers share the cores
        self._task = task
        self._annotator: Annotator | None = None

    def work(self, sample: Sample) -> Curve | ClickmaskError:
        """One curve, or the error instead."""
        try:
            self._annotator = self._annotator or self._task.method.open()
            return annotate(self._annotator, sample, self._task.limit, self._task.until)
        except ClickmaskError as error:
            return error


_worker: Worker | None = None  # of a process of in_processes


def _start(task: Task) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which lets them finish
    _worker = Worker(task)


def _work(sample: Sample) -> Curve | ClickmaskError:
    assert _worker is not None
    return _worker.work(sample)


def _curve(outcome: Curve | ClickmaskError) -> Curve:
    if isinstance(outcome, ClickmaskError):
        raise outcome
    return outcome


def _needs(method: Method) -> dict[str, float]:
    """Ray's resources of one worker."""
    return {"num_cpus": method.threads or 1, "num_gpus": int(method.device.startswith("cuda"))}


def _places(resources: dict[str, float], needs: dict[str, float]) -> int:
    """How many workers the cluster has room for.

    Raises:
        InvalidInputError: for none.
    """
    rooms = [resources.get("CPU", 0) / needs["num_cpus"]]
    if needs["num_gpus"]:
        rooms.append(resources.get("GPU", 0) / needs["num_gpus"])
    if min(rooms) < 1:
        raise InvalidInputError(
            f"--ray: expected a cluster with room for a worker, {needs['num_cpus']} CPUs and "
            f"{needs['num_gpus']} GPUs, got {resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}"
        )
    return int(min(rooms))


def _import_ray() -> Any:
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise InvalidInputError('--ray needs Ray: pip install "clickmask[ray]"') from error
    return ray
