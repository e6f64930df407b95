"""What is measured: an opened bundle whose backend is recorded."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clickmask.backends.base import Backend
from clickmask.backends.cuda_runtime import CudaRuntime
from clickmask.backends.diffusion import Place
from clickmask.backends.host import split_device
from clickmask.bundle import MANIFEST_NAME, Bundle, bundle_path
from clickmask.segmenter import Segmenter
from clickmask_export.errors import BuildError
from clickmask_export.profiling.recorder import Recording, record


@dataclass(frozen=True)
class How:
    """How a bundle is opened; the arguments of ``Segmenter.load`` of the same names."""

    backend: str = "auto"
    device: str = "auto"
    threads: int | None = None
    pixel_diffusion: Place = "auto"
    trust_host_code: bool = False


@dataclass(frozen=True)
class Subject:
    """A bundle, ready to be clicked on.

    Attributes:
        name: for the reader.
        segmenter: it.
        recording: of its backend.
        how: how it was opened.
    """

    name: str
    segmenter: Segmenter
    recording: Recording
    how: How

    @property
    def sizes(self) -> tuple[int, ...]:
        """The input sizes of its network."""
        return self.segmenter.bundle.manifest.input.sizes

    def facts(self) -> dict[str, Any]:
        """What ran, for the report."""
        bundle, backend = self.segmenter.bundle, self.segmenter.backend
        manifest = bundle.path / MANIFEST_NAME
        digest = hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else None
        return {
            "name": self.name,
            "path": str(bundle.path),
            "manifest_sha256": digest,  # the manifest has those of all files
            "backend": backend.name,
            "device": backend.device,
            "reason": backend.reason,
            "pixel_diffusion": f"{backend.pixel_diffusion} ({backend.pixel_diffusion_reason})",
            "threads": self.how.threads,
            "sizes": list(self.sizes),
            "crop_policy": bundle.manifest.crop.kind,
        }


def open_subject(path: str, how: How, name: str | None = None, *, warm: bool = True) -> Subject:
    """A bundle from its folder, or ``default``; warm, where every shape of click has been run once.

    Raises:
        ClickmaskError: it cannot be opened so.
    """
    folder = bundle_path(path)
    segmenter = Segmenter.load(folder, **vars(how))
    if warm:
        segmenter.warmup()
    return Subject(name or Path(folder).name, segmenter, record(segmenter.backend), how)


def subject_of(bundle: Bundle, backend: Backend, name: str, *, prefetch: bool = True) -> Subject:
    """A bundle on a backend that is open already."""
    segmenter = Segmenter(bundle, backend, prefetch)
    return Subject(name, segmenter, record(segmenter.backend), How())


def synchroniser(device: str) -> Callable[[], Any] | None:
    """What waits until a device has done all it was given; None for the CPU. It has not run on a GPU yet.

    Raises:
        BuildError: nothing is installed that can.
    """
    if device == "cpu":
        return None
    index = split_device(device)[1]
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        return partial(torch.cuda.synchronize, index)
    try:
        cuda = CudaRuntime(index)
    except ImportError as exc:
        raise BuildError(f'stages on {device} need cuda-python: pip install "clickmask[tensorrt]"') from exc

    def wait() -> None:
        with cuda.current():
            cuda.call(cuda.cudart.cudaDeviceSynchronize)

    return wait
