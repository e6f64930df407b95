"""Bundles with TensorRT plans: the whole build around a TensorRT that records, up to the manifest."""

from __future__ import annotations

import io
from dataclasses import replace

import builder_double
import cv2
import numpy as np
import onnx
import pytest
from builder_double import fake_tensorrt
from export_stand_ins import EarlyFusion
from small_graphs import network
from test_build import recipe

from clickmask.backends.host_facts import Gpu, HostFacts, Package
from clickmask.bundle import load_bundle
from clickmask.manifest import Parity
from clickmask_export import build as steps
from clickmask_export import command, targets, tensorrt_plans
from clickmask_export.build import Request, build
from clickmask_export.command import main
from clickmask_export.errors import BuildError, TargetUnavailableError, VerificationError
from clickmask_export.progress import Progress
from clickmask_export.targets import find_target, why_no_plan_loads
from clickmask_export.tensorrt_options import PlanOptions

HOST = HostFacts(
    platform="linux x86_64",
    cuda=(13, 0),
    gpus=(Gpu("NVIDIA H100 80GB HBM3", (9, 0)),),
    tensorrt=Package("tensorrt-cu13", "11.4.0.106"),
    tensorrt_lean=None,
    cuda_bindings="13.0.1",
)
PARITY = {"photograph": Parity(0.99, 0.001, 0.1)}


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Builds a bundle; nothing runs but TensorRT's double, and every comparison succeeds."""
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    monkeypatch.setattr("clickmask.backends.tensorrt_engine._loggers", {})
    monkeypatch.setattr(tensorrt_plans, "host_facts", lambda: HOST)
    monkeypatch.setattr("clickmask_export.tensorrt_facts.host_platform", lambda: HOST.platform)
    monkeypatch.setattr(steps, "find_target", lambda name, _: targets.Target(name, "cuda"))
    stand_in = EarlyFusion()
    opened = []

    class Opened:
        def close(self):
            opened.append("closed")

    def opens(bundle, backend, device, **options):
        opened.append((bundle.manifest.artefacts[-1].backend, backend, device, options["trust_host_code"]))
        return Opened()

    replaced = {
        "open_networks": lambda *_: {"network": stand_in},
        "make_recipe": lambda *_: recipe(stand_in, False, None),
        "_export": lambda _graph, _target, precision: network(precision == "fp16").SerializeToString(),
        "open_backend": opens,
        "compare": lambda cases, *_, **__: record(cases) or PARITY,
    }
    replaced["compare_int8"] = replaced["compare"]
    seen, runs = [], []

    def record(cases):
        runs.append(len(cases))
        seen.extend(len(case.image) for case in cases)

    def run(
        style=11, precision="fp16", names=("tensorrt",), calibration=None, broken=None, stream=None, **options
    ):
        trt = fake_tensorrt(style)
        monkeypatch.setattr(tensorrt_plans, "import_tensorrt", lambda _: trt)
        if broken is not None:
            broken(builder_double.world)
        plan = PlanOptions(timing_cache=tmp_path / "timing", **options)
        output = tmp_path / "out" / "engine"
        with monkeypatch.context() as patch:
            for name, value in replaced.items():
                patch.setattr(steps, name, value)
            build(
                Request(
                    tmp_path / "weights.safetensors",
                    output,
                    targets=names,
                    precision=precision,
                    calibration=calibration,
                    plan=plan,
                    force=True,
                ),
                Progress(stream or io.StringIO()),
            )
        return load_bundle(output).manifest.artefacts[-1], output

    run.opened, run.compared, run.runs = opened, seen, runs
    return run


@pytest.mark.parametrize("style", [10, 11])
def test_the_manifest_says_where_plans_load_and_what_was_proven(make, style):
    artefact, output = make(style)
    facts = artefact.engine
    assert (artefact.backend, artefact.device, artefact.precision, artefact.opset) == (
        "tensorrt",
        "cuda",
        "fp16",
        18,
    )
    assert sorted(path.name for path in output.iterdir()) == ["manifest.json", "network.plan"]
    assert facts.tensorrt == {10: "10.16.0.72", 11: "11.4.0.106"}[style]
    assert (facts.gpu_name, facts.compute_capability) == ("NVIDIA H100 80GB HBM3", "9.0")
    assert (facts.flavour, facts.platform, facts.flags) == ("full", "linux x86_64", ())
    assert [(p.size, p.min_batch, p.opt_batch, p.max_batch) for p in facts.profiles] == [
        (64, 1, 1, 8),
        (96, 1, 1, 8),
    ]
    assert facts.workspace_bytes == 2 << 30
    assert facts.half_share == pytest.approx(4 / 12, abs=1e-4)  # of the small network's nodes
    assert set(facts.fp32_layers) == {"click_maps", "feature_diffusion", "inputs_and_outputs"}
    assert facts.fp32_layers["feature_diffusion"][-1] == "feature_diffusion/Add"
    assert artefact.parity == PARITY
    assert artefact.weights == {}


