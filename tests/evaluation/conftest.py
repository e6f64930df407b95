"""Small benchmarks on disk, and the run-time tests' helpers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "sdk"))  # bundles.py, sessions.py

from benchmarks import write_indexed, write_tiny_bundle


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A folder `disks` in the layout `indexed`: four pictures with a disk each; one has an ignored band."""
    return write_indexed(tmp_path / "disks")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle for ONNX Runtime whose network is a few operations."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
