"""The native tests need the compiled library; where it was not built they skip and say why."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))  # reference_pixel_diffusion

from clickmask import native_diffusion


@pytest.fixture(scope="session")
def native():
    """The binding, with its library."""
    if reason := native_diffusion.unavailable_because():
        if os.environ.get("CLICKMASK_NATIVE") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return native_diffusion
