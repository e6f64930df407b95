"""Measures what a person waits for: ``python export/profile_latency.py --help``."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
for _room in ("export", "models", "sdk"):  # a clone works without being installed
    sys.path.insert(0, str(_ROOT / _room))

from clickmask_export.profiling.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
