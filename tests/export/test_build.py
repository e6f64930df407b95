"""The steps of a build on stand-in networks: what is written is what was verified, or nothing is."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import replace

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from export_stand_ins import EarlyFusion, EncodeOnce, flipped_average, inputs

from clickmask.backends import open_backend
from clickmask.bundle import load_bundle
from clickmask.crop import CropPolicy
from clickmask.manifest import ClickMaps, InputSpec
from clickmask.native_diffusion import Affinity
from clickmask.native_library import unavailable_because
from clickmask_export import build as steps
from clickmask_export.build import Request, build
from clickmask_export.errors import BuildError, LintError, OutputError, VerificationError
from clickmask_export.graph_lint import Finding
from clickmask_export.graphs import Graph, diffusion_graph, make_graphs
from clickmask_export.progress import Progress
from clickmask_export.recipes import Recipe
from clickmask_export.targets import Target
from clickmask_export.torchscript import is_half
from clickmask_models.pixel_diffusion import PixelDiffusion, PixelDiffusionConfig

DIFFUSION = PixelDiffusionConfig(iterations=1, dilations=(1,))


def recipe(network, flip, diffuse, crop="fbrs"):
    spec = InputSpec(
        sizes=(64, 96),
        fit="letterbox",
        pad=network.mean,
        coordinates="half_pixel",
        mean=network.mean,
        std=network.std,
        previous_mask=network.takes_previous_mask,
        max_clicks=16,
    )
    maps, policy = ClickMaps("disk", 3.0), CropPolicy.named(crop)
    return Recipe("cdnet", "official", spec, maps, policy, flip, 0.5, 0.0, diffuse)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Runs a build of a stand-in network."""
    (tmp_path / "weights of mine.safetensors").write_bytes(b"weights")
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))

    def run(
        network, *, flip=False, diffuse=None, targets=("onnxruntime",), stream=None, broken=None, **options
    ):
        """``broken`` maps names in the module to what replaces them during this build."""
        replaced = {
            "open_networks": lambda *_: {"network": network},
            "make_recipe": lambda network, _: recipe(network, flip, diffuse),
            **(broken or {}),
        }
        request = Request(
            checkpoint=tmp_path / "weights of mine.safetensors",
            output=tmp_path / "out" / "engine",
            targets=targets,
            parity_image=photo,
            **options,
        )
        with monkeypatch.context() as patch:
            for name, value in replaced.items():
                patch.setattr(steps, name, value)
            return build(request, Progress(stream or io.StringIO())), request.output

    return run


@pytest.fixture(scope="module")
def cached_exports():
    """Export is the slow step: made once where a test is about the steps after it."""
    made = {}
    export = steps._export

    def cached(graph, target, precision):
        key = (graph.name, target, precision)
        if key not in made:
            made[key] = export(graph, target, precision)
        return made[key]

    return cached


@pytest.mark.parametrize("network", [EarlyFusion(), EncodeOnce(previous_mask=False)])
def test_a_bundle_computes_what_torch_does_in_every_backend(make, network):
    targets = ("onnxruntime", "torchscript", "onnxruntime")
    parities, output = make(network, flip=True, diffuse=DIFFUSION, targets=targets)
    assert list(parities) == ["onnxruntime", "torchscript"]
    bundle = load_bundle(output)
    image, clicks, mask = inputs(batch=2, clicks=5, size=96)
    mask = mask if network.takes_previous_mask else None
    raw = flipped_average(network, image, clicks, mask)
    expected = PixelDiffusion(DIFFUSION)(raw, image, clicks).numpy()
    for name in parities:
        backend = open_backend(bundle, name, "cpu")
        features = backend.encode(image.numpy())
        got = backend.decode(features, clicks.numpy(), None if mask is None else mask.numpy())
        np.testing.assert_allclose(got, expected, atol=2e-3)
        backend.close()


def other_network():
    """The stand-in with other weights: a second checkpoint of the same architecture."""
    network = EarlyFusion()
    torch.nn.init.normal_(network.head.weight, std=4, generator=torch.Generator().manual_seed(5))
    return network


def pair(network, **replaced):
    """What a build of two networks replaces."""
    networks = {"network": network, "local_network": other_network()}
    return {
        "open_networks": lambda *_: networks,
        "make_recipe": lambda network, _: recipe(network, False, None, "global_to_local"),
        **replaced,
    }


