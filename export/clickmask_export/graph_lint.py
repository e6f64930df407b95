"""Lint of exported graphs: faults that friendly images would not show, or that only another runtime meets.

Each rule says which node is at fault, why, and what to change. ``check`` raises; ``lint`` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from clickmask.manifest import GraphSpec
from clickmask_export.errors import LintError
from clickmask_export.graphs import Precision
from clickmask_export.signs import Signs

# Their output shape or running time depends on data: TensorRT profiles, CUDA graphs and latency all suffer.
DATA_DEPENDENT = frozenset(
    {
        "Compress",
        "If",
        "Loop",
        "Multinomial",
        "NonMaxSuppression",
        "NonZero",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Scan",
        "StringSplit",
        "Unique",
    }
)
PIXEL_DIFFUSION = "pixel_diffusion/"  # its nodes are float32 whatever the precision
_ELEMENT = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
_INT32 = np.iinfo(np.int32)
_INT64 = np.iinfo(np.int64)
_HALF_NORMAL = 2.0**-14  # below it half is subnormal, which some hardware flushes to zero


@dataclass(frozen=True)
class Finding:
    """One fault: ``rule`` is its short name, ``place`` a node or tensor."""

    rule: str
    place: str
    cause: str
    fix: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.place}: {self.cause}; {self.fix}"


def check(model: onnx.ModelProto, spec: GraphSpec, opset: int, precision: Precision, name: str) -> None:
    """Raises LintError with every finding, in one line each; ``name`` is the graph's."""
    findings = lint(model, spec, opset, precision)
    if findings:
        listed = "\n  ".join(map(str, findings))
        raise LintError(f"the exported {name} has {len(findings)} fault(s):\n  {listed}")


def lint(model: onnx.ModelProto, spec: GraphSpec, opset: int, precision: Precision) -> list[Finding]:
    """All faults of a graph.

    Args:
        model: as exported, with subgraphs or without.
        spec: the inputs and outputs that the manifest will promise.
        opset: the only ONNX opset allowed.
        precision: that the body is to have.
    """
    rules: tuple[Callable[[onnx.ModelProto], Iterator[Finding]], ...] = (
        _data_dependent,
        _unguarded_divisions,
        _half_constants,
        _wide_integers,
    )
    if external := list(_external_data(model)):
        return external  # the other rules read values that are not here
    findings = [finding for rule in rules for finding in rule(model)]
    return [*_opset(model, opset), *_interface(model, spec), *_precision(model, precision), *findings]


def _opset(model: onnx.ModelProto, opset: int) -> Iterator[Finding]:
    found = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    if found != {"ai.onnx": opset}:
        yield Finding(
            "opset",
            "the model",
            f"it imports {found} where {{'ai.onnx': {opset}}} is expected",
            f"export with opset_version={opset} and without custom operators",
        )
    if model.functions:
        names = ", ".join(function.name for function in model.functions)
        yield Finding(
            "opset",
            "the model",
            f"it defines the functions {names}",
            "inline them: TensorRT reads nodes only",
        )


def _interface(model: onnx.ModelProto, spec: GraphSpec) -> Iterator[Finding]:
    for side, values, tensors in (
        ("input", model.graph.input, spec.inputs),
        ("output", model.graph.output, spec.outputs),
    ):
        names, wanted = [v.name for v in values], [t.name for t in tensors]
        if names != wanted:
            yield Finding("interface", f"the {side}s", f"{names} came", f"name and order them {wanted}")
            continue
        for value, tensor in zip(values, tensors, strict=True):
            if value.type.tensor_type.elem_type != _ELEMENT[tensor.dtype]:
                got = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
                fix = f"cast to {tensor.dtype} in the export wrapper"
                yield Finding("interface", f"{side} {value.name}", f"its type is {got}", fix)
            shape = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            if shape != list(tensor.shape):
                yield Finding(
                    "fixed shape",
                    f"{side} {value.name}",
                    f"its shape is {shape} where {list(tensor.shape)} is expected",
                    "the exporter fixed what must stay dynamic: look for Python ints made from tensor shapes",
                )


def _precision(model: onnx.ModelProto, precision: Precision) -> Iterator[Finding]:
    """A build that asks for half precision and silently gets float32, or the reverse."""
    types = {name: tensor.data_type for name, tensor in _named_tensors(model)}
    wanted = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    for node in _nodes(model.graph):
        weighted = node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) > 1
        if not weighted or node.name.startswith(PIXEL_DIFFUSION) or node.input[1] not in types:
            continue
        if types[node.input[1]] != wanted:
            got = TensorProto.DataType.Name(types[node.input[1]])
            yield Finding(
                "precision",
                node.name or node.op_type,
                f"its weight is {got} in a graph that is to be {precision}",
                "see precision.in_half: every layer with weights belongs to the half-precision body",
            )


def _external_data(model: onnx.ModelProto) -> Iterator[Finding]:
    for name, tensor in _named_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            yield Finding(
                "external data",
                f"initialiser {name}",
                "its values lie in a file beside the model, which is lost when the model alone is copied",
                "export with external_data=False",
            )


