"""Each lint on a made-up graph that has the fault, and on one that has not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from clickmask.manifest import GraphSpec, TensorSpec
from clickmask_export.errors import LintError
from clickmask_export.graph_lint import check, lint

OPSET = 18
SPEC = GraphSpec(
    (TensorSpec("image", "float32", ("B", 3, "S", "S")),),
    (TensorSpec("logits", "float32", ("B", 3, "S", "S")),),
)


def model(
    nodes, constants=None, *, opset=OPSET, shape=("B", 3, "S", "S"), dtype=TensorProto.FLOAT, functions=()
):
    """A graph from image to logits; ``constants`` maps names to arrays."""
    initialisers = [numpy_helper.from_array(np.asarray(a), name) for name, a in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "made_up",
        [helper.make_tensor_value_info("image", dtype, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("B", 3, "S", "S"))],
        initialisers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], functions=functions)


def node(kind, inputs, output, name=None, **attributes):
    return helper.make_node(kind, inputs, [output], name or f"pixel_diffusion/{kind}", **attributes)


def rules(made, precision="fp32"):
    return [finding.rule for finding in lint(made, SPEC, OPSET, precision)]


def test_a_sound_graph_has_no_findings():
    nodes = [
        node("Clip", ["image", "eps"], "divisor"),
        node("Div", ["one", "divisor"], "logits"),
    ]
    assert rules(model(nodes, {"eps": np.float32(1e-4), "one": np.float32(1)})) == []


def test_an_epsilon_that_the_exporter_deleted():
    # 1 / (std + 1e-8), after the addition is gone.
    nodes = [node("Abs", ["image"], "std"), node("Div", ["one", "std"], "logits")]
    (finding,) = lint(model(nodes, {"one": np.float32(1)}), SPEC, OPSET, "fp32")
    assert finding.rule == "unguarded division"
    assert finding.place == "pixel_diffusion/Div"
    assert "deletes additions" in finding.cause
    assert "clamp" in finding.fix


@pytest.mark.parametrize("kind", ["Reciprocal", "Log"])
def test_an_unguarded_reciprocal_or_logarithm(kind):
    nodes = [node("Abs", ["image"], "std"), node(kind, ["std"], "logits")]
    assert len(rules(model(nodes))) == 1


@pytest.mark.parametrize(
    ("guard", "constants"),
    [
        (node("Clip", ["std", "eps"], "divisor"), {"eps": np.float32(1e-4)}),
        (node("Max", ["std", "eps"], "divisor"), {"eps": np.float32(1e-4)}),
        (node("Add", ["std", "eps"], "divisor"), {"eps": np.float32(1e-6)}),
    ],
)
def test_guards_that_the_lint_accepts(guard, constants):
    nodes = [
        node("Abs", ["image"], "std"),
        guard,
        node("Mul", ["divisor", "minus_three"], "scaled"),
        node("Unsqueeze", ["scaled", "axes"], "wide"),
        node("Squeeze", ["wide", "axes"], "narrow"),
        node("Reciprocal", ["divisor"], "unused"),
        node("Div", ["image", "scaled"], "logits"),
    ]
    assert rules(model(nodes, {**constants, "minus_three": np.float32(-3), "axes": np.int64([0])})) == []


def test_an_addition_to_what_may_be_negative_guards_nothing():
    nodes = [node("Add", ["image", "eps"], "divisor"), node("Div", ["image", "divisor"], "logits")]
    assert rules(model(nodes, {"eps": np.float32(1e-4)})) == ["unguarded division"]


def test_a_clip_at_zero_guards_no_division():
    nodes = [node("Clip", ["image", "zero"], "divisor"), node("Div", ["image", "divisor"], "logits")]
    assert rules(model(nodes, {"zero": np.float32(0)})) == ["unguarded division"]


def test_the_denominator_of_a_softmax_is_positive():
    nodes = [
        node("ReduceMax", ["image", "axes"], "peak", keepdims=1),
        node("Sub", ["image", "peak"], "below"),
        node("Exp", ["below"], "weights"),
        node("ReduceSum", ["weights", "axes"], "sum", keepdims=1),
        node("Div", ["weights", "sum"], "logits"),
    ]
    assert rules(model(nodes, {"axes": np.int64([1])})) == []


def test_the_denominator_of_a_softmax_over_several_tensors_is_positive():
    """As Pixel Diffusion's: none of the parts need hold the peak, their sum does."""
    nodes = [
        node("Neg", ["image"], "other"),
        node("ReduceMax", ["image", "axes"], "peak_a"),
        node("ReduceMax", ["other", "axes"], "peak_b"),
        node("Max", ["peak_a", "peak_b"], "peak"),
        node("Sub", ["image", "peak"], "below_a"),
        node("Sub", ["other", "peak"], "below_b"),
        node("Exp", ["below_a"], "a"),
        node("Exp", ["below_b"], "b"),
        node("ReduceSum", ["a", "axes"], "sum_a"),
        node("ReduceSum", ["b", "axes"], "sum_b"),
        node("Add", ["sum_a", "sum_b"], "sum"),
        node("Div", ["a", "sum"], "logits"),
    ]
    assert rules(model(nodes, {"axes": np.int64([1])})) == []
    nodes[-1] = node("Div", ["a", "sum_a"], "logits")  # the peak may be in the other part
    assert rules(model(nodes, {"axes": np.int64([1])})) == ["unguarded division"]