def test_a_bundle_of_two_networks_runs_each_where_it_belongs(make, tmp_path):
    fine = tmp_path / "fine.safetensors"
    fine.write_bytes(b"other weights")
    parities, output = make(EarlyFusion(), broken=pair(EarlyFusion()), local_checkpoint=fine)
    bundle = load_bundle(output)
    assert sorted(os.listdir(output)) == ["local_network.onnx", "manifest.json", "network.onnx"]
    assert bundle.manifest.graphs["local_network"] == bundle.manifest.graphs["network"]
    assert bundle.manifest.source.local.checkpoint == "fine.safetensors"
    assert bundle.manifest.source.local.sha256 == hashlib.sha256(b"other weights").hexdigest()
    assert bundle.manifest.artefacts[0].parity == parities["onnxruntime"]
    image, clicks, mask = inputs(batch=2, clicks=5, size=96)
    backend = open_backend(bundle, "onnxruntime", "cpu")
    for local, network in ((False, EarlyFusion()), (True, other_network())):
        features = backend.encode(image.numpy(), local=local)
        got = backend.decode(features, clicks.numpy(), mask.numpy())
        np.testing.assert_allclose(got, network(image, clicks, mask).detach().numpy(), atol=2e-3)
    backend.close()


def test_a_second_network_that_computes_something_else_is_not_shipped(make, tmp_path):
    fine = tmp_path / "fine.safetensors"
    fine.write_bytes(b"other weights")
    export = steps._export

    def first_twice(graph, target, precision):
        module = (
            Graph(graph.name, early_fusion_graph(), graph.spec) if graph.name == "local_network" else graph
        )
        return export(module, target, precision)

    with pytest.raises(VerificationError, match="differs from torch on the local network"):
        make(EarlyFusion(), broken=pair(EarlyFusion(), _export=first_twice), local_checkpoint=fine)
    assert not (tmp_path / "out" / "engine").exists()


def early_fusion_graph():
    return make_graphs(EarlyFusion(), flip=False, precision="fp32")[0].module


def test_the_manifest_says_what_was_built(make):
    parities, output = make(EarlyFusion())
    manifest = load_bundle(output).manifest
    (artefact,) = manifest.artefacts
    assert (artefact.backend, artefact.precision, artefact.device, artefact.opset) == (
        "onnxruntime",
        "fp32",
        "any",
        18,
    )
    assert artefact.parity == parities["onnxruntime"]
    assert "flat" in artefact.parity
    assert artefact.tools["onnxruntime"] == onnxruntime.__version__
    assert manifest.source.checkpoint == "weights_of_mine.safetensors"
    assert manifest.source.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert manifest.pixel_diffusion is None
    assert sorted(os.listdir(output)) == ["manifest.json", "network.onnx"]


