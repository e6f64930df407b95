"""The families are proven with the recordings and the eager backend of the tests of models."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "models"))
