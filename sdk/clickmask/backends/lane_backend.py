"""What the backends that manage a GPU's memory themselves share: TensorRT, and ONNX Runtime on CUDA."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from ..errors import BackendError, BackendUnavailableError
from ..manifest import Manifest
from .base import Backend
from .cuda_memory import DeviceArray, DevicePool
from .cuda_runtime import CudaRuntime
from .device_kernels import ViewKernels, view_kernels
from .device_lane import DeviceLane
from .diffusion import Choice
from .diffusion_program import with_kernel
from .lanes import Lanes
from .programs import Programs


class LaneBackend(Backend):
    """A backend whose calls have a ``DeviceLane`` each. A subclass says what a lane runs."""

    takes_device_arrays = True

    def __init__(
        self,
        name: str,
        device: str,
        reason: str,
        manifest: Manifest,
        choice: Choice | None,
        cuda: CudaRuntime,
        open_programs: Callable[[Any], Programs],
        lanes: int,
    ) -> None:
        """Make no lane yet.

        Args:
            name: As for ``Backend``, like `device`, `reason`, `manifest` and `choice`.
            device: See there.
            reason: See there.
            manifest: See there.
            choice: See there.
            cuda: The device.
            open_programs: The runtime's graphs on a stream, for one more lane; Pixel Diffusion is the
                choice's kernel where that has one.
            lanes: Calls that run side by side, at most.
        """
        super().__init__(name, device, reason, manifest, choice)
        self._cuda, self._pool = cuda, (pool := DevicePool(cuda))
        if choice is not None and choice.device_kernel is not None:
            open_programs = with_kernel(open_programs, choice.device_kernel, cuda)
        kernels: ViewKernels | None = None
        with suppress(BackendUnavailableError):  # without the library the host looks for NaN
            kernels = view_kernels()
        self._lanes = Lanes(lambda: DeviceLane(cuda, open_programs, manifest, pool, kernels), lanes)
        # For an application that forgets to close; nothing in it leads back to this backend.
        self._forgotten = weakref.finalize(self, _free_quietly, cuda, self._lanes, pool)
        self._forgotten.atexit = False

    def warmup(self, batches: Sequence[int] = (1,)) -> None:
        """Run and capture every shape in every lane; see :meth:`Backend.warmup`.

        Raises:
            InvalidInputError: More images than ``largest_batch``; what was captured before stays.
            BackendError: The runtime failed.
        """
        self._check_batch(max(batches, default=1))
        with self._cuda.current():
            self._lanes.warm_up(lambda: super(LaneBackend, self).warmup(batches))

    def close(self) -> None:
        """Free the device; see :meth:`Backend.close`. Features still held keep their memory until they go."""
        super().close()
        self._forgotten.detach()
        _free(self._cuda, self._lanes, self._pool)

    @contextmanager
    def _call(self) -> Iterator[None]:
        lane = self._lanes.mine
        if lane is not None:  # warming: the lane is this thread's already
            yield
            lane.finish()
            return
        with self._cuda.current(), self._lanes.lent():
            yield

    def _upload(self, array: Any) -> DeviceArray:
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

    def _finite_later(self, name: str, array: DeviceArray) -> Callable[[], bool]:
        return self._lane.finite_later(name, array)

    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        return self._lane.run(graph, feeds)

    @property
    def _lane(self) -> DeviceLane:
        lane = self._lanes.mine
        assert lane is not None  # every call is inside `_call`
        return lane


def _free_quietly(cuda: CudaRuntime, lanes: Lanes[DeviceLane], pool: DevicePool) -> None:
    with suppress(BackendError):  # nobody is there to hear of it
        _free(cuda, lanes, pool)


def _free(cuda: CudaRuntime, lanes: Lanes[DeviceLane], pool: DevicePool) -> None:
    with cuda.current():
        lanes.close()
        pool.close()