def test_plans_are_compared_through_the_backend_that_will_run_them(make):
    make(version_compatible=True)
    assert make.opened == [("tensorrt", "tensorrt", "cuda", True), "closed"] * 2
    assert set(make.compared) == {1, 2}


def test_plans_for_single_images_are_compared_on_the_images_of_all_batches(make):
    """The first case, which the bundle is read back and run with too, is a batch of two."""
    make()
    images = make.runs[0], sum(make.compared[: make.runs[0]])
    assert images[1] > images[0]
    make.runs.clear(), make.compared.clear()
    make(max_batch=1)
    assert set(make.compared) == {1}, "a plan for one image was given two"
    assert make.runs == [images[1], 2]


def test_an_engine_without_an_inspector_is_not_proven(make, monkeypatch):
    monkeypatch.setattr(builder_double.ICudaEngine, "create_engine_inspector", lambda _: None)
    with pytest.raises(BuildError, match="makes no inspector"):
        make()


def test_version_compatible_plans(make):
    facts = make(version_compatible=True)[0].engine
    assert (facts.flavour, facts.version_compatible, facts.lean_runtime_inside) == ("lean", True, True)
    facts = make(version_compatible=True, lean_runtime=False, hardware_compatibility="ampere_plus")[0].engine
    assert (facts.flavour, facts.lean_runtime_inside) == ("lean", False)
    assert facts.flags == ("EXCLUDE_LEAN_RUNTIME", "VERSION_COMPATIBLE")
    assert facts.hardware_compatibility == "ampere_plus"


def test_stripped_plans_bring_their_weights_and_are_refitted_before_they_are_proven(make):
    artefact, output = make(strip_weights=True)
    assert builder_double.world.refits == [network().SerializeToString()]
    assert artefact.engine.stripped
    assert artefact.engine.flags == ("REFIT_IDENTICAL", "STRIP_PLAN")
    weights = artefact.weights["network"]
    assert weights.path == "network.weights.onnx"
    assert (output / weights.path).read_bytes() == network().SerializeToString()
    assert len((output / "network.plan").read_bytes()) < len(make()[1].joinpath("network.plan").read_bytes())


def test_an_onnx_artefact_of_the_same_bytes_is_the_weights(make):
    artefact, output = make(names=("tensorrt", "onnxruntime"), strip_weights=True)
    assert artefact.weights["network"].path == "network.onnx"
    assert sorted(p.name for p in output.iterdir()) == ["manifest.json", "network.onnx", "network.plan"]


