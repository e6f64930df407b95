"""Inference runtimes behind one protocol, and the choice among them.

A runtime is imported inside the function that opens it, so that importing clickmask needs none of them.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any, get_args

from ..bundle import Bundle
from ..errors import BackendError, BackendUnavailableError, InvalidInputError
from ..manifest import Artefact
from . import host
from .base import Backend, Features
from .diffusion import Place

__all__ = ["Backend", "Features", "open_artefact", "open_backend"]

_log = logging.getLogger("clickmask")

_BACKENDS = ("auto", "onnxruntime", "torchscript", "tensorrt")
_ORDER = (
    ("tensorrt", "cuda"),
    ("torchscript", "cuda"),
    ("onnxruntime", "cuda"),
    ("onnxruntime", "cpu"),
    ("torchscript", "cpu"),
)


@dataclass(frozen=True)
class _Candidate:
    artefact: Artefact
    device: str

    def __str__(self) -> str:
        return f"{self.artefact.backend} {self.artefact.precision} on {self.device}"


def open_backend(
    bundle: Bundle,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    pixel_diffusion: Place = "auto",
    trust_host_code: bool = False,
) -> Backend:
    """Load the best artefact of a bundle that this host can run.

    The order is: a TensorRT plan, TorchScript on CUDA, ONNX on CUDA, ONNX on the CPU, TorchScript on the CPU.
    What is named explicitly is used or refused, never replaced. The choice is logged to "clickmask" and kept
    in ``Backend.reason`` and ``Backend.pixel_diffusion_reason``.

    Args:
        bundle: From ``load_bundle``.
        backend: "auto", "onnxruntime", "torchscript" or "tensorrt".
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads of one call, >= 1; None means the runtime's sensible default.
        pixel_diffusion: "graph", "native" (the fused kernel for the device) or "auto", the kernel where it
            can be had. Both give the same masks.
        trust_host_code: Load TensorRT plans that carry a lean runtime, which is code that this process runs:
            only for bundles whose maker is trusted.

    Raises:
        InvalidInputError: An unknown backend, device or pixel_diffusion, or threads below 1.
        BackendUnavailableError: Nothing in the bundle fits the request and this host; the message lists both.
        BackendError: The one thing asked for is there but does not load.
    """
    _check_request(backend, device, threads, pixel_diffusion)
    candidates = _candidates(bundle, backend, device)
    if not candidates:
        raise BackendUnavailableError(
            f"expected an artefact for backend={backend!r} and device={device!r}, got none that fits. "
            f"{_facts(bundle)}"
        )
    passed: list[tuple[_Candidate, BackendError]] = []
    for candidate in candidates:
        try:
            reason = _reason(candidate, passed, backend, device)
            opened = _open(bundle, candidate, device, threads, reason, pixel_diffusion, trust_host_code)
        except BackendError as exc:
            _log_passed_over(candidate, exc)
            passed.append((candidate, exc))
        else:
            how = f"{opened.pixel_diffusion} ({opened.pixel_diffusion_reason})"
            _log.info("using %s; Pixel Diffusion: %s", opened.reason, how)
            return opened
    raise _nothing_opened(bundle, backend, device, passed)


def open_artefact(
    bundle: Bundle,
    artefact: Artefact,
    device: str,
    threads: int | None = None,
    reason: str = "asked for",
    pixel_diffusion: Place = "auto",
    trust_host_code: bool = False,
) -> Backend:
    """Load one artefact on one device, whatever else the bundle and this host have.

    Args:
        bundle: From ``load_bundle``.
        artefact: One of the bundle's.
        device: "cpu", "cuda" or "cuda:N".
        threads: As for ``open_backend``.
        reason: Kept in ``Backend.reason``.
        pixel_diffusion: As for ``open_backend``.
        trust_host_code: As for ``open_backend``.

    Raises:
        BackendUnavailableError: This host lacks the runtime or device; the message has the command to run.
        BackendError: The runtime refuses a graph.
    """
    opener: Any
    options: dict[str, bool] = {}
    if artefact.backend == "tensorrt":
        from .tensorrt import TensorRtBackend as opener

        options = {"trust_host_code": trust_host_code}
    elif artefact.backend == "onnxruntime" and device == "cpu":
        from .onnxruntime import OnnxRuntimeBackend as opener
    elif artefact.backend == "onnxruntime":
        from .onnxruntime_cuda import OnnxRuntimeCudaBackend as opener
    else:
        from .torchscript import TorchScriptBackend as opener
    opened: Backend = opener.open(bundle, artefact, device, threads, reason, pixel_diffusion, **options)
    opened.artefact = artefact
    return opened


def _check_request(backend: str, device: str, threads: int | None, pixel_diffusion: str) -> None:
    if backend not in _BACKENDS:
        raise InvalidInputError(f"backend: expected one of {', '.join(_BACKENDS)}, got {backend!r}.")
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", device):
        raise InvalidInputError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}.")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InvalidInputError(f"threads: expected an integer of at least 1 or None, got {threads!r}.")
    if pixel_diffusion not in get_args(Place):
        wanted = ", ".join(get_args(Place))
        raise InvalidInputError(f"pixel_diffusion: expected one of {wanted}, got {pixel_diffusion!r}.")


def _candidates(bundle: Bundle, backend: str, device: str) -> list[_Candidate]:
    found = []
    for name, kind in _ORDER:
        if backend not in ("auto", name) or host.split_device(device)[0] not in ("auto", kind):
            continue
        # Half precision is why one goes to a GPU; on a CPU it only adds casts. The manifest's order breaks
        # ties.
        best = "fp16" if kind == "cuda" else "fp32"
        fitting = [a for a in bundle.manifest.artefacts if a.backend == name and a.device in ("any", kind)]
        where = device if device.startswith("cuda") else kind
        found += [_Candidate(a, where) for a in sorted(fitting, key=lambda a: a.precision != best)]
    return found


def _open(
    bundle: Bundle,
    candidate: _Candidate,
    device: str,
    threads: int | None,
    reason: str,
    pixel_diffusion: Place,
    trust_host_code: bool,
) -> Backend:
    # Before a runtime is imported, which costs seconds; a plan has its own, clearer refusal.
    unasked = device == "auto" and candidate.device == "cuda" and candidate.artefact.backend != "tensorrt"
    if unasked and host.cuda_devices() == 0:
        raise BackendUnavailableError("no CUDA device on this host")
    return open_artefact(
        bundle, candidate.artefact, candidate.device, threads, reason, pixel_diffusion, trust_host_code
    )


def _log_passed_over(candidate: _Candidate, error: BackendError) -> None:
    # Without a GPU this is routine; with one it is why an application is slower than it should be.
    idle_gpu = candidate.device != "cpu" and host.cuda_devices() > 0
    _log.log(logging.WARNING if idle_gpu else logging.INFO, "%s passed over: %s", candidate, error)


def _reason(
    candidate: _Candidate, passed: list[tuple[_Candidate, BackendError]], backend: str, device: str
) -> str:
    asked = [
        f"{key}={value!r}" for key, value in (("backend", backend), ("device", device)) if value != "auto"
    ]
    why = (
        f"asked for {', '.join(asked)}" if asked else "best of the bundle's artefacts that this host can run"
    )
    skipped = "; ".join(f"{other} passed over: {exc}" for other, exc in passed)
    return f"{candidate}: {why}" + (f"; {skipped}" if skipped else "")


def _nothing_opened(
    bundle: Bundle, backend: str, device: str, passed: list[tuple[_Candidate, BackendError]]
) -> BackendError:
    if len(passed) == 1:
        return passed[0][1]
    lines = "".join(f"\n  {candidate}: {exc}" for candidate, exc in passed)
    error = BackendUnavailableError(
        f"expected to open one artefact for backend={backend!r} and device={device!r}, got none open. "
        f"{_facts(bundle)} Tried:{lines}"
    )
    error.__cause__ = passed[-1][1]
    return error


def _facts(bundle: Bundle) -> str:
    has = ", ".join(f"{a.backend} {a.precision} for {a.device}" for a in bundle.manifest.artefacts)
    return f"The bundle has: {has}. This host has: {host.summary()}."