def _data_dependent(model: onnx.ModelProto) -> Iterator[Finding]:
    for node in _nodes(model.graph):
        if node.op_type in DATA_DEPENDENT:
            yield Finding(
                "data-dependent operator",
                node.name or node.op_type,
                f"{node.op_type} makes shapes or time depend on values",
                "compute on all elements and mask the result (torch.where, multiply, scatter) instead",
            )


def _unguarded_divisions(model: onnx.ModelProto) -> Iterator[Finding]:
    """Divisors that may be zero, roots of what may be negative: what a lost epsilon leaves behind."""
    signs = Signs(model.graph)
    for node in model.graph.node:
        divisor = signs.divisor(node)
        if divisor is not None and signs.is_float(node) and not signs.is_nonzero(node.input[divisor]):
            yield Finding(
                "unguarded division",
                node.name,
                f"nothing keeps its divisor {node.input[divisor]} off zero: on a flat image it is 0/0 "
                "(the exporter deletes additions of 1e-8 and less)",
                "divide by torch.clamp(x, min=eps) with eps >= 1e-7",
            )
        if node.op_type == "Sqrt" and not signs.is_nonnegative(node.input[0]):
            yield Finding(
                "unguarded root",
                node.name,
                f"rounding may make its input {node.input[0]} negative, and the root NaN",
                "take the mean of squared differences (two passes), or torch.clamp(x, min=0)",
            )
        if node.op_type == "Log" and not signs.is_positive(node.input[0]):
            yield Finding(
                "unguarded logarithm",
                node.name,
                f"nothing keeps its input {node.input[0]} above zero",
                "take it of torch.clamp(x, min=eps) with eps >= 1e-7",
            )


def _half_constants(model: onnx.ModelProto) -> Iterator[Finding]:
    """Half-precision constants that float32 values did not survive as."""
    readers = _readers(model.graph)
    for name, tensor in _named_tensors(model):
        if tensor.data_type != TensorProto.FLOAT16:
            continue
        values = numpy_helper.to_array(tensor).astype(np.float32)
        if not np.isfinite(values).all():
            yield Finding(
                "half overflow",
                f"constant {name}",
                "it holds inf or NaN: its float32 value is beyond 65504",
                "keep this value and what it meets in float32",
            )
        elif values.size == 1 and values.item() == 0 and _is_factor(name, readers):
            yield Finding(
                "half underflow",
                f"constant {name}",
                f"it is 0 in half precision, and what {_names(readers[name])} gives vanishes with it",
                "compute that part in float32; where 0 is meant, leave the multiplication out",
            )
        elif values.size == 1 and _is_guard(name, readers) and abs(values.item()) < _HALF_NORMAL:
            users = _names(readers[name])
            yield Finding(
                "half underflow",
                f"constant {name}",
                f"it is {values.item():.3g} in half precision (smallest normal 6.1e-5), and guards {users}",
                "compute that part in float32, or use an epsilon of at least 1e-4",
            )


def _names(readers: list[tuple[onnx.NodeProto, int]]) -> str:
    return ", ".join(node.name or node.op_type for node, _ in readers)


def _is_factor(name: str, readers: dict[str, list[tuple[onnx.NodeProto, int]]]) -> bool:
    return any(node.op_type == "Mul" for node, _ in readers.get(name, []))


def _is_guard(name: str, readers: dict[str, list[tuple[onnx.NodeProto, int]]]) -> bool:
    """Whether a constant is what keeps something off zero: added, a minimum, a maximum."""
    return any(
        node.op_type in ("Add", "Max")
        or (node.op_type == "Clip" and position == 1 and _feeds_division(node, readers))
        for node, position in readers.get(name, [])
    )


def _feeds_division(node: onnx.NodeProto, readers: dict[str, list[tuple[onnx.NodeProto, int]]]) -> bool:
    """A ReLU6 is a Clip at 0 as well; only a Clip before a division guards."""
    divisors = {"Div": 1, "Reciprocal": 0, "Log": 0, "Sqrt": 0}
    return any(divisors.get(user.op_type) == position for user, position in readers.get(node.output[0], []))


def _wide_integers(model: onnx.ModelProto) -> Iterator[Finding]:
    readers = _readers(model.graph)
    for name, tensor in _named_tensors(model):
        if tensor.data_type != TensorProto.INT64:
            continue
        values = numpy_helper.to_array(tensor)
        # "To the end" of a Slice is the largest int64 by convention, and every runtime knows it.
        sentinel = all(node.op_type == "Slice" for node, _ in readers.get(name, [])) and name in readers
        wide = (values > _INT32.max) | (values < _INT32.min)
        if sentinel:
            wide &= (values < _INT32.max) & (values != _INT64.min)
        if wide.any():
            yield Finding(
                "integer overflow",
                f"constant {name}",
                f"it holds {values[wide].flat[0]}, beyond int32, which TensorRT and many devices compute in",
                "use smaller integers or float32",
            )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of subgraphs too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _named_tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Initialisers and Constant nodes under the name that nodes read them by."""
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in _nodes(model.graph):
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield node.output[0], attribute.t


def _readers(graph: onnx.GraphProto) -> dict[str, list[tuple[onnx.NodeProto, int]]]:
    """For each value, the nodes that read it and at which position."""
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in _nodes(graph):
        for position, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, position))
    return readers