def test_int8_plans_are_built_of_the_form_that_tensorrt_takes(make, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(16):
        image = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    artefact, output = make(precision="int8", calibration=folder, strip_weights=True)
    assert (artefact.precision, artefact.engine.half_share) == ("int8", 0)
    graph = onnx.load(output / "network.weights.onnx").graph
    kinds = {i.name: i.data_type for i in graph.initializer if i.name.endswith("_zero_point")}
    assert onnx.TensorProto.UINT8 not in kinds.values()
    assert onnx.TensorProto.INT8 in kinds.values()

    def single(world):
        world.layers = lambda layers: [
            layer | {"Inputs": [{"Datatype": "Float"}], "Outputs": [{"Datatype": "Float"}]}
            for layer in layers
        ]

    with pytest.raises(VerificationError, match="int8 was asked for and not got"):
        make(precision="int8", calibration=folder, broken=single)


def forget_half(world):
    def single(layers):
        for layer in layers:
            for tensor in (*layer["Inputs"], *layer["Outputs"]):
                tensor["Datatype"] = "Float"
        return layers

    world.layers = single


def say_no_types(world):
    world.layers = lambda layers: [{"Name": layer["Name"], "LayerType": "kgen"} for layer in layers]


def fail_to_build(world):
    world.build = lambda _: False


def fail_to_parse(world):
    world.parser_faults = [(0, "stem/Conv", "Conv", "no")]


@pytest.mark.parametrize(
    ("broken", "error", "message"),
    [
        (forget_half, VerificationError, "fp16 was asked for and not got: 2 of 2"),
        (say_no_types, VerificationError, "its precision is not proven"),
        (fail_to_build, BuildError, "cannot build the network: no kernel for the node"),
        (fail_to_parse, BuildError, r"node 0 stem/Conv \(Conv\): no"),
    ],
)
def test_a_build_that_fails_leaves_what_was_there(make, broken, error, message):
    _, output = make(max_batch=4)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    with pytest.raises(error, match=message):
        make(broken=broken)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert [path.name for path in output.parent.iterdir()] == ["engine"]


def test_an_interrupted_build_leaves_nothing(make, tmp_path):
    def interrupt(world):
        def build(_monitor):
            raise KeyboardInterrupt

        world.build = build

    with pytest.raises(KeyboardInterrupt):
        make(broken=interrupt)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_the_second_build_starts_from_what_the_first_measured(make, tmp_path):
    make()
    make()
    assert builder_double.world.old_caches == [b"measured"]
    assert (tmp_path / "timing").read_bytes() == b"measured"


def test_progress_names_the_steps(make):
    stream = io.StringIO()
    make(stream=stream)
    assert "build the TensorRT plan of the network" in stream.getvalue()
    assert "load the plan of the network and prove its precision" in stream.getvalue()


# What the machine must have is found out first.


def find_everything(_):
    return object()


def test_a_machine_that_could_not_load_what_it_builds_is_told_so(monkeypatch):
    monkeypatch.setattr(targets.importlib.util, "find_spec", find_everything)
    monkeypatch.setattr(targets.host, "cuda_devices", lambda: 1)
    monkeypatch.setattr(targets, "host_facts", lambda: replace(HOST, cuda=(12, 4)))
    with pytest.raises(TargetUnavailableError, match="install driver r580 or newer"):
        find_target("tensorrt", "fp16")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, None),
        ({"tensorrt": Package("tensorrt-cu13", "10.8.0.43")}, "TensorRT 10.12 to 11"),
        ({"tensorrt": None}, "got none installed"),
        ({"gpus": ()}, "CUDA device"),
        ({"cuda_bindings": None}, "cuda-python"),
        ({"foreign_context": True}, "pycuda.autoprimaryctx"),
    ],
)
def test_what_keeps_a_plan_from_loading(monkeypatch, changed, message):
    monkeypatch.setattr("clickmask_export.tensorrt_facts.host_platform", lambda: HOST.platform)
    problem = why_no_plan_loads(replace(HOST, **changed))
    assert problem is None if message is None else message in problem


def test_int8_is_not_for_torchscript():
    with pytest.raises(TargetUnavailableError, match="which TorchScript has none of"):
        find_target("torchscript", "int8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workspace", "512"], "add --target tensorrt"),
        (["--timing-cache", "x"], "add --target tensorrt"),
        (["--target", "tensorrt", "--max-batch", "0"], "--max-batch: expected 1 to 1024"),
        (["--target", "tensorrt", "--exclude-lean-runtime"], "add --version-compatible"),
        (["--target", "tensorrt", "--hardware-compatible", "all"], "invalid choice: 'all'"),
        (["--target", "tensorrt", "--optimization-level", "9"], "expected 0 to 5, got 9"),
        (["--precision", "int8"], "belong together"),
        (["--calibration", "photos"], "belong together"),
        (
            ["--precision", "int8", "--calibration", "photos", "--parity-image", "photo.png"],
            "exclude each other",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused_before_any_work(capsys, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(steps, "find_target", lambda name, _: targets.Target(name, "cuda"))
    monkeypatch.setattr(steps, "open_networks", lambda *_: pytest.fail("too late"))
    arguments = ["--checkpoint", "x", "--output", str(tmp_path / "out"), *options]
    assert main(arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_the_commands_options_are_those_of_a_plan():
    words = (
        "--checkpoint a --output b --target tensorrt --max-batch 2 --workspace 512 --optimization-level 5 "
        "--tf32 --version-compatible --exclude-lean-runtime --hardware-compatible ampere_plus "
        "--strip-weights --timing-cache c"
    )
    options = command.make_parser().parse_args(words.split())
    assert command._plan(options, options.target) == PlanOptions(
        2, 512, 5, True, True, False, "ampere_plus", True, options.timing_cache
    )
    nothing = command.make_parser().parse_args(["--checkpoint", "a", "--output", "b"])
    assert command._plan(nothing, ("onnxruntime",)) == PlanOptions()
