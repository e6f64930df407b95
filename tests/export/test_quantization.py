"""INT8: what is quantised, in which form for which runtime, and that masks decide."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
from export_stand_ins import EarlyFusion
from onnx import TensorProto, helper, numpy_helper
from small_graphs import network
from test_build import recipe
from test_calibration import SPEC, photos, write

from clickmask.bundle import load_bundle
from clickmask.manifest import Parity
from clickmask_export import build as steps
from clickmask_export import int8_gate, quantization
from clickmask_export.build import Request, build
from clickmask_export.calibration import Calibration, held_cases
from clickmask_export.errors import VerificationError
from clickmask_export.int8_gate import Agreement, compare_graphs, compare_int8
from clickmask_export.onnx_runs import run_session, session_of
from clickmask_export.progress import Progress
from clickmask_export.quantization import (
    Quantiser,
    calibration_feeds,
    quantised,
    quantised_layers,
    without_lone,
)


@pytest.fixture(scope="module")
def model():
    return network(half=False).SerializeToString()


@pytest.fixture(scope="module")
def feeds(model):
    return calibration_feeds({"network": model}, SPEC, photos(4))["network"]


@pytest.fixture
def quantiser(model, feeds, tmp_path):
    return lambda form="onnxruntime": Quantiser(model, feeds, form, tmp_path / f"{form}.json")


def test_the_graph_is_fed_as_in_a_session(feeds):
    assert len(feeds) == 4 * 3
    assert [feed["image"].shape[-1] for feed in feeds[::3]] == [64, 96, 64, 96]  # the sizes in turn
    for first, second, third in zip(feeds[::3], feeds[1::3], feeds[2::3], strict=True):
        assert [int((feed["clicks"][..., 2] >= 0).sum()) for feed in (first, second, third)] == [1, 2, 3]
        assert not first["previous_mask"].any()
        assert 0 < second["previous_mask"].mean() < 1
        assert not np.array_equal(second["previous_mask"], third["previous_mask"])


@pytest.mark.parametrize("form", ["onnxruntime", "tensorrt"])
def test_convolutions_are_quantised_and_the_islands_are_not(quantiser, model, form):
    made = onnx.load_model_from_string(quantiser(form).quantise(["stem/Conv", "head/Conv"]))
    onnx.checker.check_model(made)
    assert quantised_layers(made) == ["stem/Conv", "head/Conv"]
    before = onnx.load_model_from_string(model).graph
    assert [v.name for v in made.graph.input] == [v.name for v in before.input]
    assert [v.name for v in made.graph.output] == [v.name for v in before.output]
    produced = {name: node for node in made.graph.node for name in node.output}
    for node in made.graph.node:
        if node.name.startswith("feature_diffusion/") and node.op_type != "Add":
            kinds = {produced[name].op_type for name in node.input if name in produced}
            assert "DequantizeLinear" not in kinds, node.name


def zero_points_and_biases(made):
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    produced = {name: node for node in made.graph.node for name in node.output}
    convs = [node for node in made.graph.node if node.op_type == "Conv"]
    scales = [constants[produced[node.input[1]].input[1]] for node in convs]
    points = [constants[produced[node.input[0]].input[2]] for node in convs]
    biases = [
        constants[produced[n.input[2]].input[0]] if n.input[2] in produced else constants[n.input[2]]
        for n in convs
    ]
    return scales, points, biases


def test_each_runtime_gets_its_form(quantiser):
    names = ["stem/Conv", "head/Conv"]
    scales, points, biases = zero_points_and_biases(onnx.load_model_from_string(quantiser().quantise(names)))
    assert [scale.shape for scale in scales] == [(4,), (1,)]  # one for each output channel
    assert {point.dtype.name for point in points} == {"uint8"}
    assert {bias.dtype.name for bias in biases} == {"int32"}
    made = onnx.load_model_from_string(quantiser("tensorrt").quantise(names))
    scales, points, biases = zero_points_and_biases(made)
    assert [scale.shape for scale in scales] == [(4,), (1,)]
    assert {(point.dtype.name, int(point)) for point in points} == {("int8", 0)}
    assert {bias.dtype.name for bias in biases} == {"float32"}


def test_a_relu_after_a_convolution_is_rounded_once(quantiser):
    """Twice, once before it with a range that holds the negative half too, costs a bit of what is kept."""
    made = onnx.load_model_from_string(quantiser().quantise(["stem/Conv", "head/Conv"])).graph
    consumers = {name: node for node in made.node for name in node.input}
    produced = {name: node for node in made.node for name in node.output}
    stem, head = (
        next(node for node in made.node if node.name == f"{name}/Conv") for name in ("stem", "head")
    )
    assert consumers[stem.output[0]].op_type == "QuantizeLinear"
    assert "Relu" not in {node.op_type for node in made.node}
    rounded = produced[produced[head.input[0]].input[0]]
    assert produced[rounded.input[0]].name == "stem/Conv"
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.initializer}
    assert constants[rounded.input[2]] == 0  # nothing below zero is kept
    # TensorRT fuses a ReLU itself, and convolutions if their inputs alone are quantised.
    made = onnx.load_model_from_string(quantiser("tensorrt").quantise(["stem/Conv", "head/Conv"])).graph
    consumers = {name: node.op_type for node in made.node for name in node.input}
    assert [consumers[f"x{i}"] for i in (1, 2)] == ["Relu", "QuantizeLinear"]


def test_weights_overflow_16_bits_on_no_processor(quantiser):
    """x86 without VNNI adds two products of uint8 and int8 in int16."""
    for form, most in (("onnxruntime", 64), ("tensorrt", 127)):
        made = onnx.load_model_from_string(quantiser(form).quantise(["stem/Conv", "head/Conv"])).graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.initializer}
        produced = {name: node for node in made.node for name in node.output}
        weights = [
            constants[produced[node.input[1]].input[0]] for node in made.node if node.op_type == "Conv"
        ]
        assert {int(np.abs(weight).max()) for weight in weights} <= {most, most - 1}


BOUNDS = [(0.0, 6.0, True), (None, 6.0, True), (-1.0, 1.0, True), (0.3, 6.0, False), (-6.0, -0.2, False)]


def clipped(low, high, outputs=("y",)):
    """A convolution, a Clip and a convolution; what lies between them may be an output, too."""
    rng = np.random.default_rng(2)
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.5, (3, 3, 1, 1)).astype(np.float32), f"w{i}") for i in (1, 2)
    ]
    bounds = ["" if value is None else name for name, value in (("low", low), ("high", high))]
    weights += [
        numpy_helper.from_array(np.float32(value), name)
        for name, value in zip(bounds, (low, high), strict=True)
        if name
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], "first"),
        helper.make_node("Clip", ["a", *bounds], ["b"], "clip"),
        helper.make_node("Conv", ["b", "w2"], ["y"], "second"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 3, "S", "S"])
        for name in ("image", *outputs)
    ]
    graph = helper.make_graph(nodes, "clipped", ends[:1], ends[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(made)
    return made


@pytest.mark.parametrize(("low", "high", "goes"), BOUNDS)
@pytest.mark.parametrize("outputs", [("y",), ("a", "y")])
def test_an_activation_goes_only_where_a_range_does_the_same(low, high, goes, outputs, tmp_path):
    model = clipped(low, high, outputs).SerializeToString()
    feeds = [{"image": np.random.default_rng(i).normal(0, 1, (1, 3, 8, 8)).astype("f4")} for i in range(4)]
    quantiser = Quantiser(model, feeds, "onnxruntime", tmp_path / "ranges.json")
    made = quantiser.quantise(["first", "second"])
    kinds = {node.op_type for node in onnx.load_model_from_string(made).graph.node}
    assert ("Clip" not in kinds) == (goes and outputs == ("y",))
    rights, ours = (run_session(session_of(m), feeds[0]) for m in (model, made))
    for name in outputs:
        assert np.abs(rights[name] - ours[name]).mean() < 0.01 * np.ptp(rights[name]), name


def test_what_would_be_alone_among_float32_is_left_there():
    """A chain a b c d, and e after a and d together."""
    ways = {"a": ["image"], "b": ["a"], "c": ["b"], "d": ["c"], "e": ["sum"]}
    nodes = []
    for name, sources in ways.items():
        if name == "e":
            nodes.append(helper.make_node("Add", ["a", "d"], ["sum"]))
        nodes.append(helper.make_node("Conv", [*sources, "w"], [f"{name}0"], name))
        nodes.append(helper.make_node("Relu", [f"{name}0"], [name]))
    nodes += [
        helper.make_node("Shape", ["e"], ["extents"]),
        helper.make_node("ConstantOfShape", ["extents"], ["zeros"]),
        helper.make_node("Conv", ["zeros", "w"], ["f"], "f"),  # of e the size alone
    ]
    image, out = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 4, 4]) for n in ("image", "e"))
    weights = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    chain = helper.make_model(helper.make_graph(nodes, "chain", [image], [out], [weights]))
    onnx.checker.check_model(chain)
    chain = chain.SerializeToString()
    for names, kept in (  # "ac": each is alone
        ("abcde", "abcde"),
        ("ac", "ac"),
        ("acd", "cd"),
        ("dbc", "dbc"),
        ("ae", "ae"),
        ("ebc", "bc"),
        ("bcef", "bc"),
    ):
        assert without_lone(chain, list(names)) == list(kept), names


@pytest.mark.parametrize(("form", "kept"), [("onnxruntime", ["decoder"]), ("tensorrt", [])])
def test_a_decoder_stays_float32_where_eight_bits_make_it_slower(form, kept, monkeypatch):
    monkeypatch.setattr(quantization, "compare_graphs", lambda *_: Agreement(1.0, 1.0))
    encoder, decoder = two_graphs()
    models = {"encoder": encoder, "decoder": decoder, "pixel_diffusion": b"as it is"}
    made = quantised(models, SPEC, Calibration(photos(2), photos(1)), 0.5, form, Progress(io.StringIO()))
    assert list(made) == list(models)
    assert [name for name in ("encoder", "decoder") if made[name] == models[name]] == kept
    assert made["pixel_diffusion"] == b"as it is"


def two_graphs():
    """The network of ``small_graphs`` behind an encoder of two convolutions."""
    behind = network(half=False)
    behind.graph.input[0].name = "feature_0"
    behind.graph.node[0].input[0] = "feature_0"
    rng = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.3, (3, 3, 1, 1)).astype(np.float32), f"w{i}") for i in (1, 2)
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["x1"], "first/Conv"),
        helper.make_node("Relu", ["x1"], ["x2"], "first/Relu"),
        helper.make_node("Conv", ["x2", "w2"], ["feature_0"], "second/Conv"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 3, "S", "S"])
        for name in ("image", "feature_0")
    ]
    graph = helper.make_graph(nodes, "encoder", ends[:1], ends[1:], weights)
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return before.SerializeToString(), behind.SerializeToString()


def test_eight_bits_are_close_and_none_are_exact(quantiser, model, feeds):
    right = run_session(session_of(model), feeds[0])["logits"]
    assert quantiser().quantise([]) == model
    for form in ("onnxruntime", "tensorrt"):
        made = quantiser(form).quantise(["stem/Conv", "head/Conv"])
        ours = run_session(session_of(made), feeds[0])["logits"]
        error = np.abs(ours - right).mean() / np.ptp(right)
        assert 1e-5 < error < 0.02, form


def test_the_convolution_that_eight_bits_harm_most_comes_first(feeds, tmp_path):
    """Its input has one huge channel, which the output ignores: 8 bits have no step for the others."""
    spoilt = network(half=False)
    for tensor in spoilt.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name == "w1":
            values[0] *= 1000
        if tensor.name == "w2":
            values[:, 0] = 0
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    quantiser = Quantiser(spoilt.SerializeToString(), feeds, "onnxruntime", tmp_path / "ranges.json")
    harm = {}
    right = run_session(session_of(spoilt.SerializeToString()), feeds[0])["logits"]
    for name in ("head/Conv", "stem/Conv"):
        harm[name] = np.abs(
            run_session(session_of(quantiser.quantise([name])), feeds[0])["logits"] - right
        ).max()
    assert quantiser.by_harm(Progress(io.StringIO())) == sorted(harm, key=lambda name: -harm[name])


def test_what_cuts_the_same_masks_is_taken_with_the_fewest_left_out(model, monkeypatch):
    close = Agreement(0.955, 0.9), Agreement(0.97, 0.8)  # which the artefact could miss
    seen = iter([Agreement(0.5, 0.1), *close, Agreement(0.97, 0.9)])
    monkeypatch.setattr(quantization, "compare_graphs", lambda *_: next(seen))
    monkeypatch.setattr(quantization, "LEFT_OUT", (0.0, 0.3, 0.5, 1.0))
    stream = io.StringIO()
    models = {"network": model, "pixel_diffusion": b"as it is"}
    made = quantised(models, SPEC, Calibration(photos(2), photos(1)), 0.5, "onnxruntime", Progress(stream))
    assert made == models  # with all left out
    assert "mean 0.500, worst 0.100" in stream.getvalue()


def test_masks_that_differ_are_refused(model, monkeypatch):
    monkeypatch.setattr(quantization, "compare_graphs", lambda *_: Agreement(0.94, 0.9))
    with pytest.raises(
        VerificationError, match=r"int8 costs too much .* mean 0.940, worst 0.900 with the worst 50%"
    ):
        quantised(
            {"network": model},
            SPEC,
            Calibration(photos(2), photos(1)),
            0.5,
            "tensorrt",
            Progress(io.StringIO()),
        )


def test_ranges_come_from_photographs_that_do_not_choose_the_form(model, monkeypatch):
    calibration, seen = Calibration(photos(3, seed=1), photos(2, seed=2)), {}
    feeds_of = calibration_feeds

    def feeds(models, spec, given):
        seen["measured"] = given
        return feeds_of(models, spec, given)

    def judge(*args):
        seen["held"] = args[2]
        return Agreement(1.0, 1.0)

    monkeypatch.setattr(quantization, "calibration_feeds", feeds)
    monkeypatch.setattr(quantization, "compare_graphs", judge)
    quantised({"network": model}, SPEC, calibration, 0.5, "onnxruntime", Progress(io.StringIO()))
    assert seen["measured"] is calibration.measured
    assert seen["held"] is calibration.held


@pytest.mark.parametrize("ranking", [["stem/Conv", "head/Conv"], ["head/Conv", "stem/Conv"]])
def test_the_convolutions_that_eight_bits_harm_most_are_left_out(model, monkeypatch, ranking):
    monkeypatch.setattr(quantization, "LEFT_OUT", (0.5,))
    monkeypatch.setattr(Quantiser, "by_harm", lambda *_: ranking)
    monkeypatch.setattr(quantization, "compare_graphs", lambda *_: Agreement(1.0, 1.0))
    calibration = Calibration(photos(2), photos(1))
    made = quantised({"network": model}, SPEC, calibration, 0.5, "onnxruntime", Progress(io.StringIO()))
    assert quantised_layers(onnx.load_model_from_string(made["network"])) == ranking[1:]


def test_masks_are_compared_graph_by_graph(model):
    assert compare_graphs({"network": model}, {"network": model}, photos(3), SPEC, 0.5) == Agreement(1.0, 1.0)
    other = network(half=False)
    other.graph.node[-1].op_type = "Sub"  # the term from the clicks, which decides the mask here
    found = compare_graphs({"network": model}, {"network": other.SerializeToString()}, photos(3), SPEC, 0.5)
    assert found.mean < 0.1


class Shifted:
    """A backend whose logits are the reference's, moved."""

    name = "onnxruntime"

    def __init__(self, rights, shifts):
        self.answers = iter([right + shift for right, shift in zip(rights, shifts, strict=True)])

    def encode(self, image, local):
        return image, local

    def decode(self, *_):
        return next(self.answers)


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_the_artefact_is_judged_by_the_mean_and_the_worst(threshold):
    cases = held_cases(photos(4), SPEC)[:4]
    middle = np.log(threshold / (1 - threshold))  # where masks end; of 0.8 no logit is 0
    ramp = np.tile(np.linspace(middle - 1, middle + 1, 100, dtype=np.float32), (100, 1))[None, None]
    rights = [ramp] * 4
    options = {"local": False, "threshold": threshold, "step": lambda _: None}
    found = compare_int8(cases, rights, Shifted(rights, [0, 0.02, 0, -0.02]), **options)
    assert found["held photographs"] == Parity(pytest.approx(49 / 50), 0.01, pytest.approx(0.02, rel=1e-4))
    assert found["held photographs, mean"].sign_flips == pytest.approx(0.005)
    for shifts in ([0.1] * 4, [0, 0, 0, 0.5]):
        with pytest.raises(VerificationError, match="photographs held back"):
            compare_int8(cases, rights, Shifted(rights, shifts), **options)
    # Of one, as when a bundle is read back, only whether it is lost.
    assert compare_int8(cases[:1], rights[:1], Shifted(rights[:1], [0.1]), **options)
    with pytest.raises(VerificationError, match="photographs held back"):
        compare_int8(cases[:1], rights[:1], Shifted(rights[:1], [0.5]), **options)


