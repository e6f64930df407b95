"""Running ONNX files on a CPU while a bundle is made: plain sessions, arrays by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Feeds = dict[str, NDArray[np.float32]]


def session_of(model: bytes, *, optimised: bool = True) -> Any:
    """An ``onnxruntime.InferenceSession``; without ``optimised`` every node computes as it is written.

    Except in half precision: on the CPU ONNX Runtime rounds weights and casts to it and computes in float32,
    so that an overflow between two nodes does not show.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, feeds: Mapping[str, Any]) -> Feeds:
    """Output name to array; of ``feeds`` what the graph takes is used."""
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}
    fed = {name: array for name, array in feeds.items() if name in wanted}
    return dict(zip(names, session.run(names, fed), strict=True))
