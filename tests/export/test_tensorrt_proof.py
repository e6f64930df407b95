"""The precision of a built engine is proven, or the build fails."""

from __future__ import annotations

import json

import pytest
from small_graphs import network

from clickmask_export.errors import LintError, VerificationError
from clickmask_export.precision_policy import NodePrecision, islands, node_precisions
from clickmask_export.tensorrt_proof import Proof, half_share, prove, read_layers

NODES = {
    "stem/Conv": NodePrecision("fp16", None, True),
    "stem/Relu": NodePrecision("fp16", None, False),
    "head/Conv": NodePrecision("fp16", None, True),
    "feature_diffusion/MatMul": NodePrecision("fp32", "feature_diffusion", True),
    "click/Sub": NodePrecision("fp32", "click_maps", False),
}


def layer(name, *said, metadata="", kind="CaskConvolution", key="Datatype", **more):
    tensors = [{"Name": "t", "Dimensions": [1, 8], key: text} for text in said]
    return {"Name": name, "LayerType": kind, "Inputs": tensors[:1], "Outputs": tensors[1:]} | {
        "Metadata": metadata,
        **more,
    }


def proven(*layers, precision="fp16", nodes=NODES):
    text = json.dumps({"Layers": list(layers), "I/O Tensors": []})
    return prove(read_layers(text, nodes), nodes, precision, "decoder")


GOOD = (
    layer("stem/Conv + stem/Relu", "Half", "Half"),
    layer("__myl_Conv_1", "Half", "Float", metadata="[ONNX Layer: head/Conv]"),
    layer("__myl_2", "Float", "Float", metadata="[ONNX Layer: feature_diffusion/MatMul]\x1e[ONNX Layer: x]"),
    layer("click/Sub", "Float", "Float"),
)


def test_an_engine_of_tensorrt_11_is_proven_half_with_its_islands_named():
    proof = proven(*GOOD)
    assert (proof.layers, proof.half) == (4, 2)
    assert proof.fp32_layers == {"click_maps": ("click/Sub",), "feature_diffusion": ("__myl_2",)}


@pytest.mark.parametrize(
    "said", ["Row major linear FP16 format", "Channel major FP16 format where channel % 8 == 0", "Half"]
)
def test_an_engine_of_tensorrt_10_says_it_in_other_words(said):
    old = {"key": "Format/Datatype"}
    layers = [layer("stem/Conv + stem/Relu", said, said, **old), layer("head/Conv", said, said, **old)]
    proof = proven(*layers, layer("click/Sub", "Row major linear FP32", "Float", **old))
    assert (proof.layers, proof.half) == (3, 2)
    assert proof.fp32_layers == {"click_maps": ("click/Sub",)}


def test_the_types_of_weights_tell_where_shapes_are_dynamic():
    open_ = "N/A due to dynamic shapes"
    layers = [
        layer(name, open_, open_, key="Format/Datatype", Weights={"Type": "Half", "Count": 9})
        for name in ("stem/Conv", "head/Conv")
    ]
    assert proven(*layers, layer("Add", open_, open_, key="Format/Datatype")).half == 2


def test_layers_that_only_copy_do_not_count():
    idle = [
        layer("copy", "Float", "Float", kind=kind) for kind in ("Reformat", "NoOp", "Constant", "shape_call")
    ]
    assert proven(*GOOD, *idle) == proven(*GOOD)


def test_single_precision_that_nobody_asked_for_is_a_failed_build():
    """What a TensorRT 10 builder gives for a half-precision graph whose flag was forgotten."""
    with pytest.raises(
        VerificationError, match=r"fp16 was asked for and not got: 1 of 2 .* such as head/Conv"
    ):
        proven(GOOD[0], layer("head/Conv", "Float", "Float"))


def test_one_of_several_tactics_in_single_precision_is_none_of_all_in_it():
    """A convolution may be split over layers; one of them in half is enough."""
    assert proven(*GOOD, layer("head/Conv", "Float", "Float")).half == 2


def test_what_cannot_be_found_is_not_proven():
    with pytest.raises(VerificationError, match=r"shows 1 of 2 .* at least 90% are needed"):
        proven(GOOD[0], layer("__myl_7", "Half", "Half"))


def test_an_engine_whose_types_are_all_open_is_not_proven():
    open_ = "N/A due to dynamic shapes"
    with pytest.raises(VerificationError, match="tells the type of none of the 1 layers of the decoder"):
        proven(layer("stem/Conv", open_, open_, key="Format/Datatype"))


