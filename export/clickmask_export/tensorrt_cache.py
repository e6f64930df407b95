"""The timing cache: what the builder measured of kernels, kept from one build to the next.

A file for each version of TensorRT and GPU, since a cache of another is refused. It only saves time: whatever
is wrong with it, the build goes on without.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from clickmask.errors import InvalidInputError
from clickmask.whole_files import write_whole
from clickmask_export.progress import Progress


def default_cache(version: str, gpu: str) -> Path:
    """Where the cache is kept: below XDG_CACHE_HOME, or ~/.cache."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"tensorrt-{version}-{gpu}")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "clickmask" / f"{name}.timing"


def use_cache(trt_config: Any, path: Path, progress: Progress) -> Any:
    """Gives an ``IBuilderConfig`` the cache of a file, or an empty one.

    Returns:
        The ``ITimingCache``, which must outlive the build; None where TensorRT takes none.
    """
    for data in dict.fromkeys((_read(path, progress), b"")):
        cache = trt_config.create_timing_cache(data)
        if cache is not None and trt_config.set_timing_cache(cache, False):
            return cache
        if data:
            progress.note(f"{path} is no timing cache of this TensorRT and GPU: starting an empty one")
    progress.note("TensorRT takes no timing cache: every kernel is measured anew")
    return None


def keep_cache(cache: Any, path: Path, progress: Progress) -> None:
    """Writes what builds have measured, whole or not at all."""
    memory = None if cache is None else cache.serialize()
    if memory is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, bytes(memory))
    except (OSError, InvalidInputError) as exc:
        progress.note(f"the timing cache was not kept: {exc}")


def _read(path: Path, progress: Progress) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as exc:
        progress.note(f"the timing cache was not read: {exc}")
        return b""
