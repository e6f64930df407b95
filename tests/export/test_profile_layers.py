"""The profiler's layers: whose they are, of which artefact, and on which device."""

from __future__ import annotations

import json
import sys
import types
from contextlib import contextmanager, nullcontext

import pytest
from builder_double import fake_tensorrt
from slow_subject import slow_subject

from clickmask.engine_facts import EngineProfile
from clickmask.errors import BackendError
from clickmask.manifest import GraphSpec
from clickmask.manifest_graphs import TENSORS
from clickmask_export.profiling import layers, tensorrt_layers
from clickmask_export.profiling.layers import by_module, inputs_of, module_of
from clickmask_export.profiling.subject import synchroniser
from clickmask_export.profiling.tensorrt_layers import origins


def test_nodes_go_to_the_module_that_their_name_begins_with():
    assert module_of("network.decoder/refine.0/Conv_1") == "network.decoder/refine.0"
    assert module_of("network.a/Conv + network.b/Relu") == "network.a"
    rows = by_module({"a": 1.0, "b": 2.0, "c": 5.0}, {"a": "x", "b": "x", "c": "y"})
    assert [(row["module"], row["ms"], row["nodes"]) for row in rows] == [("y", 5.0, 1), ("x", 3.0, 2)]
    assert [row["share"] for row in rows] == pytest.approx([5 / 8, 3 / 8])


def test_layers_are_those_of_the_artefact_that_runs(monkeypatch, tmp_path):
    subject = slow_subject()
    backend = subject.segmenter.backend
    assert "unavailable" in layers.measure_layers(subject, 64, 1)  # of no bundle
    seen = []
    monkeypatch.setattr(layers, "_onnxruntime", lambda _, artefact, *_rest: seen.append(artefact) or {})
    backend.name, backend.artefact = "onnxruntime", "the second of two"
    object.__setattr__(subject.segmenter.bundle, "path", tmp_path)
    layers.measure_layers(subject, 64, 1)
    subject.segmenter.close()
    assert seen == ["the second of two"]


def test_layers_are_profiled_with_clicks_that_could_be():
    ours = GraphSpec((TENSORS["clicks"], TENSORS["clicks_by_label"]), (TENSORS["logits"],))
    for most_clicks in (2, 16):
        made = inputs_of(ours, 64, most_clicks)
        given = min(4, most_clicks)
        labels = made["clicks"][0, :, 2]
        assert sorted(labels[labels >= 0]) == sorted([0.0, 1.0] * (given // 2))
        positive, negative = made["clicks_by_label"][0, :, :, 2]
        assert (positive.tolist(), negative.tolist()) == ([1.0] * (given // 2), [0.0] * (given // 2))


def test_the_engine_inspector_tells_where_layers_came_from():
    """As TensorRT writes it: detailed layers, and one of which only the name is told."""
    detailed = {
        "Name": "__myl_Conv",
        "Metadata": "[ONNX Layer: network.a/Conv]\x1e[ONNX Layer: network.b/Relu]",
    }
    other = {"Name": "Reformat", "Metadata": ""}
    found = origins(json.dumps({"Layers": [detailed, other, "__myl_Fc"], "Bindings": []}))
    assert found == {"__myl_Conv": "network.a/Conv"}
    assert module_of(found["__myl_Conv"]) == "network.a"


def test_an_engine_that_does_not_load_is_told_in_tensorrts_words(monkeypatch):
    trt = fake_tensorrt()

    allowed = []

    def refuse(runtime, _):
        allowed.append(getattr(runtime, "engine_host_code_allowed", False))
        runtime.logger.log(trt.ILogger.Severity.ERROR, "the plan is of another version")

    monkeypatch.setattr("clickmask.backends.tensorrt_engine._loggers", {})
    monkeypatch.setattr(trt.Runtime, "__init__", lambda runtime, logger: setattr(runtime, "logger", logger))
    monkeypatch.setattr(trt.Runtime, "deserialize_cuda_engine", refuse)
    monkeypatch.setattr(tensorrt_layers, "import_tensorrt", lambda _: trt)
    monkeypatch.setattr(tensorrt_layers, "CudaRuntime", lambda _: types.SimpleNamespace(current=nullcontext))
    bundle = types.SimpleNamespace(read=lambda _: b"plan")
    artefact = types.SimpleNamespace(
        engine=types.SimpleNamespace(profiles=[EngineProfile(64, 1, 1, 1)], lean_runtime_inside=True),
        files={"decoder": None},
    )
    with pytest.raises(BackendError, match="the plan is of another version"):
        tensorrt_layers.profile_engines(bundle, artefact, ["decoder"], 64, 1, 0, trust_host_code=True)
    assert allowed == [True]
    artefact.engine.lean_runtime_inside = False
    with pytest.raises(BackendError, match="the plan is of another version"):
        tensorrt_layers.profile_engines(bundle, artefact, ["decoder"], 64, 1, 0, trust_host_code=True)
    assert allowed == [True, False]


def test_stages_wait_for_the_device_that_the_backend_is_on(monkeypatch):
    seen = []

    class Cuda:
        cudart = types.SimpleNamespace(cudaDeviceSynchronize="cudaDeviceSynchronize")

        def __init__(self, index):
            self.index = index

        @contextmanager
        def current(self):
            seen.append(self.index)
            yield

        def call(self, function):
            seen.append(function)

    monkeypatch.setattr("clickmask_export.profiling.subject.CudaRuntime", Cuda)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert synchroniser("cpu") is None
    synchroniser("cuda:1")()
    assert seen == [1, "cudaDeviceSynchronize"]
