"""Runtimes that are not there: modules to put in place of onnxruntime and torch."""

from __future__ import annotations

import types
from typing import Any

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def hollow(name: str, *folders: str) -> types.ModuleType:
    """What ``import`` gives for a folder of that name without an ``__init__.py``."""
    module = types.ModuleType(name)
    module.__path__ = list(folders)
    return module


def fake_onnxruntime(available: list[str], obtained: list[str]) -> types.ModuleType:
    """An onnxruntime whose sessions report the providers given."""
    module = types.ModuleType("onnxruntime")

    class Session:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def get_providers(self) -> list[str]:
            return obtained

        def get_inputs(self) -> list[Any]:
            return [types.SimpleNamespace(name=name) for name in ("image", "clicks", "previous_mask")]

        def get_outputs(self) -> list[Any]:
            return [types.SimpleNamespace(name="logits")]

    class Options:
        def add_session_config_entry(self, *_: str) -> None: ...

    module.__dict__.update(
        __version__="0",
        get_available_providers=lambda: available,
        SessionOptions=Options,
        RunOptions=Options,
        GraphOptimizationLevel=types.SimpleNamespace(ORT_ENABLE_ALL=99),
        InferenceSession=Session,
    )
    return module