def softmax(divisor, *, peak_of="image", summed="axes"):
    """x / ``divisor``, with exp(x - peak) as "weights" and its sum as "sum"."""
    return [
        node("Neg", ["image"], "other"),
        node("ReduceMax", [peak_of, "axes"], "peak"),
        node("Sub", ["image", "peak"], "below"),
        node("Exp", ["below"], "weights"),
        node("ReduceSum", ["weights", summed], "sum"),
        node("Div", ["image", divisor], "logits"),
    ]


@pytest.mark.parametrize(
    "nodes",
    [
        softmax("weights"),  # 1 at the peak alone, 0 elsewhere once it underflows
        softmax("sum", peak_of="other"),  # every term may underflow
        softmax("sum", summed="other_axes"),  # not the axis that the peak is on
    ],
)
def test_what_only_resembles_a_softmax_is_no_guard(nodes):
    constants = {"axes": np.int64([1]), "other_axes": np.int64([2])}
    assert rules(model(nodes, constants)) == ["unguarded division"]


@pytest.mark.parametrize(
    ("exponent", "found"), [(-1, ["unguarded division"]), (-0.5, ["unguarded division"]), (2, [])]
)
def test_a_negative_power_is_a_division(exponent, found):
    nodes = [node("Abs", ["image"], "std"), node("Pow", ["std", "exponent"], "logits")]
    assert rules(model(nodes, {"exponent": np.float32(exponent)})) == found
    guarded = [node("Clip", ["image", "eps"], "std"), node("Pow", ["std", "exponent"], "logits")]
    assert rules(model(guarded, {"exponent": np.float32(exponent), "eps": np.float32(1e-4)})) == []


@pytest.mark.parametrize("kind", ["Add", "Max", "Clip"])
@pytest.mark.parametrize(("eps", "found"), [(1e-40, ["unguarded division"]), (1e-12, [])])
def test_a_guard_too_small_for_float32_divisions(kind, eps, found):
    nodes = [
        node("Abs", ["image"], "std"),
        node(kind, ["std", "eps"], "divisor"),
        node("Div", ["image", "divisor"], "logits"),
    ]
    assert rules(model(nodes, {"eps": np.float32(eps)})) == found


def test_a_bare_exponential_may_underflow_to_zero():
    nodes = [node("Exp", ["image"], "weights"), node("Div", ["image", "weights"], "logits")]
    assert rules(model(nodes)) == ["unguarded division"]


def test_a_variance_by_the_difference_of_squares():
    # sqrt(mean(x^2) - mean(x)^2): rounding makes it negative.
    nodes = [
        node("Mul", ["image", "image"], "square"),
        node("Sub", ["square", "image"], "variance"),
        node("Sqrt", ["variance"], "logits"),
    ]
    assert rules(model(nodes)) == ["unguarded root"]


