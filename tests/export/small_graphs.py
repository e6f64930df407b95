"""ONNX graphs of a few nodes with the inputs and outputs of a bundle's, made in no time."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clickmask.manifest import GraphSpec
from clickmask.manifest_graphs import TENSORS

SPEC = GraphSpec(
    (TENSORS["image"], TENSORS["clicks"], TENSORS["previous_mask"]),
    (TENSORS["logits"],),
)


def network(half: bool = True, channels: int = 4) -> onnx.ModelProto:
    """Two convolutions, an attention-like product and a term from the clicks.

    With ``half`` the convolutions are in half precision, the rest in float32 as ``precision`` would have it.
    """
    rng = np.random.default_rng(0)
    dtype = np.float16 if half else np.float32
    body = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    weights = {
        "w1": rng.normal(0, 0.3, (channels, 3, 3, 3)).astype(dtype),
        "w2": rng.normal(0, 0.3, (1, channels, 3, 3)).astype(dtype),
        "b1": rng.normal(0, 0.1, channels).astype(dtype),
        "b2": rng.normal(0, 0.1, 1).astype(dtype),
        "axes": np.int64([1, 2]),
        "shape": np.int64([-1, 1, 1, 1]),
    }
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Cast", ["image"], ["x0"], "Cast", to=body),
        helper.make_node("Conv", ["x0", "w1", "b1"], ["x1"], "stem/Conv", **pads),
        helper.make_node("Relu", ["x1"], ["x2"], "stem/Relu"),
        helper.make_node("Conv", ["x2", "w2", "b2"], ["x3"], "head/Conv", **pads),
        helper.make_node("Cast", ["x3"], ["x4"], "Cast_1", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x4", "x4"], ["x5"], "feature_diffusion/MatMul"),
        helper.make_node("Softmax", ["x5"], ["x6"], "feature_diffusion/Softmax"),
        helper.make_node("Add", ["x4", "x6"], ["x7"], "feature_diffusion/Add"),
        helper.make_node("ReduceMean", ["clicks", "axes"], ["c0"], "ReduceMean", keepdims=0),
        helper.make_node("Reshape", ["c0", "shape"], ["c1"], "Reshape"),
        helper.make_node("Add", ["x7", "previous_mask"], ["x8"], "Add"),
        helper.make_node("Add", ["x8", "c1"], ["logits"], "Add_1"),
    ]
    return model(nodes, SPEC, weights)


def model(nodes: list[onnx.NodeProto], spec: GraphSpec, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A checked model of opset 18."""

    def values(tensors: tuple) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, list(t.shape)) for t in tensors]

    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "graph", values(spec.inputs), values(spec.outputs), initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(made)
    return made
