"""What the training commands change in the process that runs them is put back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _denormal_numbers() -> Iterator[None]:
    yield
    torch.set_flush_denormal(False)
