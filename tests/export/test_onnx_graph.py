"""ONNX export: dynamic, self-contained, named after the modules, and equal to torch in ONNX Runtime."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_stand_ins import EarlyFusion, flipped_average, inputs
from torch import nn

from clickmask.backends.shapes import named_extents
from clickmask.manifest import GraphSpec, TensorSpec
from clickmask_export import graph_lint
from clickmask_export.errors import BuildError
from clickmask_export.graphs import Graph, diffusion_graph, make_graphs
from clickmask_export.onnx_graph import OPSET, export_onnx, serialise
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_models.pixel_diffusion import PixelDiffusion, PixelDiffusionConfig

EXTENTS = [(1, 1, 64), (2, 4, 96), (3, 7, 160)]  # batch, clicks, size; one of them is the example's size


@pytest.fixture(scope="module")
def network_graph():
    """An early-fusion network with flips."""
    (graph,) = make_graphs(EarlyFusion(), flip=True, precision="fp32")
    return graph, export_onnx(graph)


@pytest.fixture(scope="module")
def diffusion():
    """The paper's ten stages of Pixel Diffusion."""
    graph = diffusion_graph(PixelDiffusion(PixelDiffusionConfig()))
    return graph, export_onnx(graph)


@pytest.fixture(scope="module")
def decoder():
    """What a click of an encode-once network costs."""
    config = EncodeOnceConfig(widths=(8, 12, 16, 20), click_widths=(4, 5, 6, 7))
    _, graph = make_graphs(EncodeOnceCDNet(config).eval(), flip=False, precision="fp32")
    return graph, export_onnx(graph)


@pytest.fixture(params=["network_graph", "diffusion"])
def exported(request):
    return request.getfixturevalue(request.param)


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(serialise(model), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("extents", EXTENTS)
def test_one_graph_equals_the_network_in_torch(network_graph, extents):
    image, clicks, mask = inputs(*extents)
    expected = flipped_average(EarlyFusion(), image, clicks, mask)
    feeds = {"image": image.numpy(), "clicks": clicks.numpy(), "previous_mask": mask.numpy()}
    (got,) = session(network_graph[1]).run(["logits"], feeds)
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("extents", EXTENTS)
def test_pixel_diffusion_equals_torch(diffusion, extents):
    image, clicks, _ = inputs(*extents)
    logits = flipped_average(EarlyFusion(), *inputs(*extents))
    feeds = {"image": image.numpy(), "clicks": clicks.numpy(), "logits": logits.numpy()}
    (got,) = session(diffusion[1]).run(["diffused_logits"], feeds)
    expected = PixelDiffusion(PixelDiffusionConfig())(logits, image, clicks)
    np.testing.assert_allclose(got, expected.numpy(), atol=2e-4)


def test_pixel_diffusion_is_ten_named_stages_of_four_dilated_convolutions(diffusion):
    _, model = diffusion
    stages = [
        n for n in model.graph.node if n.name.startswith("pixel_diffusion/stages.") and n.op_type == "Conv"
    ]
    dilations = {}
    for node in stages:
        stage = node.name.split("/")[1]
        attribute = next(a for a in node.attribute if a.name == "dilations")
        dilations.setdefault(stage, []).append(tuple(attribute.ints))
    assert list(dilations) == [f"stages.{i}" for i in range(10)]
    assert set(map(tuple, dilations.values())) == {((1, 1), (2, 2), (4, 4), (8, 8))}


def test_names_are_unique_and_tell_the_module(network_graph, diffusion):
    for _, model in (network_graph, diffusion):
        names = [node.name for node in model.graph.node]
        assert Counter(names).most_common(1)[0][1] == 1
    assert any(
        n.name.startswith("network/") and n.name.endswith("/Conv") for n in network_graph[1].graph.node
    )
    assert "pixel_diffusion/affinity/Exp" in names


def test_shapes_between_carry_the_same_symbols_or_are_left_out(network_graph):
    _, model = network_graph
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in model.graph.value_info
    }
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    symbols = {symbol for shape in shapes.values() for symbol in shape if isinstance(symbol, str)}
    assert {word for symbol in symbols for word in re.findall(r"[A-Za-z]\w*", symbol)} <= {"B", "M", "S"}
    assert {"B", "S"} <= symbols
    weights = {tensor.name for tensor in model.graph.initializer}
    assert not weights & shapes.keys()


