"""Which values of a graph are provably positive, not negative, or not zero: sign analysis for the lint.

A proof follows a value backwards through operators whose result's sign follows from their inputs'. What it
does not know it does not claim, so that the lint asks for a guard too often rather than too rarely.

A softmax's denominator needs a fact of its own. The largest of exp(x - max(x)) is 1, but at one place of the
axis only: a single weight may underflow to 0, and only a sum or maximum over that axis is positive. Where the
peak is that of several tensors, it is the sum over all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

# The result has its first input's sign (sums over at least one element included).
_KEEP = frozenset(
    {
        "Cast",
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Sqrt",
    }
    | {"Squeeze", "Tile", "Transpose", "Unsqueeze", "MaxPool", "AveragePool", "GlobalAveragePool"}
    | {"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"}
)
_NEVER_NEGATIVE = frozenset(
    {"Abs", "Exp", "Relu", "Sigmoid", "Softmax", "Shape", "Size", "ReduceL1", "ReduceL2", "ReduceSumSquare"}
    | {"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or", "Xor"}  # 0 or 1
)
# Smaller than this is no guard: what is divided by it leaves float32's range, and subnormals may be flushed.
_LEAST = np.float32(1e-12)
_EVERY_AXIS = frozenset(range(-8, 8))
# Padding keeps the sign only where it copies.
_COPYING_PADS = (b"edge", b"reflect", b"wrap")


class Signs:
    """Sign proofs in one graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._producer = {name: node for node in graph.node for name in node.output}
        self._constant = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._constant[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        self._known: dict[tuple[str, bool], bool] = {}

    def is_float(self, node: onnx.NodeProto) -> bool:
        """False for integer arithmetic on shapes, as far as that can be seen."""
        return not any(self._is_integer(name) for name in node.input)

    def divisor(self, node: onnx.NodeProto) -> int | None:
        """Which input of a node it divides by, if any; a negative power is a division."""
        if node.op_type == "Pow":
            return 0 if np.any(self._constant.get(node.input[1], np.zeros(1)) < 0) else None
        return {"Div": 1, "Reciprocal": 0}.get(node.op_type)

    def is_positive(self, name: str) -> bool:
        """Provably greater than zero everywhere."""
        return self._prove(name, strictly=True)

    def is_nonnegative(self, name: str) -> bool:
        """Provably not below zero anywhere."""
        return self._prove(name, strictly=False)

    def is_nonzero(self, name: str) -> bool:
        """Provably not zero: positive, or positive times constants without zeros."""
        if name in self._constant:
            return bool(np.all(abs(self._constant[name]) >= _LEAST))
        node = self._producer.get(name)
        if node is not None and node.op_type in ("Neg", "Cast", "Reshape", "Unsqueeze"):
            return self.is_nonzero(node.input[0])
        if node is not None and node.op_type == "Mul":
            return all(map(self.is_nonzero, node.input))
        return self.is_positive(name)

    def _is_integer(self, name: str) -> bool:
        if name in self._constant:
            return bool(np.issubdtype(self._constant[name].dtype, np.integer))
        node = self._producer.get(name)
        if node is None:
            return False
        if node.op_type == "Cast":
            return _attribute(node, "to") in (TensorProto.INT64, TensorProto.INT32)
        if node.op_type in ("Shape", "Size", "Range", "ArgMax", "ArgMin"):
            return True
        return node.op_type in ("Gather", "Squeeze", "Unsqueeze", "Mul", "Add", "Sub") and any(
            self._is_integer(value) for value in node.input[:1]
        )

    def _prove(self, name: str, *, strictly: bool) -> bool:
        key = (name, strictly)
        if key not in self._known:
            self._known[key] = False  # a cycle proves nothing
            self._known[key] = self._prove_anew(name, strictly=strictly)
        return self._known[key]

    def _prove_anew(self, name: str, *, strictly: bool) -> bool:
        if name in self._constant:
            values = self._constant[name]
            return bool(np.all(values >= _LEAST) if strictly else np.all(values >= 0))
        node = self._producer.get(name)
        if node is None:  # an input
            return False
        if not strictly and (node.op_type in _NEVER_NEGATIVE or self._is_square(node)):
            return True
        if self._sums_to_at_least_one(node):
            return True
        if node.op_type in _KEEP or (node.op_type == "Pad" and _attribute(node, "mode") in _COPYING_PADS):
            inputs = node.input if node.op_type == "Concat" else node.input[:1]
            return all(self._prove(value, strictly=strictly) for value in inputs)
        return self._prove_arithmetic(node, strictly=strictly)

    def _prove_arithmetic(self, node: onnx.NodeProto, *, strictly: bool) -> bool:
        proofs = [self._prove(value, strictly=strictly) for value in node.input if value]
        if node.op_type in ("Shape", "Size"):  # no tensor here is ever empty
            return True
        if node.op_type in ("Mul", "Div", "Min", "Reciprocal", "Pow"):
            return all(proofs[:1]) if node.op_type == "Pow" else all(proofs)
        if node.op_type == "Max":
            return any(proofs)
        if node.op_type in ("Add", "Sum"):
            return any(proofs) and all(self._prove(value, strictly=False) for value in node.input)
        guarded = node.op_type == "Clip" and len(node.input) > 1 and bool(node.input[1])
        return guarded and self._prove(node.input[1], strictly=strictly)

    def _is_square(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "Mul":
            return node.input[0] == node.input[1]
        if node.op_type == "Pow" and node.input[1] in self._constant:
            return bool(np.all(self._constant[node.input[1]] % 2 == 0))
        return False

    def _sums_to_at_least_one(self, node: onnx.NodeProto) -> bool:
        """Whether a node sums exp(x - peak) over all that the peak is the largest of."""
        if node.op_type not in ("Add", "Sum", "ReduceSum", "ReduceMax"):
            return False
        terms = list(self._terms(node))
        if not all(self.is_nonnegative(name) for name, _ in terms):
            return False
        summed: dict[str, dict[str, frozenset[int]]] = {}
        for name, axes in terms:
            if (below := self._behind(name, "Exp")) and (difference := self._behind(below.input[0], "Sub")):
                source, peak = difference.input
                summed.setdefault(peak, {})[source] = axes
        return any(
            all(axes <= found.get(source, frozenset()) and source in found for source, axes in peaks)
            for peak, found in summed.items()
            if (peaks := list(self._peak_of(peak)))
        )

    def _terms(self, node: onnx.NodeProto) -> Iterator[tuple[str, frozenset[int]]]:
        """What a sum adds up: values, and the axes that each is summed (or maximised) over."""
        if node.op_type in ("ReduceSum", "ReduceMax"):
            yield node.input[0], self._axes(node)
            return
        for name in node.input:
            inner = self._producer.get(name)
            if inner is not None and inner.op_type in ("Add", "Sum", "ReduceSum", "ReduceMax"):
                yield from self._terms(inner)
            else:
                yield name, frozenset()

    def _peak_of(self, name: str) -> Iterator[tuple[str, frozenset[int]]]:
        """What a maximum is the largest of: values, and the axes that it is taken over."""
        node = self._producer.get(name)
        if node is not None and node.op_type == "Max":
            for value in node.input:
                yield from self._peak_of(value)
        elif node is not None and node.op_type == "ReduceMax" and _attribute(node, "keepdims") != 0:
            yield node.input[0], self._axes(node) or _EVERY_AXIS  # unknown: only a sum over all will do
        else:
            yield name, frozenset()

    def _axes(self, node: onnx.NodeProto) -> frozenset[int]:
        """Of a reduction (opset 18: its second input); empty where only running tells."""
        if len(node.input) < 2 or not node.input[1]:
            return frozenset() if _attribute(node, "noop_with_empty_axes") else _EVERY_AXIS
        return frozenset(int(axis) for axis in self._constant.get(node.input[1], ()))

    def _behind(self, name: str, kind: str) -> onnx.NodeProto | None:
        node = self._producer.get(name)
        return node if node is not None and node.op_type == kind else None


def _attribute(node: onnx.NodeProto, name: str) -> object:
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)
