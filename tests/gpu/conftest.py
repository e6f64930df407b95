"""Bundles built on this GPU for every runtime that is installed, and the eager networks beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_wants import missing, needed


@pytest.fixture(scope="session")
def checkpoint(root: Path) -> Path:
    """The shipped network, or CLICKMASK_GPU_CHECKPOINT."""
    return Path(os.environ.get("CLICKMASK_GPU_CHECKPOINT", root / "engines/default.safetensors"))


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    from clickmask_export.parity_cases import load_photo

    return load_photo(None)


@pytest.fixture(scope="session")
def built(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Any]:
    """A loaded bundle with one artefact for CUDA, by backend and precision; built once, gates and all.

    What fails, fails every test that wants it, and takes its minutes once.
    """
    from clickmask.bundle import load_bundle
    from clickmask_export.build import Request, build
    from clickmask_export.errors import TargetUnavailableError
    from clickmask_export.progress import Progress

    @cache
    def make(backend: str, precision: str) -> Any:
        folder = tmp_path_factory.mktemp("bundles") / f"{backend}-{precision}"
        request = Request(checkpoint, folder, targets=(backend,), precision=precision)  # type: ignore[arg-type]
        try:
            build(request, Progress())
        except TargetUnavailableError as exc:
            return str(exc)
        except Exception as exc:
            return exc
        return load_bundle(folder)

    def get(backend: str, precision: str) -> Any:
        made = make(backend, precision)
        if isinstance(made, Exception):
            raise made
        return missing(made) if isinstance(made, str) else made

    return get


@pytest.fixture(scope="session")
def opened(built: Callable[[str, str], Any]) -> Iterator[Callable[[str, str], Any]]:
    """An open backend on the first CUDA device, by backend and precision."""
    from clickmask.backends import open_artefact

    backends: dict[tuple[str, str], Any] = {}

    def get(backend: str, precision: str) -> Any:
        if (backend, precision) not in backends:
            bundle = built(backend, precision)
            with needed():
                backends[backend, precision] = open_artefact(bundle, bundle.manifest.artefacts[0], "cuda")
        return backends[backend, precision]

    yield get
    for backend in backends.values():
        backend.close()


@pytest.fixture(scope="session")
def eager(checkpoint: Path, built: Callable[[str, str], Any]) -> Iterator[Callable[[str], Any]]:
    """The same network in eager torch, by precision."""
    from gpu_eager import EagerBackend, eager_backend

    @cache
    def make(precision: str) -> EagerBackend:
        manifest = built("onnxruntime", precision).manifest
        return eager_backend(checkpoint, precision, manifest, "cuda")  # type: ignore[arg-type]

    with closing(make("fp32")):
        yield make
