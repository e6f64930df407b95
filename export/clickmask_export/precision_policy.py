"""What each node of an exported graph computes in, and why: the promise that a built engine is held to.

Float32 in a half-precision graph is there on purpose, and the purpose has a name, the policy:

- ``pixel_diffusion``: its whole graph;
- ``feature_diffusion``: logits, softmax and weights of Feature Diffusion;
- ``sparse_propagation``: logits and softmax of CSFP's SGM and HSGM;
- ``object_context``: softmax over positions of HRNet's OCR;
- ``click_maps``: what is computed from clicks alone;
- ``inputs_and_outputs``: casts at the edges of a graph, and what lies between them and the body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto, shape_inference

from clickmask_export.errors import LintError
from clickmask_export.quantization import quantised_layers

PIXEL_DIFFUSION = "pixel_diffusion"
_CLICKS = frozenset({"clicks", "clicks_by_label"})
_HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_SCOPES = {
    "feature_diffusion": "feature_diffusion",
    "sgm": "sparse_propagation",
    "hsgm": "sparse_propagation",
    "ocr": "object_context",
}
_TYPES = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}


@dataclass(frozen=True)
class NodePrecision:
    """What a node is to compute in.

    Attributes:
        dtype: "fp32", "fp16" or "int8".
        policy: why, if it is float32 in a graph of another precision; else None.
        heavy: whether it is a convolution or a matrix product.
    """

    dtype: str
    policy: str | None
    heavy: bool


def node_precisions(model: onnx.ModelProto, graph: str, precision: str) -> dict[str, NodePrecision]:
    """Node name to its precision; integer and Boolean nodes are left out.

    Args:
        model: as exported, quantised or not.
        graph: its name in the bundle.
        precision: of the network's body: "fp32", "fp16" or "int8".

    Raises:
        LintError: a convolution or matrix product of an fp16 body is float32 without a reason.
    """
    inferred = shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    integers, from_clicks = set(quantised_layers(model)), _from_clicks(model.graph)
    found = {}
    for node in model.graph.node:
        dtype = "int8" if node.name in integers else _TYPES.get(types.get(node.output[0], 0))
        if dtype is None:
            continue
        policy = None
        if dtype == "fp32" and precision == "fp16":
            policy = _policy(node, graph, from_clicks)
        heavy = node.op_type in _HEAVY
        if heavy and policy == "inputs_and_outputs":
            raise LintError(
                f"{node.name} of the {graph} computes in float32 although fp16 was asked for, and belongs to "
                "no island that is to: see precision.in_half"
            )
        found[node.name] = NodePrecision(dtype, policy, heavy)
    return found


def heavy_nodes(nodes: Mapping[str, NodePrecision], dtype: str) -> set[str]:
    """Names of the convolutions and matrix products that are to compute in a type."""
    return {name for name, node in nodes.items() if node.heavy and node.dtype == dtype}


def islands(model: onnx.ModelProto, graph: str) -> frozenset[str]:
    """Names of the nodes that a half-precision build keeps in float32, from a float32 graph."""
    from_clicks = _from_clicks(model.graph)
    named = {node.name: _policy(node, graph, from_clicks) for node in model.graph.node}
    return frozenset(name for name, policy in named.items() if policy != "inputs_and_outputs")


def _policy(node: onnx.NodeProto, graph: str, from_clicks: frozenset[str]) -> str:
    if graph == PIXEL_DIFFUSION:
        return PIXEL_DIFFUSION
    for scope in re.split("[./]", node.name):
        if scope in _SCOPES:
            return _SCOPES[scope]
    return "click_maps" if node.output[0] in from_clicks else "inputs_and_outputs"


def _from_clicks(graph: onnx.GraphProto) -> frozenset[str]:
    """Values that depend on the clicks and on no other values: of other tensors on the extents alone."""
    origin: dict[str, frozenset[str]] = {value.name: frozenset({value.name}) for value in graph.input}
    for node in graph.node:  # in topological order
        read = () if node.op_type == "Shape" else node.input
        sources = frozenset[str]().union(*(origin.get(name, frozenset()) for name in read))
        origin |= dict.fromkeys(node.output, sources)
    return frozenset(name for name, sources in origin.items() if sources <= _CLICKS)