@pytest.mark.parametrize("text", ["", "null", "{}", '{"Layers": 3}', None])
def test_no_json_of_an_inspector(text):
    with pytest.raises(VerificationError, match="expected JSON with 'Layers'"):
        read_layers(text, NODES)


def test_names_alone_are_no_proof():
    with pytest.raises(VerificationError, match="without detailed profiling verbosity"):
        read_layers(json.dumps({"Layers": ["stem/Conv + stem/Relu"], "Bindings": ["image"]}), NODES)


def test_float32_promises_nothing_and_int8_its_convolutions():
    assert proven(layer("stem/Conv", "Float", "Float"), precision="fp32").half == 0
    nodes = {name: NodePrecision("int8", None, True) for name in ("a/Conv", "b/Conv")}
    wide = "Thirty-two wide channel vectorized row major Int8 format"
    good = [layer(name, wide, "Float", key="Format/Datatype") for name in nodes]
    assert proven(*good, precision="int8", nodes=nodes).layers == 2
    with pytest.raises(VerificationError, match="int8 was asked for and not got"):
        proven(good[0], layer("b/Conv", "Half", "Half"), precision="int8", nodes=nodes)


def test_the_share_is_of_all_graphs_and_long_names_are_cut():
    assert half_share([Proof(3, 2, {}), Proof(1, 1, {})]) == 0.75
    assert half_share([]) == 0
    nodes = {f"click/{number}": NodePrecision("fp32", "click_maps", False) for number in range(300)}
    layers = [layer(f"{name} + \x1f{'x' * 600}", "Float", "Float") for name in nodes]
    names = proven(*layers, precision="fp32", nodes=nodes).fp32_layers["click_maps"]
    assert len(names) == 200
    assert all(len(name) <= 200 and name.isprintable() for name in names)


def test_each_float32_node_of_a_half_graph_has_its_reason():
    nodes = node_precisions(network(), "network", "fp16")
    assert {name: (node.dtype, node.policy) for name, node in nodes.items()} == {
        "Cast": ("fp16", None),
        "stem/Conv": ("fp16", None),
        "stem/Relu": ("fp16", None),
        "head/Conv": ("fp16", None),
        "Cast_1": ("fp32", "inputs_and_outputs"),
        "feature_diffusion/MatMul": ("fp32", "feature_diffusion"),
        "feature_diffusion/Softmax": ("fp32", "feature_diffusion"),
        "feature_diffusion/Add": ("fp32", "feature_diffusion"),
        "ReduceMean": ("fp32", "click_maps"),
        "Reshape": ("fp32", "click_maps"),
        "Add": ("fp32", "inputs_and_outputs"),
        "Add_1": ("fp32", "inputs_and_outputs"),
    }
    assert {name for name, node in nodes.items() if node.heavy} == {
        "stem/Conv",
        "head/Conv",
        "feature_diffusion/MatMul",
    }


@pytest.mark.parametrize(
    ("scope", "policy"),
    [
        ("sgm/heads.0", "sparse_propagation"),
        ("hsgm/attention", "sparse_propagation"),
        ("ocr", "object_context"),
    ],
)
def test_softmaxes_of_csfp_and_hrnet_are_islands_with_a_name(scope, policy):
    model = network()
    for node in model.graph.node:
        node.name = node.name.replace("feature_diffusion", scope)
    nodes = node_precisions(model, "network", "fp16")
    assert {nodes[f"{scope}/{kind}"].policy for kind in ("MatMul", "Softmax")} == {policy}


def test_the_islands_are_known_before_anything_is_half():
    assert islands(network(half=False), "network") == {
        "feature_diffusion/MatMul",
        "feature_diffusion/Softmax",
        "feature_diffusion/Add",
        "ReduceMean",
        "Reshape",
    }
    everything = {node.name for node in network(half=False).graph.node}
    assert islands(network(half=False), "pixel_diffusion") == everything


def test_pixel_diffusion_is_float32_by_policy_as_a_whole():
    nodes = node_precisions(network(half=False), "pixel_diffusion", "fp16")
    assert {node.policy for node in nodes.values()} == {"pixel_diffusion"}


def test_a_convolution_that_stayed_float32_in_a_half_body_is_refused():
    model = network(half=False)
    with pytest.raises(LintError, match=r"stem/Conv of the network computes in float32 although fp16"):
        node_precisions(model, "network", "fp16")
    assert {node.policy for node in node_precisions(model, "network", "fp32").values()} == {None}
