"""Where two forms of a graph part, and which nodes a loss of precision comes from.

Both work on ONNX files in ONNX Runtime on a CPU, whatever the precision is meant for. The judge is the mask:
logits that differ by 0.1 far from the threshold are no loss.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, shape_inference

from clickmask_export.onnx_runs import Feeds, run_session, session_of

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_AT_ONCE = 32  # intermediate tensors of one run; all at once would take gigabytes
_TINY = 1e-12


@dataclass(frozen=True)
class Departure:
    """How far a node's output is from the reference's.

    Attributes:
        node: its name, the same in both graphs.
        operator: its operator.
        error: of its first output, |a - b| / |a| over all elements; inf where one is not finite.
    """

    node: str
    operator: str
    error: float


def run(model: bytes, feeds: Feeds) -> Feeds:
    """Output name to array, in ONNX Runtime on a CPU, every node as it is written."""
    return run_session(session_of(model, optimised=False), feeds)


def departures(reference: onnx.ModelProto, other: onnx.ModelProto, feeds: Feeds) -> list[Departure]:
    """Every node that both graphs have, in order, with its error: the first large one is where they part."""
    outputs = [{node.name: node.output[0] for node in _float_nodes(model)} for model in (reference, other)]
    shared = [node for node in _float_nodes(reference) if node.name in outputs[1]]
    found = []
    for start in range(0, len(shared), _AT_ONCE):
        names = [node.name for node in shared[start : start + _AT_ONCE]]
        runs = [
            run(_with_outputs(model, [of[name] for name in names]), feeds)
            for model, of in zip((reference, other), outputs, strict=True)
        ]
        for node in shared[start : start + _AT_ONCE]:
            right, ours = (got[of[node.name]] for got, of in zip(runs, outputs, strict=True))
            found.append(Departure(node.name, node.op_type, relative_error(right, ours)))
    return found


def with_half(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of a float32 graph in which some nodes give what half precision can hold.

    Their outputs are cast to half and back, and so are the constants that they read: what a half-precision
    engine does to them, but for the sums inside a node.
    """
    made, chosen = copy.deepcopy(model), set(names)
    graph = made.graph
    floats = {node.name for node in _float_nodes(model)}
    nodes, outputs = [], {value.name for value in graph.output}
    for tensor in graph.initializer:
        readers = [node for node in graph.node if tensor.name in node.input]
        if tensor.data_type == TensorProto.FLOAT and readers and all(n.name in chosen for n in readers):
            values = onnx.numpy_helper.to_array(tensor)
            with np.errstate(over="ignore"):  # inf is what half makes of it
                rounded = values.astype(np.float16).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(rounded, tensor.name))
    for node in graph.node:
        nodes.append(node)
        if node.name not in chosen & floats:
            continue
        for index, name in enumerate(node.output):
            if not name:
                continue
            exact, half = f"{name}/exact", f"{name}/half"
            node.output[index] = exact
            nodes += [
                helper.make_node("Cast", [exact], [half], f"{half}/Cast", to=TensorProto.FLOAT16),
                helper.make_node("Cast", [half], [name], f"{name}/Cast", to=TensorProto.FLOAT),
            ]
    assert outputs <= {name for node in nodes for name in node.output}
    del graph.node[:]
    graph.node.extend(nodes)
    return made


def first_guilty(names: Sequence[str], is_bad: Callable[[Sequence[str]], bool]) -> str | None:
    """The node that makes the difference: the last of the shortest beginning of ``names`` that is bad.

    Found by halving, so that a graph of 300 nodes takes 9 trials. None where even all of them are good.
    """
    if not is_bad(names):
        return None
    good, bad = 0, len(names)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if is_bad(names[:middle]) else (middle, bad)
    return names[bad - 1]


def float_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that compute in floating point, in order."""
    return [node.name for node in _float_nodes(model)]


def mask_iou(right: NDArray[Any], ours: NDArray[Any], threshold: float = 0.0) -> float:
    """Intersection over union of two masks, where logits exceed ``threshold``; 0 if ours are not finite."""
    if not np.isfinite(ours).all():
        return 0.0
    first, second = right > threshold, ours > threshold
    union = np.logical_or(first, second).sum()
    return float(np.logical_and(first, second).sum() / union) if union else 1.0


def relative_error(right: NDArray[Any], ours: NDArray[Any]) -> float:
    """|right - ours| / |right|; inf where shapes differ or a value is not finite on one side only."""
    if right.shape != ours.shape or not np.array_equal(np.isfinite(right), np.isfinite(ours)):
        return float("inf")
    right, ours = right.astype(np.float64), ours.astype(np.float64)
    finite = np.isfinite(right)
    gap = np.linalg.norm(right[finite] - ours[finite])
    return float(gap / max(np.linalg.norm(right[finite]), _TINY))


def _float_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    inferred = shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type in _FLOATS}
    yield from (node for node in model.graph.node if node.output[0] in floats)


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> bytes:
    """The graph with other values marked as its outputs."""
    made = copy.deepcopy(model)
    del made.graph.output[:]
    made.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return made.SerializeToString()