def test_a_root_of_a_mean_of_squares_is_sound():
    nodes = [
        node("Mul", ["image", "image"], "square"),
        node("ReduceMean", ["square", "axes"], "variance"),
        node("Sqrt", ["variance"], "logits"),
    ]
    assert rules(model(nodes, {"axes": np.int64([1])})) == []


@pytest.mark.parametrize(("penalty", "found"), [(1e9, []), (-1e9, ["unguarded root"])])
def test_a_root_of_a_square_and_a_penalty_where_a_condition_holds(penalty, found):
    """A distance map: far from every click that is absent. A condition is 0 or 1."""
    nodes = [
        node("Mul", ["image", "image"], "square"),
        node("Equal", ["image", "absent"], "condition"),
        node("Cast", ["condition"], "number", to=TensorProto.FLOAT),
        node("Mul", ["number", "penalty"], "far"),
        node("Add", ["square", "far"], "distance"),
        node("Sqrt", ["distance"], "logits"),
    ]
    constants = {"absent": np.float32(-1), "penalty": np.float32(penalty)}
    assert rules(model(nodes, constants)) == found


def test_integer_division_of_shapes_is_no_concern():
    nodes = [
        node("Shape", ["image"], "shape"),
        node("Div", ["shape", "other"], "half"),
        node("Identity", ["image"], "logits"),
    ]
    assert rules(model(nodes, {"other": np.int64([0, 1, 1, 1])})) == []


def test_external_data_beside_the_model():
    made = model([node("Add", ["image", "weight"], "logits")], {"weight": np.ones(3, np.float32)})
    tensor = made.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="model.onnx.data")
    made.graph.initializer[0].ClearField("raw_data")
    (finding,) = lint(made, SPEC, OPSET, "fp32")
    assert finding.rule == "external data"
    assert "external_data=False" in finding.fix


@pytest.mark.parametrize("kind", ["NonZero", "Unique", "Compress", "NonMaxSuppression", "Loop", "If", "Scan"])
def test_data_dependent_operators(kind):
    nodes = [node(kind, ["image"], "found"), node("Identity", ["image"], "logits")]
    assert rules(model(nodes)) == ["data-dependent operator"]


def test_a_data_dependent_operator_inside_a_subgraph():
    inner = helper.make_graph([node("NonZero", ["image"], "found", "inner")], "branch", [], [])
    outer = node("If", ["image"], "logits", "outer", then_branch=inner, else_branch=inner)
    places = [finding.place for finding in lint(model([outer]), SPEC, OPSET, "fp32")]
    assert places == ["outer", "inner", "inner"]


@pytest.mark.parametrize("opset", [17, 20])
def test_another_opset(opset):
    assert rules(model([node("Identity", ["image"], "logits")], opset=opset)) == ["opset"]


def test_a_custom_domain_and_functions():
    made = model([node("Identity", ["image"], "logits")])
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    identity = helper.make_node("Identity", ["x"], ["y"])
    made.functions.append(
        helper.make_function("local", "helper", ["x"], ["y"], [identity], made.opset_import)
    )
    assert rules(made) == ["opset", "opset"]


def test_an_input_of_another_type():
    made = model([node("Cast", ["image"], "logits", to=TensorProto.FLOAT)], dtype=TensorProto.FLOAT16)
    (finding,) = lint(made, SPEC, OPSET, "fp32")
    assert (finding.rule, finding.place) == ("interface", "input image")
    assert "FLOAT16" in finding.cause


def test_an_input_of_another_name():
    made = model([node("Identity", ["x"], "logits")])
    made.graph.input[0].name = "x"
    assert rules(made) == ["interface"]


def test_a_batch_that_the_exporter_fixed():
    made = model([node("Identity", ["image"], "logits")], shape=(2, 3, "S", "S"))
    (finding,) = lint(made, SPEC, OPSET, "fp32")
    assert finding.rule == "fixed shape"
    assert "[2, 3, 'S', 'S']" in finding.cause


