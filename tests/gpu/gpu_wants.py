"""What a GPU test wants and this machine may lack."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skips, or fails where CLICKMASK_REQUIRE_GPU=1 says that nothing may be missing."""
    if os.environ.get("CLICKMASK_REQUIRE_GPU") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
