"""Fixtures of more than one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle
from gpu_machine import PIPELINES, Machine, pretended

from clickmask.bundle import load_bundle


@pytest.fixture
def one_runtime(tmp_path: Path) -> Callable[[str], Any]:
    """A loaded bundle with one artefact for the backend named."""
    return lambda backend: load_bundle(make_bundle(tmp_path / backend, backends=(backend,)))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A pretended GPU box that runs TensorRT."""
    return pretended(monkeypatch, tmp_path / "bundle", "tensorrt")


@pytest.fixture(params=["tensorrt", "onnxruntime"])
def any_machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A pretended GPU box, for each runtime that runs in lanes."""
    return pretended(monkeypatch, tmp_path / "bundle", request.param)


@pytest.fixture(params=PIPELINES, ids=str)
def pipeline(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options of ``make_bundle`` for each kind of pipeline."""
    return dict(PIPELINES[request.param])
