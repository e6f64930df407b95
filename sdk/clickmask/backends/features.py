"""What passes from ``encode`` to ``decode``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Features:
    """What ``encode`` leaves for ``decode``: arrays by name, on the device, "image" always among them."""

    tensors: Mapping[str, Any]
