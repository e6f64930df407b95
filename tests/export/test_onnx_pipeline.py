"""ONNX export of an encode-once network in half precision with flips: two graphs, equal to torch."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from export_stand_ins import EncodeOnce, flipped_average, inputs

from clickmask_export import graph_lint
from clickmask_export.graphs import make_graphs
from clickmask_export.onnx_graph import OPSET, export_onnx, serialise


@pytest.fixture(scope="module")
def pipeline():
    graphs = make_graphs(EncodeOnce(), flip=True, precision="fp16")
    return [(graph, export_onnx(graph)) for graph in graphs]


@pytest.mark.parametrize("extents", [(1, 1, 64), (2, 4, 96), (3, 7, 160)])
def test_two_graphs_in_half_precision_equal_the_network_in_torch(pipeline, extents):
    image, clicks, mask = inputs(*extents)
    feeds = {"image": image.numpy(), "clicks": clicks.numpy(), "previous_mask": mask.numpy()}
    for graph, model in pipeline:
        wanted = [tensor.name for tensor in graph.spec.outputs]
        session = onnxruntime.InferenceSession(serialise(model), providers=["CPUExecutionProvider"])
        run = session.run(wanted, {tensor.name: feeds[tensor.name] for tensor in graph.spec.inputs})
        feeds |= dict(zip(wanted, run, strict=True))
    expected = flipped_average(EncodeOnce(), image, clicks, mask).numpy()
    np.testing.assert_allclose(feeds["logits"], expected, atol=0.05)
    assert feeds["logits"].dtype == np.float32
    assert np.abs(feeds["logits"] - expected).max() > 0  # it truly is half precision


def test_weights_are_half_precision(pipeline):
    for _, model in pipeline:
        kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}
        assert kinds == {onnx.TensorProto.FLOAT16}


def test_both_graphs_pass_the_checker_and_the_lint(pipeline):
    for graph, model in pipeline:
        onnx.checker.check_model(model, full_check=True)
        assert graph_lint.lint(model, graph.spec, OPSET, "fp16") == []


def test_features_carry_their_stride_in_the_shape(pipeline):
    for graph, model in pipeline:
        for values, specs in (
            (model.graph.input, graph.spec.inputs),
            (model.graph.output, graph.spec.outputs),
        ):
            shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values]
            assert shapes == [list(spec.shape) for spec in specs]


def test_the_same_network_gives_the_same_bytes(pipeline):
    again, _ = make_graphs(EncodeOnce(), flip=True, precision="fp16")
    assert serialise(export_onnx(again)) == serialise(pipeline[0][1])
