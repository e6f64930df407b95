"""Where two graphs part, and which node a mask is lost at."""

from __future__ import annotations

import ast
import runpy
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_graphs import SPEC, model, network

from clickmask_export.bisect import (
    departures,
    first_guilty,
    float_nodes,
    mask_iou,
    relative_error,
    run,
    with_half,
)
from clickmask_export.polygraphy_script import polygraphy_script
from clickmask_export.tensorrt_build import profile_shapes
from clickmask_export.tensorrt_options import PlanOptions


@pytest.fixture
def feeds():
    rng = np.random.default_rng(0)
    return {
        "image": rng.random((1, 3, 32, 32), np.float32),
        "clicks": np.float32([[[3, 4, 1]]]),
        "previous_mask": np.zeros((1, 1, 32, 32), np.float32),
    }


def chain():
    """A node that half precision overflows in the middle of ones that it does not."""
    weights = {"big": np.float32([1e6]), "small": np.float32([1e-6]), "one": np.float32([1])}
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["m"], "mean", axes=None, keepdims=1),
        helper.make_node("Mul", ["previous_mask", "one"], ["a"], "first"),
        helper.make_node("Add", ["a", "m"], ["b"], "second"),
        helper.make_node("Mul", ["b", "big"], ["c"], "overflows"),
        helper.make_node("Mul", ["c", "small"], ["d"], "back"),
        helper.make_node("Sub", ["d", "one"], ["logits"], "last"),
    ]
    return model(nodes, SPEC, weights)


def test_the_node_that_half_precision_cannot_hold_is_named(feeds):
    feeds["previous_mask"] = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(1, 1, 32, 32)
    graph = chain()
    right = run(graph.SerializeToString(), feeds)["logits"]
    assert 0.1 < (right > 0).mean() < 0.9
    tried = []

    def is_bad(names):
        tried.append(len(names))
        return mask_iou(right, run(with_half(graph, names).SerializeToString(), feeds)["logits"]) < 0.99

    assert first_guilty(float_nodes(graph), is_bad) == "overflows"
    assert len(tried) <= 4  # six nodes, halved
    found = {
        entry.node: entry.error for entry in departures(graph, with_half(graph, float_nodes(graph)), feeds)
    }
    assert found["second"] < 1e-3
    assert found["overflows"] == np.inf
    assert list(found) == float_nodes(graph)


def test_rounding_leaves_the_nodes_that_are_not_named(feeds):
    graph = network(half=False)
    exact = run(graph.SerializeToString(), feeds)["logits"]
    assert np.array_equal(run(with_half(graph, []).SerializeToString(), feeds)["logits"], exact)
    rounded = with_half(graph, ["stem/Conv"])
    onnx.checker.check_model(rounded)
    found = {entry.node: entry.error for entry in departures(graph, rounded, feeds)}
    assert found["Cast"] == 0
    assert 1e-5 < found["stem/Conv"] < 2e-3
    assert found["ReduceMean"] == 0


def test_a_real_half_precision_graph_is_close_to_what_rounding_foretells(feeds):
    """``with_half`` stands for a half-precision engine: it must make errors of that size."""
    exact, half = network(half=False), network(half=True)
    right = run(exact.SerializeToString(), feeds)["logits"]
    body = ["Cast", "stem/Conv", "stem/Relu", "head/Conv"]
    foretold = relative_error(right, run(with_half(exact, body).SerializeToString(), feeds)["logits"])
    real = relative_error(right, run(half.SerializeToString(), feeds)["logits"])
    assert 0.2 < foretold / real < 5


def test_nobody_is_guilty_of_a_mask_that_is_right():
    assert first_guilty(["a", "b"], lambda _: False) is None
    assert first_guilty(["a"], lambda _: True) == "a"


def test_masks_and_errors():
    right = np.float32([[1, 1, -1, -1]])
    assert mask_iou(right, np.float32([[1, -1, -1, -1]])) == 0.5
    assert mask_iou(right, np.float32([[1, np.nan, -1, -1]])) == 0
    assert mask_iou(-np.ones((1, 4)), -np.ones((1, 4))) == 1
    assert relative_error(right, right) == 0
    assert relative_error(right, 1.5 * right) == pytest.approx(0.5)
    assert relative_error(right, np.float32([[1, np.inf, -1, -1]])) == np.inf
    assert relative_error(right, right[:, :2]) == np.inf
    infinite = np.float32([[np.inf, 1]])
    assert relative_error(infinite, infinite) == 0