def test_clicks_are_drawn_into_planes_of_a_stated_shape(network_graph):
    """Else ONNX Runtime would copy the planes first."""
    _, model = network_graph
    shapes = {value.name: str(value.type) for value in model.graph.value_info}
    drawn = [node for node in model.graph.node if node.op_type == "ScatterElements"]
    assert drawn
    assert all(shapes[node.input[0]] == shapes[node.output[0]] for node in drawn)


def test_every_sum_of_maps_in_a_decoder_states_one_shape(decoder):
    """Else ONNX Runtime would not compute it as part of the convolution before it (decision 0008)."""
    graph = decoder[1].graph
    shapes = {
        value.name: tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in graph.value_info
    }
    maps = {node.output[0] for node in graph.node if node.op_type in ("Conv", "Resize")}
    sums = [node for node in graph.node if node.op_type == "Add" and maps & set(node.input)]
    assert len(sums) == 3 + 1 + 3 * 2 + 1  # inverted residuals, blends, Feature Diffusion
    for node in sums:
        shape, *summands = (shapes.get(name, name) for name in (*node.output, *node.input))
        assert summands == [shape, shape]
        assert isinstance(shape[1], int)
    stated = {name for node in graph.node if node.op_type == "Conv" for name in node.output}
    assert stated <= shapes.keys()


def test_one_image_of_a_size_leaves_only_the_number_of_clicks_open(decoder, tmp_path):
    """So that ONNX Runtime adds in place and works out no shape but that at each click (decision 0029)."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    for name, extent in named_extents(decoder[0].spec, {"B": 1, "S": 96}).items():
        options.add_free_dimension_override_by_name(name, extent)
    onnxruntime.InferenceSession(serialise(decoder[1]), options, providers=["CPUExecutionProvider"])

    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    asked = [(node.input[0], node.attribute) for node in nodes if node.op_type == "Shape"]
    assert [name for name, _ in asked] == ["clicks"]
    assert {attribute.name: attribute.i for attribute in asked[0][1]} == {"start": 1, "end": 2}


def test_shapes_carry_the_symbols_of_the_manifest(exported):
    graph, model = exported
    for values, specs in ((model.graph.input, graph.spec.inputs), (model.graph.output, graph.spec.outputs)):
        shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values]
        assert shapes == [list(spec.shape) for spec in specs]


def test_the_export_passes_the_checker_and_the_lint(exported):
    graph, model = exported
    onnx.checker.check_model(model, full_check=True)
    assert graph_lint.lint(model, graph.spec, OPSET, "fp32") == []


def test_nothing_of_the_build_machine_is_left(exported):
    data = serialise(exported[1])
    for trace in (b"/site-packages", b"export_stand_ins", b"stack_trace", b"File "):
        assert trace not in data
    assert not any(node.metadata_props or node.doc_string for node in exported[1].graph.node)


class Doubled(nn.Module):
    def forward(self, image):
        return torch.cat(list((torch.cat([image, image]) * 2).chunk(2)), dim=1)[:, :3]


class AsksForTheBatch(nn.Module):
    def forward(self, image):
        return image + 1 if image.shape[0] == 2 else image


@pytest.mark.parametrize("module", [AsksForTheBatch(), Doubled()])
def test_a_module_that_fixes_the_batch_is_refused_not_exported_for_two(module):
    spec = GraphSpec(
        (TensorSpec("image", "float32", ("B", 3, "S", "S")),),
        (TensorSpec("logits", "float32", ("B", 3, "S", "S")),),
    )
    with pytest.raises(BuildError, match="torch cannot export the network to ONNX"):
        export_onnx(Graph("network", module.eval(), spec))


def test_a_missing_package_is_no_failure_of_the_export(network_graph, monkeypatch):
    def missing(*_, **__):
        raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")

    monkeypatch.setattr(torch.onnx, "export", missing)
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: None)
    with pytest.raises(ModuleNotFoundError, match="onnxscript"):
        export_onnx(network_graph[0])


def test_an_epsilon_lost_in_export_is_caught_by_the_lint(network_graph):
    class LosesEpsilon(nn.Module):
        def forward(self, image):
            deviation = image.var(dim=1, keepdim=True, unbiased=False).sqrt()
            return image[:, :1] / (deviation + 1e-8)

    spec = replace(network_graph[0].spec, inputs=network_graph[0].spec.inputs[:1])
    model = export_onnx(Graph("network", LosesEpsilon(), spec))
    assert [f.rule for f in graph_lint.lint(model, spec, OPSET, "fp32")] == ["unguarded division"]
    flat = {"image": np.full((1, 3, 64, 64), 0.5, np.float32)}
    assert (
        np.isnan(session(model).run(None, flat)[0]).any() or np.isinf(session(model).run(None, flat)[0]).any()
    )
