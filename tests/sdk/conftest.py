"""Fixtures of more than one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle

from clickmask.bundle import load_bundle


@pytest.fixture
def one_runtime(tmp_path: Path) -> Callable[[str], Any]:
    """A loaded bundle with one artefact for the backend named."""
    return lambda backend: load_bundle(make_bundle(tmp_path / backend, backends=(backend,)))