def test_integer_nodes_are_left_alone():
    nodes = [
        helper.make_node("Shape", ["image"], ["s"], "shape"),
        helper.make_node("Cast", ["s"], ["f"], "cast", to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f"], ["r"], "sum", keepdims=0),
        helper.make_node("Add", ["previous_mask", "r"], ["logits"], "last"),
    ]
    assert float_nodes(model(nodes, SPEC, {})) == ["cast", "sum", "last"]


def script():
    (profile,) = PlanOptions(max_batch=2).profiles([64])
    shapes = {tensor.name: profile_shapes(tensor, profile, 16) for tensor in SPEC.inputs}
    return polygraphy_script("network", SPEC, "a 'b'.onnx", ["x.npz"], [shapes], limit=0.5)


def test_the_polygraphy_script_has_the_graphs_profiles_and_no_precision_flag():
    tree = ast.parse(script())
    values = {
        ast.unparse(node.targets[0]): ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper()
    }
    assert values["MODEL"] == "a 'b'.onnx"
    assert values["MASKS"] == ["logits"]
    assert values["PROFILES"][0]["clicks"] == ((1, 1, 3), (1, 8, 3), (2, 16, 3))
    assert "fp16" not in script()


@pytest.mark.parametrize(
    ("ours", "status"),
    [([1, 1, -1], 0), ([1, 1, 0.4], 0), ([1, 0.4, -1], 1), ([1, 1, np.nan], 1), ([-1, -1, -1], 1)],
)
def test_the_polygraphy_script_ends_with_what_it_found(monkeypatch, tmp_path, ours, status):
    assert status_of_script(monkeypatch, tmp_path, [1, 1, -1], ours) == status


def test_two_empty_masks_are_the_same(monkeypatch, tmp_path):
    assert status_of_script(monkeypatch, tmp_path, [-1, -1], [-2, -2]) == 0


def status_of_script(monkeypatch, tmp_path, right, ours):
    """The exit status where the two runtimes give these logits; nothing of Polygraphy runs."""
    results = {"onnxrt": [{"logits": np.float32(right)}], "trt": [{"logits": np.float32(ours)}]}
    comparator = SimpleNamespace(
        run=lambda runners, data_loader: results,  # noqa: ARG005 - the real one's arguments
        validate=lambda *_, **__: bool(np.isfinite(ours).all()),
    )
    names = {
        "backend.onnxrt": ("OnnxrtRunner", "SessionFromOnnx"),
        "backend.trt": ("CreateConfig", "EngineFromNetwork", "NetworkFromOnnxPath", "Profile", "TrtRunner"),
    }
    for module, members in names.items():
        monkeypatch.setitem(sys.modules, f"polygraphy.{module}", MagicMock(spec=members))
    monkeypatch.setitem(sys.modules, "polygraphy", MagicMock())
    monkeypatch.setitem(sys.modules, "polygraphy.backend", MagicMock())
    monkeypatch.setitem(sys.modules, "polygraphy.comparator", SimpleNamespace(Comparator=comparator))
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", logits=right)
    (tmp_path / "script.py").write_text(script())
    with pytest.raises(SystemExit) as caught:
        runpy.run_path("script.py")
    return int(caught.value.code)


def test_the_polygraphy_script_uses_what_polygraphy_has():
    pytest.importorskip("polygraphy", reason="needs polygraphy (extra debug)")
    import importlib
    import inspect

    tree, known = ast.parse(script()), {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            known |= {alias.name: getattr(module, alias.name) for alias in node.names}
    assert len(known) == 8
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        function = known.get(name)
        if name in ("Comparator.run", "Comparator.validate"):
            function = getattr(known["Comparator"], name.split(".")[1])
        if name == "profile.add":
            function = known["Profile"].add
        if function is not None:
            arguments = [None] * (len(call.args) + (name == "profile.add"))
            # CreateConfig passes keywords on, so that its signature alone would take anything
            inspect.signature(function).bind(*arguments, **dict.fromkeys(k.arg for k in call.keywords))
            if name == "CreateConfig":
                assert "profiles" in inspect.getsource(function.__mro__[1])