def test_an_int8_bundle_is_built_verified_and_described(tmp_path, monkeypatch):
    """The whole way on a stand-in, in the runtime that will run it."""
    stand_in = EarlyFusion()
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(steps, "open_networks", lambda *_: {"network": stand_in})
    monkeypatch.setattr(steps, "make_recipe", lambda *_: recipe(stand_in, False, None))
    # Random weights draw the boundary through noise.
    monkeypatch.setattr(int8_gate, "ARTEFACT", Agreement(0.8, 0.3))
    monkeypatch.setattr(quantization, "CHOICE", Agreement(0.8, 0.3))
    output = tmp_path / "engine"
    folder = write(tmp_path / "photos", 16)
    request = Request(tmp_path / "weights.safetensors", output, precision="int8", calibration=folder)
    monkeypatch.setattr(steps, "load_photo", lambda _: pytest.fail("nothing is compared on it"))
    judging = []
    monkeypatch.setattr(steps, "held_cases", lambda of, spec: judging.extend(of) or held_cases(of, spec))
    build(request, Progress(io.StringIO()))
    np.testing.assert_equal(judging, photos(16)[3::4])  # every fourth, on which nothing was measured
    (artefact,) = load_bundle(output).manifest.artefacts
    assert artefact.precision == "int8"
    assert set(artefact.parity) == {"held photographs", "held photographs, mean"}
    assert artefact.parity["held photographs, mean"].iou >= 0.8
    assert quantised_layers(onnx.load(output / "network.onnx"))
