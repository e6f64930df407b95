"""The published networks, narrow and on small backbones, through the real exporter: equal to torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from export_stand_ins import flipped_average, inputs

from clickmask_export import graph_lint
from clickmask_export.graphs import make_graphs
from clickmask_export.onnx_graph import OPSET, export_onnx, serialise
from clickmask_export.precision_policy import node_precisions
from clickmask_models.cdnet import CDNet
from clickmask_models.csfp import CSFP
from clickmask_models.presets import preset

SMALL = {"backbone": "resnet18", "channels": 16}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "flip"), [("paper", True), ("official", False)])
def test_a_published_network_in_onnx_equals_torch(name, flip):
    config = replace(preset(name), **SMALL)
    torch.manual_seed(0)
    network = CDNet(config).eval()
    (graph,) = make_graphs(network, flip=flip, precision="fp32")
    model = export_onnx(graph)
    assert graph_lint.lint(model, graph.spec, OPSET, "fp32") == []
    session = onnxruntime.InferenceSession(serialise(model), providers=["CPUExecutionProvider"])
    for batch, clicks, size in ((1, 4, 64), (2, 3, 96)):
        image, rows, _ = inputs(batch, clicks, size)
        with torch.no_grad():
            expected = flipped_average(network, image, rows, None) if flip else network(image, rows)
        (got,) = session.run(["logits"], {"image": image.numpy(), "clicks": rows.numpy()})
        # A cell at the step of the official form (D > 0.8) may land on its other side: nearly all, not all.
        assert np.isclose(got, expected.numpy(), atol=1e-3).mean() > 0.999


@pytest.mark.slow
def test_csfp_in_half_precision_is_near_torch_in_float32():
    """OCR's and the propagation's softmaxes stay float32; the lint proves that the body is half."""
    torch.manual_seed(0)
    network = CSFP(replace(preset("csfp_official"), backbone="hrnet18s", channels=8)).eval()
    torch.nn.init.normal_(network.ocr.cls_head.weight, std=2)
    for gamma in (network.hsgm.attention.gamma, *(head.gamma for head in network.sgm.heads)):
        torch.nn.init.ones_(gamma)  # 0 in a new network: nothing would be propagated
    (graph,) = make_graphs(network, flip=False, precision="fp16")
    model = export_onnx(graph)
    assert graph_lint.lint(model, graph.spec, OPSET, "fp16") == []
    policies = {node.policy for node in node_precisions(model, graph.name, "fp16").values() if node.heavy}
    assert policies == {None, "sparse_propagation", "object_context"}  # what a TensorRT build is held to
    session = onnxruntime.InferenceSession(serialise(model), providers=["CPUExecutionProvider"])
    image, rows, mask = inputs(1, 4, 96)
    with torch.no_grad():
        expected = network(image, rows, mask).numpy()
    feeds = {"image": image.numpy(), "clicks": rows.numpy(), "previous_mask": mask.numpy()}
    (got,) = session.run(["logits"], feeds)
    assert 0 < np.abs(got - expected).max() < 0.02 * expected.std() + 1e-3
