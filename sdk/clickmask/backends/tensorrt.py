"""TensorRT: the plans of a bundle on the GPU they were built for, full runtime or lean.

``plan_fit`` decides first whether they load here. Memory, streams and copies are ours, through cuda-python on
the primary context; torch and pycuda are not involved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..bundle import Bundle
from ..engine_facts import EngineFacts
from ..errors import BackendError, BackendUnavailableError, ClickmaskError
from ..manifest import Artefact, Manifest
from ..plan_fit import verdict
from . import host
from .cuda_device import cuda_runtime
from .cuda_runtime import CudaRuntime
from .diffusion import Choice, Place, choose
from .host_facts import host_facts
from .lane_backend import LaneBackend
from .lanes import LANES
from .tensorrt_engine import EngineLoader, check_engine, import_tensorrt
from .tensorrt_program import TensorRtPrograms


class TensorRtBackend(LaneBackend):
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
    ) -> None:
        """Take over one engine for each graph that runs; applications call ``open``."""
        held = dict(engines)
        super().__init__(
            "tensorrt",
            device,
            reason,
            manifest,
            choice,
            cuda,
            lambda stream: TensorRtPrograms(cuda, trt, held, facts, stream),
            LANES,
        )
        self._engines = held
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
            pixel_diffusion: As for ``open_backend``.
            trust_host_code: Whether code that a plan carries may run in this process.

        Raises:
            BackendUnavailableError: The plans do not load here, or the kernel asked for cannot be had; the
                message has both values and the command to run.
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
        trt, cuda = import_tensorrt(answer.module), cuda_runtime(index, "tensorrt")
        engines = _engines(trt, cuda, bundle, artefact, facts, choice)
        return cls(bundle.manifest, engines, facts, cuda, trt, device, f"{reason}; {answer.text}", choice)

    def close(self) -> None:
        """See :meth:`LaneBackend.close`; a call that still runs has the engines that it uses."""
        super().close()
        self._engines.clear()


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
