"""TensorRT: the plans of a bundle on the GPU they were built for, full runtime or lean.

``plan_fit`` decides first whether they load here. Memory, streams and copies are ours, through cuda-python on
the primary context; torch and pycuda are not involved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..engine_facts import EngineFacts
from ..errors import BackendError, BackendUnavailableError, ClickmaskError
from ..manifest import Artefact, Manifest
from ..plan_fit import verdict
from . import host
from .base import Backend
from .cuda_memory import DeviceArray, DevicePool
from .cuda_runtime import CudaRuntime
from .diffusion import Choice, Place, choose
from .host_facts import host_facts
from .lanes import LANES, Lanes
from .tensorrt_engine import EngineLoader, check_engine, import_tensorrt
from .tensorrt_lane import TensorRtLane


class TensorRtBackend(Backend):
    """TensorRT engines; ``open`` makes one."""

    def __init__(
        self,
        manifest: Manifest,
        engines: Mapping[str, Any],
        facts: EngineFacts,
        cuda: CudaRuntime,
        trt: Any,
        device: str,
        reason: str,
        choice: Choice | None = None,
        lanes: int = LANES,
    ) -> None:
        """Take over one engine for each graph that runs; applications call ``open``."""
        super().__init__("tensorrt", device, reason, manifest, choice)
        self._cuda, self._pool, self._engines = cuda, DevicePool(cuda), dict(engines)
        self._lanes = Lanes(
            lambda: TensorRtLane(cuda, trt, self._engines, facts, manifest, self._pool), lanes
        )
        by_size = [[p.max_batch for p in facts.profiles if p.size == size] for size in manifest.input.sizes]
        self.largest_batch = min(map(max, by_size))

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        artefact: Artefact,
        device: str = "cuda",
        threads: int | None = None,  # noqa: ARG003 - of the CPU; the signature is every backend's
        reason: str = "asked for",
        pixel_diffusion: Place = "auto",
        trust_host_code: bool = False,
    ) -> TensorRtBackend:
        """Load an artefact.

        Args:
            bundle: A checked bundle.
            artefact: One of its "tensorrt" artefacts.
            device: "cuda" or "cuda:N".
            threads: Not used.
            reason: Kept for the reader.
            pixel_diffusion: As for ``open_backend``; the kernel is for the CPU.
            trust_host_code: Whether code that a plan carries may run in this process.

        Raises:
            BackendUnavailableError: The plans do not load here; the message has both values and the command
                to run.
            BackendError: TensorRT refuses a plan, or CUDA fails.
            BundleError: A plan was changed since the bundle was loaded.
        """
        index, facts = host.split_device(device)[1], artefact.engine
        if facts is None:
            raise BackendError("expected an artefact with facts of its engine, got none.")
        answer = verdict(facts, host_facts(), index, trust_host_code=trust_host_code)
        if not answer.loads or answer.module is None:
            raise BackendUnavailableError(answer.text)
        choice = choose(bundle.manifest, pixel_diffusion, device)
        trt, cuda = import_tensorrt(answer.module), _cuda(index)
        engines = _engines(trt, cuda, bundle, artefact, facts, choice)
        return cls(bundle.manifest, engines, facts, cuda, trt, device, f"{reason}; {answer.text}", choice)

    def warmup(self, batches: Sequence[int] = (1,)) -> None:
        """Run and capture every shape in every lane; see :meth:`Backend.warmup`."""
        with self._cuda.current():
            self._lanes.warm_up(lambda: super(TensorRtBackend, self).warmup(batches))

    def close(self) -> None:
        """Free the device; see :meth:`Backend.close`. Features still held keep their memory until they go."""
        super().close()
        with self._cuda.current():
            self._lanes.close()
            self._pool.close()
            self._engines.clear()  # a call that still runs has those that it uses

    @contextmanager
    def _call(self) -> Iterator[None]:
        lane = self._lanes.mine
        if lane is not None:  # warming: the lane is this thread's already
            yield
            lane.finish()
            return
        with self._cuda.current(), self._lanes.lent():
            yield

    def _upload(self, array: np.ndarray) -> DeviceArray:
        return self._lane.upload(array)

    def _keep(self, features: dict[str, Any]) -> dict[str, Any]:
        return {name: self._lane.keep(array) for name, array in features.items()}

    def _stack(self, arrays: Sequence[DeviceArray]) -> DeviceArray:
        return self._lane.stack(arrays)

    def _items(self, array: DeviceArray) -> list[DeviceArray]:
        shape, step = (1, *array.shape[1:]), array.nbytes // array.shape[0]
        parts = [
            DeviceArray(array.pointer + number * step, shape, array.dtype) for number in range(array.shape[0])
        ]
        return [self._lane.keep(part) for part in parts]

    def _download(self, array: DeviceArray) -> np.ndarray:
        return self._lane.download(array)

    def _finite_later(self, logits: DeviceArray) -> Callable[[], bool]:
        return self._lane.finite_later(logits)

    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        return self._lane.run(graph, feeds)

    @property
    def _lane(self) -> TensorRtLane:
        lane = self._lanes.mine
        assert lane is not None  # every call is inside `_call`
        return lane


def _engines(
    trt: Any, cuda: CudaRuntime, bundle: Bundle, artefact: Artefact, facts: EngineFacts, choice: Choice
) -> dict[str, Any]:
    """An engine for each graph that runs, checked against the manifest."""
    engines = {}
    try:
        with cuda.current():  # an engine belongs to the device that is current when it is loaded
            loader = EngineLoader(trt, trust_host_code=facts.lean_runtime_inside)
            for graph in filter(choice.opens, bundle.manifest.graphs):
                weights = bundle.read(artefact.weights[graph]) if facts.stripped else None
                engines[graph] = loader.load(bundle.read(artefact.files[graph]), weights)
                check_engine(trt, engines[graph], graph, bundle.manifest.graphs[graph], facts)
    except ClickmaskError:
        raise
    except Exception as exc:
        raise BackendError(f"TensorRT {trt.__version__} does not load the plans: {exc}") from exc
    return engines


def _cuda(index: int) -> CudaRuntime:
    try:
        return CudaRuntime(index)
    except ImportError as exc:
        raise BackendUnavailableError(
            f'expected cuda-python to import, got: {exc}; run: pip install "clickmask[tensorrt]"'
        ) from exc