def test_building_twice_gives_the_same_bundle_to_the_byte(make, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    contents = []
    for force in (False, True):
        _, output = make(EarlyFusion(previous_mask=False), force=force)
        contents.append({file.name: file.read_bytes() for file in output.iterdir()})
    assert contents[0] == contents[1]
    assert b"2023-11-14T22:13:20+00:00" in contents[0]["manifest.json"]


STAGES = ["open_networks", "make_recipe", "make_graphs", "_export", "write_artefact", "draft_bundle"]
STAGES += ["make_cases", "open_backend", "compare", "write_manifest", "read_back"]


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_a_failure_at_any_stage_leaves_the_output_as_it_was(
    make, monkeypatch, tmp_path, cached_exports, stage, existing
):
    monkeypatch.setattr(steps, "_export", cached_exports)
    before = {}
    if existing:
        _, output = make(EarlyFusion())
        before = {file.name: file.read_bytes() for file in output.iterdir()}

    class Crash(Exception):
        pass

    def crash(*_, **__):
        raise Crash

    with pytest.raises(Crash):
        make(EarlyFusion(), force=existing, broken={stage: crash})
    output = tmp_path / "out" / "engine"
    after = {file.name: file.read_bytes() for file in output.iterdir()} if output.exists() else {}
    assert after == before
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == ["engine"] * existing


def test_an_artefact_that_computes_something_else_is_not_shipped(make, tmp_path):
    export = steps._export

    def wrong(graph, target, precision):
        with torch.no_grad():
            graph.module.network.head.bias += 1
            made = export(graph, target, precision)
            graph.module.network.head.bias -= 1
        return made

    with pytest.raises(VerificationError, match="onnxruntime fp32 differs from torch on"):
        make(EarlyFusion(), broken={"_export": wrong})
    assert not (tmp_path / "out" / "engine").exists()


@pytest.mark.skipif(unavailable_because() is not None, reason=f"needs the kernel: {unavailable_because()}")
def test_a_fused_kernel_that_computes_something_else_is_not_shipped(make, monkeypatch, tmp_path):
    """The run time takes it where it can, so that the graph's parity alone proves nothing."""
    right = Affinity.diffuse
    monkeypatch.setattr(Affinity, "diffuse", lambda self, logits, *rest: right(self, logits + 3, *rest))
    with pytest.raises(VerificationError, match="onnxruntime fp32 differs from torch"):
        make(EarlyFusion(), diffuse=DIFFUSION)
    assert not (tmp_path / "out" / "engine").exists()


def test_masks_are_compared_at_the_recipes_threshold(make, monkeypatch, cached_exports):
    monkeypatch.setattr(steps, "_export", cached_exports)
    seen, compare = set(), steps.compare

    def watched(*args, threshold, **options):
        seen.add(threshold)
        return compare(*args, threshold=threshold, **options)

    def lower(network, _):
        return replace(recipe(network, False, None), threshold=0.49)

    make(EarlyFusion(), broken={"compare": watched, "make_recipe": lower})
    assert seen == {0.49}


def test_a_graph_with_a_fault_is_not_shipped(make, monkeypatch, tmp_path):
    fault = Finding("unguarded division", "pixel_diffusion/Div", "cause", "fix")
    monkeypatch.setattr(steps.graph_lint, "lint", lambda *_: [fault])
    with pytest.raises(
        LintError, match=r"the exported network has 1 fault.*\n.*pixel_diffusion/Div: cause; fix"
    ):
        make(EarlyFusion())
    assert not (tmp_path / "out" / "engine").exists()


def test_an_existing_bundle_stops_the_build_before_it_starts(make, monkeypatch, cached_exports):
    monkeypatch.setattr(steps, "_export", cached_exports)
    make(EarlyFusion())
    with pytest.raises(BuildError, match="add --force"):
        make(EarlyFusion(), broken={"open_networks": lambda *_: pytest.fail("too late")})


def test_half_precision_is_the_networks_and_pixel_diffusion_stays_float32():
    target = Target("torchscript", "cpu")
    (network,) = make_graphs(EarlyFusion(), flip=False, precision="fp16")
    for graph in (network, diffusion_graph(PixelDiffusion(DIFFUSION))):
        assert is_half(steps._export(graph, target, "fp16")) == (graph is network)
    (network,) = make_graphs(EarlyFusion(), flip=False, precision="fp32")
    with pytest.raises(BuildError, match="not in half precision"):
        steps._export(network, target, "fp16")


def test_a_checkpoint_that_changes_while_it_is_read_is_not_built(make, tmp_path):
    def train_on(path, *_):
        path.write_bytes(b"weights of three minutes later")
        return {"network": EarlyFusion()}

    with pytest.raises(BuildError, match="while it was being read"):
        make(EarlyFusion(), broken={"open_networks": train_on})
    assert not (tmp_path / "out" / "engine").exists()


def test_a_file_that_the_disk_altered_is_not_shipped(make, monkeypatch, tmp_path, cached_exports):
    monkeypatch.setattr(steps, "_export", cached_exports)

    def alter(draft, parities):
        write_manifest(draft, parities)
        with (draft.path / "network.onnx").open("ab") as stream:
            stream.write(b"0")

    write_manifest = steps.write_manifest
    with pytest.raises(OutputError, match=r"network\.onnx differs on the disk"):
        make(EarlyFusion(), broken={"write_manifest": alter})
    assert not (tmp_path / "out" / "engine").exists()


def test_a_network_that_cuts_nothing_is_built_with_a_warning(make):
    network, stream = EarlyFusion(), io.StringIO()
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.constant_(network.head.bias, -4)
    make(network, stream=stream)
    assert "warning: in no case does the network's mask cover" in stream.getvalue()


def test_progress_names_every_stage_with_its_seconds(make, monkeypatch, cached_exports):
    monkeypatch.setattr(steps, "_export", cached_exports)
    stream = io.StringIO()
    make(EarlyFusion(), stream=stream)
    text = stream.getvalue()
    for stage in (
        "export the network for onnxruntime",
        "run the checkpoint's network in torch on 19 cases",
        "compare",
    ):
        assert stage in text
    assert "warning" not in text
    assert text.rstrip().endswith(" s")
