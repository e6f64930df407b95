"""The published CDNet, narrow and on a small backbone, through the real exporter: equal to torch."""

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
from clickmask_models.cdnet import CDNet
from clickmask_models.pixel_diffusion import PixelDiffusion
from clickmask_models.presets import preset

SMALL = {"backbone": "resnet18", "channels": 16}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "flip"), [("paper", True), ("official", False)])
def test_a_published_network_in_onnx_equals_torch(name, flip):
    config = replace(preset(name), **SMALL)
    torch.manual_seed(0)
    network = CDNet(config).eval()
    # Two steps: that all of them are exported is for test_onnx_graph.
    diffusion = PixelDiffusion(replace(config.pixel_diffusion, iterations=2))
    (graph,) = make_graphs(network, diffusion, flip=flip, precision="fp32")
    model = export_onnx(graph)
    assert graph_lint.lint(model, graph.spec, OPSET, "fp32") == []
    session = onnxruntime.InferenceSession(serialise(model), providers=["CPUExecutionProvider"])
    for batch, clicks, size in ((1, 4, 64), (2, 3, 96)):
        image, rows, _ = inputs(batch, clicks, size)
        with torch.no_grad():
            raw = flipped_average(network, image, rows, None) if flip else network(image, rows)
            expected = diffusion(raw, image, rows).numpy()
        (got,) = session.run(["logits"], {"image": image.numpy(), "clicks": rows.numpy()})
        # A pixel on one of the official form's steps may land on its other side: nearly all, not all.
        close = np.isclose(got, expected, atol=1e-3) | (np.abs(expected) > 6)
        assert close.mean() > 0.999
