"""What a GPU test wants and this machine may lack."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

from clickmask.errors import BackendUnavailableError


def missing(reason: str) -> NoReturn:
    """Skips, or fails where CLICKMASK_REQUIRE_GPU=1 says that nothing may be missing."""
    if os.environ.get("CLICKMASK_REQUIRE_GPU") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def needed() -> Iterator[None]:
    """What is inside needs a runtime or a library of the GPU; see `missing` where that is not there."""
    try:
        yield
    except BackendUnavailableError as exc:
        missing(str(exc))
