"""The facts that latency depends on, and that a reader needs to judge a figure."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from clickmask import __version__
from clickmask.backends.host import installed, physical_cores
from clickmask.native_library import available, instruction_sets

_PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "torch", "tensorrt")


def machine_facts() -> dict[str, Any]:
    """Machine, versions, load and date."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": physical_cores(),
        "native_instruction_set": instruction_sets()[0] if available() else None,
        "gpus": gpus(),
        "load_average": load(),
        "versions": {
            "clickmask": __version__,
            "python": platform.python_version(),
            **{name: version for name in _PACKAGES if (version := installed(name))},
        },
    }


def load() -> float | None:
    """Processes that wanted to run in the last minute, on average; None where that is unknown."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def gpus() -> list[str]:
    """Names of the NVIDIA graphics cards; none where there is no driver."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _cpu() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
