"""Schema 1: what a manifest may say, and what is written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from bundles import DIFFUSION
from manifests import document, read, with_value

from clickmask.backends.fake import fake_manifest
from clickmask.crop import CropPolicy
from clickmask.errors import BundleError
from clickmask.manifest import ArtefactFile, Checkpoint, Manifest, PixelDiffusionSpec
from clickmask.native_diffusion import DiffusionOptions


def test_every_key_arrives() -> None:
    manifest = read(document(input={"sizes": [64, 128]}, name="lamp"))

    assert manifest.schema == 1
    assert manifest.name == "lamp"
    assert manifest.input.sizes == (64, 128)
    assert manifest.input.pad == (0.5, 0.5, 0.5)
    assert manifest.crop == CropPolicy("none", 1, 1.4, 1.0, 32, 0.0, 0.5)
    assert manifest.graphs["network"].inputs[0].shape == ("B", 3, "S", "S")
    assert manifest.artefacts[0].files["network"] == ArtefactFile("network.onnx", "0" * 64, 1)
    assert manifest.artefacts[0].parity["synthetic"].iou == 1.0
    assert manifest.pixel_diffusion is None
    assert not manifest.encodes_once


@pytest.mark.parametrize(
    "pipeline",
    [{}, {"encodes_once": True}, {"local_network": True}, {"pixel_diffusion": DIFFUSION}],
    ids=["one_graph", "two_graphs", "two_networks", "pixel_diffusion"],
)
def test_what_is_written_reads_back_the_same(pipeline: dict[str, Any]) -> None:
    manifest = fake_manifest(**pipeline, flip_averaging=True)

    assert Manifest.from_json(manifest.to_json()) == manifest


def test_two_networks() -> None:
    manifest = read(document(local_network=True, crop={"small_object_expansion": 2.5}))

    assert manifest.has_local_network
    assert not manifest.encodes_once
    assert manifest.source.local == Checkpoint("fake_local.safetensors", "0" * 64)
    assert manifest.graphs["local_network"] == manifest.graphs["network"]
    assert set(manifest.artefacts[0].files) == {"network", "local_network"}
    assert manifest.crop == CropPolicy("global_to_local", 1, 1.4, 2.5, 32, 0.0, 0.5)


def test_pixel_diffusion_with_and_without_options() -> None:
    plain = PixelDiffusionSpec(10, (1, 2, 4, 8), 0.01, 1e-5, "std")
    more = dataclasses.replace(plain, options={"guide": "rgb", "steps": 2, "rate": 0.5, "on": True})

    for spec in (plain, more):
        manifest = fake_manifest(pixel_diffusion=json.loads(json.dumps(_without_empty_options(spec))))
        assert Manifest.from_json(manifest.to_json()).pixel_diffusion == spec


def _without_empty_options(spec: PixelDiffusionSpec) -> dict[str, Any]:
    values = dataclasses.asdict(spec)
    return values if values["options"] else {k: v for k, v in values.items() if k != "options"}


def test_decoder_may_take_the_image_again() -> None:
    changed = document(encodes_once=True)
    changed["graphs"]["decoder"]["inputs"].append(
        {"name": "image", "dtype": "float32", "shape": ["B", 3, "S", "S"]}
    )

    assert read(changed).encodes_once


def test_features_may_be_float16_and_several() -> None:
    changed = document(encodes_once=True)
    features = [
        {"name": f"feature_{i}", "dtype": "float16", "shape": ["B", 8, f"S/{2**i}", 1]} for i in range(3)
    ]
    changed["graphs"]["encoder"]["outputs"] = features
    changed["graphs"]["decoder"]["inputs"][:1] = features

    assert len(read(changed).graphs["encoder"].outputs) == 3


def test_order_of_a_graph_s_inputs_is_free_and_kept() -> None:
    changed = document()
    changed["graphs"]["network"]["inputs"].reverse()

    names = [tensor.name for tensor in read(changed).graphs["network"].inputs]

    assert names == ["previous_mask", "clicks", "image"]


def test_bytes_and_text_are_both_read() -> None:
    text = fake_manifest().to_json()

    assert Manifest.from_json(text) == Manifest.from_json(text.encode())


def test_an_integer_stands_for_a_number() -> None:
    assert read(with_value("crop.expansion", 2)).crop.expansion == 2.0


def test_manifest_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        fake_manifest().name = "other"  # type: ignore[misc]


def _worked_examples() -> list[Any]:
    """The JSON blocks of docs/bundle.md."""
    text = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text(encoding="utf-8")
    return [json.loads(block.split("```")[0]) for block in text.split("```json")[1:]]


def test_worked_examples_of_the_document_are_valid() -> None:
    whole, two_graphs = _worked_examples()
    file = whole["artefacts"][0]["files"]["network"]
    graphs = {**two_graphs, "pixel_diffusion": whole["graphs"]["pixel_diffusion"]}
    files = {graph: {**file, "path": f"{graph}.onnx"} for graph in graphs}

    assert read(whole).artefacts[0].opset == 18
    artefacts = [{**whole["artefacts"][0], "files": files}]
    assert read({**whole, "graphs": graphs, "artefacts": artefacts}).encodes_once


def test_worked_example_states_what_the_kernel_needs() -> None:
    spec = read(_worked_examples()[0]).pixel_diffusion

    assert spec is not None
    assert DiffusionOptions.from_spec(spec).problem() is None


def test_writer_refuses_what_the_reader_would() -> None:
    with pytest.raises(BundleError, match=r"\$\.threshold: expected a number between 0 and 1, got 2"):
        dataclasses.replace(fake_manifest(), threshold=2.0).to_json()


def test_writer_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(BundleError, match="expected values that JSON can hold"):
        dataclasses.replace(fake_manifest(), threshold=float("nan")).to_json()
    with pytest.raises(BundleError, match="expected values that JSON can hold"):
        dataclasses.replace(fake_manifest(), name=b"bytes").to_json()  # type: ignore[arg-type]