def test_a_half_constant_that_overflowed():
    with np.errstate(over="ignore"):
        big = np.float16(1e6)
    nodes = [
        node("Cast", ["image"], "half", to=TensorProto.FLOAT16),
        node("Mul", ["half", "big"], "scaled"),
        node("Cast", ["scaled"], "logits", to=TensorProto.FLOAT),
    ]
    assert rules(model(nodes, {"big": big}), "fp16") == ["half overflow"]


@pytest.mark.parametrize("kind", ["Add", "Max", "Clip"])
@pytest.mark.parametrize("epsilon", [1e-8, 1e-6])  # the first becomes 0, the second subnormal
def test_a_half_epsilon_that_underflowed(kind, epsilon):
    nodes = [
        node("Cast", ["image"], "half", to=TensorProto.FLOAT16),
        node("Abs", ["half"], "std"),
        node(kind, ["std", "eps"], "guarded"),
        node("Div", ["half", "guarded"], "ratio"),
        node("Cast", ["ratio"], "logits", to=TensorProto.FLOAT),
    ]
    found = rules(model(nodes, {"eps": np.float16(epsilon)}), "fp16")
    assert "half underflow" in found
    assert ("unguarded division" in found) == (epsilon == 1e-8)


def test_a_half_factor_that_underflowed():
    nodes = [
        node("Cast", ["image"], "half", to=TensorProto.FLOAT16),
        node("Mul", ["half", "scale"], "scaled"),
        node("Cast", ["scaled"], "logits", to=TensorProto.FLOAT),
    ]
    assert rules(model(nodes, {"scale": np.float16(1e-8)}), "fp16") == ["half underflow"]
    assert rules(model(nodes, {"scale": np.float16(1e-3)}), "fp16") == []


def test_a_half_relu6_is_no_guard_and_no_finding():
    nodes = [
        node("Cast", ["image"], "half", to=TensorProto.FLOAT16),
        node("Clip", ["half", "zero", "six"], "clipped"),
        node("Cast", ["clipped"], "logits", to=TensorProto.FLOAT),
    ]
    assert rules(model(nodes, {"zero": np.float16(0), "six": np.float16(6)}), "fp16") == []


def test_an_integer_beyond_int32():
    nodes = [node("Gather", ["image", "index"], "logits", axis=0)]
    assert rules(model(nodes, {"index": np.int64([1 << 40])})) == ["integer overflow"]


def test_to_the_end_of_a_slice_is_no_overflow():
    nodes = [node("Slice", ["image", "start", "end", "axes"], "logits")]
    end = np.int64([np.iinfo(np.int64).max])
    assert rules(model(nodes, {"start": np.int64([0]), "end": end, "axes": np.int64([2])})) == []


@pytest.mark.parametrize(
    ("precision", "dtype", "name", "found"),
    [
        ("fp16", np.float32, "network/head/Conv", ["precision"]),  # asked for half, got float32
        ("fp32", np.float16, "network/head/Conv", ["precision"]),
        ("fp16", np.float16, "network/head/Conv", []),
        ("fp16", np.float32, "pixel_diffusion/stages.0/Conv", []),
    ],
)
def test_a_body_of_another_precision(precision, dtype, name, found):
    made = model(
        [node("Conv", ["image", "weight"], "logits", name)], {"weight": np.ones((3, 3, 1, 1), dtype)}
    )
    assert rules(made, precision) == found


def test_check_names_the_graph_and_every_fault():
    made = model([node("Div", ["image", "image"], "logits")], opset=20)
    with pytest.raises(LintError, match="the exported decoder has 2 fault") as caught:
        check(made, SPEC, OPSET, "fp32", "decoder")
    assert "pixel_diffusion/Div" in str(caught.value)


def test_check_accepts_a_sound_graph():
    made = model([node("Identity", ["image"], "logits")])
    onnx.checker.check_model(made)
    check(made, SPEC, OPSET, "fp32", "network")
