"""Fixtures and rules for the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A failing Hypothesis example is replayed from the log, not from a database in the tree.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", "/tmp/clickmask-hypothesis")  # noqa: S108


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference data beside the project: benchmarks, golden tensors, pretrained weights."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the reference data in {folder}, which is not part of the project")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests skip where there is no GPU; CLICKMASK_REQUIRE_GPU=1 makes that a failure instead."""
    if os.environ.get("CLICKMASK_REQUIRE_GPU") == "1" or not any(i.get_closest_marker("gpu") for i in items):
        return
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; torch sees none"))
