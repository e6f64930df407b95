"""The CUDA device that was asked for, or what to do about it."""

from __future__ import annotations

from ..errors import BackendUnavailableError
from . import host
from .cuda_runtime import CudaRuntime
from .host_facts import host_facts


def cuda_device(device: str, purpose: str, remedy: str, extra: str) -> CudaRuntime:
    """A device that this process can use, in its primary context.

    Args:
        device: "cuda" or "cuda:N"; another is refused.
        purpose: What it is for, in messages.
        remedy: What else can be done where there is none.
        extra: The installation extra that brings cuda-python.

    Raises:
        BackendUnavailableError: No such GPU, no cuda-python, or a context other than the device's primary
            one; the message says what to do.
    """
    kind, index = host.split_device(device)
    facts = host_facts()
    if kind != "cuda" or index >= len(facts.gpus):
        raise BackendUnavailableError(
            f"expected a CUDA device for {purpose}, got {device} with {len(facts.gpus)} CUDA device(s) "
            f"found; check nvidia-smi, or {remedy}"
        )
    if facts.foreign_context:
        raise BackendUnavailableError(
            "expected the device's primary CUDA context, got another one, as pycuda.autoinit makes; import "
            "pycuda.autoprimaryctx in its place"
        )
    return cuda_runtime(index, extra)


def cuda_runtime(index: int, extra: str) -> CudaRuntime:
    """A device by its number.

    Raises:
        BackendUnavailableError: cuda-python does not import.
    """
    try:
        return CudaRuntime(index)
    except ImportError as exc:
        raise BackendUnavailableError(
            f'expected cuda-python to import, got: {exc}; run: pip install "clickmask[{extra}]"'
        ) from exc
