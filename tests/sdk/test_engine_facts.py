"""The key ``engine`` of the manifest: what is accepted, refused, and written back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bundles import artefact, change_manifest, engine, facts_of, file_entry, make_bundle, read_manifest

from clickmask.bundle import load_bundle
from clickmask.errors import BundleError
from clickmask.manifest import plain_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle", backends=("tensorrt",))


def with_plan(folder: Path, changes: dict[str, Any] | None = None, **facts: Any) -> None:
    """Alters the one artefact and its engine."""
    plan = read_manifest(folder)["artefacts"][0]
    change_manifest(folder, artefacts=[{**plan, "engine": engine(**facts), **(changes or {})}])


def test_facts_survive_their_own_text() -> None:
    document = engine(
        flavour="lean",
        version_compatible=True,
        lean_runtime_inside=True,
        flags=["VERSION_COMPATIBLE", "STRICT_NANS"],
        half_share=0.875,
        fp32_layers={"softmax": ["/fdm/Softmax", "/fdm/MatMul"], "loss": []},
    )

    facts = facts_of(json.loads(json.dumps(document)))

    assert plain_json(facts) == document
    assert facts.fp32_layers["softmax"] == ("/fdm/Softmax", "/fdm/MatMul")


def test_facts_survive_the_manifest(folder: Path) -> None:
    with_plan(folder, half_share=0.5, fp32_layers={"softmax": ["a"]})
    manifest = load_bundle(folder).manifest

    again = manifest.from_json(manifest.to_json())

    assert again == manifest
    assert again.artefacts[0].engine == facts_of(engine(half_share=0.5, fp32_layers={"softmax": ["a"]}))


def test_profile_of_a_size_and_a_batch() -> None:
    rows = [(64, 1, 1), (96, 1, 1), (64, 2, 8)]
    profiles = [{"size": s, "min_batch": a, "opt_batch": a, "max_batch": b} for s, a, b in rows]
    facts = facts_of(engine(profiles=profiles))

    assert [facts.profile(*call) for call in ((64, 1), (64, 2), (64, 9), (96, 1), (96, 2), (32, 1))] == [
        0,
        2,
        None,
        1,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"tensorrt": "11"}, r"\$\.tensorrt: expected a version such as '11\.4\.0\.106', got '11'"),
        ({"tensorrt": "11.4.0.106; rm"}, r"\$\.tensorrt: expected a version"),
        ({"flavour": "fat"}, r"\$\.flavour: expected one of 'full', 'lean'"),
        ({"flavour": "lean"}, r"\$\.flavour: expected 'full' for a plan that is not version_compatible"),
        ({"lean_runtime_inside": True}, r"\$\.lean_runtime_inside: expected false for a plan"),
        ({"compute_capability": "sm_90"}, r"\$\.compute_capability: expected a number such as '9\.0'"),
        ({"compute_capability": 9.0}, r"\$\.compute_capability: expected a string"),
        ({"hardware_compatibility": "all"}, r"\$\.hardware_compatibility: expected one of 'none', 'amp"),
        ({"version_compatible": 1}, r"\$\.version_compatible: expected true or false"),
        ({"gpu_name": ""}, r"\$\.gpu_name: expected 1 to 512 printable"),
        ({"platform": None}, r"\$\.platform: expected a string"),
        ({"flags": [19]}, r"\$\.flags\[0\]: expected a string"),
        ({"profiles": []}, r"\$\.profiles: expected an array of 1 to"),
        ({"workspace_bytes": -1}, r"\$\.workspace_bytes: expected an integer from 0"),
        ({"half_share": 1.1}, r"\$\.half_share: expected a number from 0 to 1"),
        ({"fp32_layers": ["a"]}, r"\$\.fp32_layers: expected an object"),
        ({"fp32_layers": {"softmax": "a"}}, r"\$\.fp32_layers\.softmax: expected an array"),
        ({"sm": 90}, r"\$: expected only the keys .*, got also \['sm'\]"),
    ],
)
def test_facts_that_are_refused(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=f"^engine: {message}"):
        facts_of(engine(**facts))


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ((2, 1, 8), r"expected min_batch <= opt_batch <= max_batch, got 2, 1, 8"),
        ((0, 1, 8), r"min_batch: expected an integer from 1 to 1024, got 0"),
    ],
)
def test_profile_that_is_refused(batches: tuple[int, int, int], message: str) -> None:
    keys = dict(zip(("min_batch", "opt_batch", "max_batch"), batches, strict=True))

    with pytest.raises(BundleError, match=rf"\$\.profiles\[0\].*{message}"):
        facts_of(engine(profiles=[{"size": 64, **keys}]))


def test_fact_that_is_missing() -> None:
    facts = engine()
    del facts["gpu_name"]

    with pytest.raises(BundleError, match=r"expected the key 'gpu_name'"):
        facts_of(facts)


def test_plan_without_facts(folder: Path) -> None:
    plan = read_manifest(folder)["artefacts"][0]
    del plan["engine"]
    change_manifest(folder, artefacts=[plan])

    with pytest.raises(BundleError, match=r"\$\.artefacts\[0\]: expected the key 'engine'"):
        load_bundle(folder)


def test_plan_runs_on_cuda_only(folder: Path) -> None:
    with_plan(folder, {"device": "any"})

    with pytest.raises(BundleError, match=r"\$\.artefacts\[0\]\.device: expected 'cuda'"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([64, 96], r"for each of input\.sizes \[64, 96, 128\] one that takes 1 image, got none for \[128\]"),
        ([64, 96, 128, 160], r"got some for \[160\]"),
    ],
)
def test_profiles_are_for_the_bundles_sizes(folder: Path, sizes: list[int], message: str) -> None:
    with_plan(folder, profiles=[{"size": s, "min_batch": 1, "opt_batch": 1, "max_batch": 2} for s in sizes])

    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


def test_every_size_takes_one_image(folder: Path) -> None:
    with_plan(
        folder, profiles=[{"size": s, "min_batch": 2, "opt_batch": 2, "max_batch": 2} for s in (64, 96, 128)]
    )

    with pytest.raises(BundleError, match=r"got none for \[64, 96, 128\]"):
        load_bundle(folder)


def test_half_precision_is_proven(folder: Path) -> None:
    with_plan(folder, {"precision": "fp16"})
    with pytest.raises(
        BundleError, match=r"half_share: expected more than 0 of a plan whose precision is 'fp16'"
    ):
        load_bundle(folder)

    with_plan(folder, {"precision": "fp16"}, half_share=0.9)
    assert load_bundle(folder).manifest.artefacts[0].precision == "fp16"


def test_weights_come_with_a_stripped_plan_and_no_other(folder: Path) -> None:
    (folder / "network.onnx").write_bytes(b"weights")
    weights = {"weights": {"network": file_entry(folder / "network.onnx")}}
    for changes, stripped in (({}, True), (weights, False)):
        with_plan(folder, changes, stripped=stripped)
        with pytest.raises(
            BundleError, match=r"stripped: expected true exactly when the artefact has the key"
        ):
            load_bundle(folder)

    with_plan(folder, weights, stripped=True)
    assert load_bundle(folder).manifest.artefacts[0].weights["network"].path == "network.onnx"


def test_weights_are_hashed_like_any_file(folder: Path) -> None:
    (folder / "network.onnx").write_bytes(b"weights")
    with_plan(folder, {"weights": {"network": file_entry(folder / "network.onnx")}}, stripped=True)
    (folder / "network.onnx").write_bytes(b"weighty")

    with pytest.raises(BundleError, match=r"'network\.onnx' with sha256 .* it was altered"):
        load_bundle(folder)


def test_other_artefacts_have_no_engine_in_their_text(tmp_path: Path) -> None:
    manifest = load_bundle(make_bundle(tmp_path / "onnx")).manifest

    written = json.loads(manifest.to_json())["artefacts"][0]

    assert set(written) == set(artefact("onnxruntime", {}))
