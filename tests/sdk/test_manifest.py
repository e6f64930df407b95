"""Schema 1, key by key: what a manifest must say, and the message when it does not."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from bundles import DIFFUSION

from clickmask.backends.fake import fake_manifest
from clickmask.crop import CropPolicy
from clickmask.errors import BundleError
from clickmask.manifest import ArtefactFile, Checkpoint, Manifest, PixelDiffusionSpec
from clickmask.native_diffusion import DiffusionOptions


def document(**options: Any) -> Any:
    """A valid manifest as JSON values."""
    return json.loads(fake_manifest(**options).to_json())


def with_value(path: str, value: Any, **options: Any) -> Any:
    """A valid manifest with one place changed; the path is as in the messages, without the ``$.``."""
    changed = copy.deepcopy(document(**options))
    *parents, last = path.replace("[", ".[").split(".")
    place = changed
    for key in parents:
        place = place[int(key[1:-1])] if key.startswith("[") else place[key]
    if last.startswith("["):
        place[int(last[1:-1])] = value
    else:
        place[last] = value
    return changed


def read(value: Any) -> Manifest:
    return Manifest.from_json(json.dumps(value))


# What is accepted


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


# What is refused: each place, what was expected, what came

HEX = "0" * 64
FILES = "artefacts[0].files.network"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("name", "", r"\$\.name: expected 1 to 512 printable characters, got ''"),
        ("name", 7, r"\$\.name: expected a string, got 7"),
        ("name", "a\x1b[31m", r"\$\.name: expected 1 to 512 printable"),
        ("name", "\ud800", r"\$\.name: expected 1 to 512 printable"),
        ("name", "x" * 513, r"\$\.name: expected 1 to 512 printable"),
        ("family", None, r"\$\.family: expected a string, got None"),
        ("preset", [], r"\$\.preset: expected a string"),
        ("source", "x", r"\$\.source: expected an object, got 'x'"),
        ("source.checkpoint", "a/b.pt", r"\$\.source\.checkpoint: expected a plain file name"),
        ("source.sha256", HEX[1:], r"\$\.source\.sha256: expected a sha256"),
        ("source.sha256", "A" * 64, r"\$\.source\.sha256: expected .* lower-case"),
        ("input.sizes", [], r"\$\.input\.sizes: expected an array of 1 to"),
        ("input.sizes", 64, r"\$\.input\.sizes: expected an array, got 64"),
        ("input.sizes", [48], r"\$\.input\.sizes\[0\]: expected an integer from 64 to 2048, got 48"),
        ("input.sizes", [2080], r"\$\.input\.sizes\[0\]: expected an integer from 64 to 2048"),
        ("input.sizes", [80], r"\$\.input\.sizes: expected ascending multiples of 32, each once, got \[80\]"),
        ("input.sizes", [128, 64], r"\$\.input\.sizes: expected ascending"),
        ("input.sizes", [64, 64], r"\$\.input\.sizes: expected ascending"),
        ("input.sizes", [64.0], r"\$\.input\.sizes\[0\]: expected an integer"),
        ("input.sizes", [True], r"\$\.input\.sizes\[0\]: expected an integer"),
        ("input.fit", "crop", r"\$\.input\.fit: expected one of 'letterbox', 'squash', got 'crop'"),
        ("input.fit", ["squash"], r"\$\.input\.fit: expected one of"),
        ("input.pad", [0, 0], r"\$\.input\.pad: expected an array of 3 items, got 2 items"),
        ("input.pad", [0, 0, 255], r"\$\.input\.pad\[2\]: expected a number from 0 to 1, got 255"),
        ("input.coordinates", "corner", r"\$\.input\.coordinates: expected one of 'half_pixel', 'public'"),
        ("input.std", [1, 1, 0], r"\$\.input\.std\[2\]: expected a number from 1e-06"),
        ("input.previous_mask", 1, r"\$\.input\.previous_mask: expected true or false, got 1"),
        ("input.max_clicks", 0, r"\$\.input\.max_clicks: expected an integer from 1 to 1024, got 0"),
        ("input.max_clicks", 1025, r"\$\.input\.max_clicks: expected an integer from 1 to 1024"),
        ("click_maps.radius", 0, r"\$\.click_maps\.radius: expected a number between 0 and 2048, got 0"),
        (
            "crop.kind",
            "zoom",
            r"\$\.crop\.kind: expected one of 'paper', 'fbrs', 'stable', 'global_to_local', 'none'",
        ),
        ("crop.start_click", 0, r"\$\.crop\.start_click: expected an integer from 1"),
        ("crop.expansion", 0.9, r"\$\.crop\.expansion: expected a number from 1"),
        ("crop.min_size", 0, r"\$\.crop\.min_size: expected an integer from 1"),
        ("crop.min_fraction", 1.1, r"\$\.crop\.min_fraction: expected a number from 0 to 1"),
        (
            "crop.small_object_expansion",
            0.5,
            r"\$\.crop\.small_object_expansion: expected a number from 1 to 100",
        ),
        ("crop.hysteresis_iou", -0.1, r"\$\.crop\.hysteresis_iou: expected a number from 0 to 1"),
        ("flip_averaging", "yes", r"\$\.flip_averaging: expected true or false"),
        ("threshold", 0, r"\$\.threshold: expected a number between 0 and 1, got 0"),
        ("threshold", 1, r"\$\.threshold: expected a number between 0 and 1, got 1"),
        ("threshold", True, r"\$\.threshold: expected a number between 0 and 1, got True"),
        ("pixel_diffusion", {}, r"\$\.pixel_diffusion: expected the key 'iterations'"),
        ("artefacts", [], r"\$\.artefacts: expected an array of 1 to 64 items, got 0 items"),
        ("artefacts", {}, r"\$\.artefacts: expected an array"),
        ("artefacts[0].backend", "openvino", r"\$\.artefacts\[0\]\.backend: expected one of 'onnxruntime'"),
        (
            "artefacts[0].precision",
            "int4",
            r"artefacts\[0\]\.precision: expected one of 'fp32', 'fp16', 'int8'",
        ),
        ("artefacts[0].engine", {}, r"\$\.artefacts\[0\]: expected only the keys .*, got also \['engine'\]"),
        (
            "artefacts[0].weights",
            {},
            r"\$\.artefacts\[0\]: expected only the keys .*, got also \['weights'\]",
        ),
        ("artefacts[0].device", "tpu", r"\$\.artefacts\[0\]\.device: expected one of 'any', 'cpu', 'cuda'"),
        ("artefacts[0].opset", None, r"\$\.artefacts\[0\]\.opset: expected the ONNX opset"),
        ("artefacts[0].parity", {}, r"\$\.artefacts\[0\]\.parity: expected at least one kind of image"),
        ("artefacts[0].parity.synthetic.iou", 1.5, r"parity\.synthetic\.iou: expected a number from 0 to 1"),
        ("artefacts[0].parity.synthetic.sign_flips", 3, r"sign_flips: expected a number from 0 to 1, got 3"),
        ("artefacts[0].parity.synthetic.max_error", -1, r"max_error: expected a number from 0"),
        ("artefacts[0].tools", {"onnx": 1}, r"\$\.artefacts\[0\]\.tools\.onnx: expected a string, got 1"),
        ("artefacts[0].tools", {"": "1"}, r"\$\.artefacts\[0\]\.tools key: expected 1 to 512 printable"),
        (f"{FILES}.sha256", "z" * 64, r"files\.network\.sha256: expected a sha256"),
        (f"{FILES}.bytes", 0, r"files\.network\.bytes: expected an integer from 1"),
        (f"{FILES}.bytes", (4 << 30) + 1, r"files\.network\.bytes: expected an integer from 1 to 4294967296"),
        (f"{FILES}.bytes", 1.5, r"files\.network\.bytes: expected an integer"),
        ("created", "yesterday", r"\$\.created: expected an ISO 8601 date such as"),
        ("created", "2026-13-01", r"\$\.created: expected an ISO 8601 date"),
    ],
)
def test_value_that_is_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read(with_value(path, value))


@pytest.mark.parametrize(
    "place",
    ["", "source", "input", "click_maps", "crop", "graphs.network", "artefacts[0]", FILES],
)
def test_each_key_is_required_and_no_other_is_allowed(place: str) -> None:
    valid = document()
    found = valid
    for key in [part for part in place.replace("[", ".[").split(".") if part]:
        found = found[int(key[1:-1])] if key.startswith("[") else found[key]
    path = ("$." + place).rstrip(".").replace("$", r"\$").replace("[", r"\[")

    with pytest.raises(BundleError, match=rf"{path}: expected only the keys .* got also \['surprise'\]"):
        read(with_value(f"{place}.surprise".lstrip("."), 1))
    for key in list(found):
        without = copy.deepcopy(valid)
        parent = without
        for part in [part for part in place.replace("[", ".[").split(".") if part]:
            parent = parent[int(part[1:-1])] if part.startswith("[") else parent[part]
        del parent[key]
        with pytest.raises(BundleError, match=rf"{path}.*expected the (key '{key}'|tensors)"):
            read(without)


@pytest.mark.parametrize("schema", [0, 2, "1", None, True, 1.0])
def test_another_schema_is_named_before_anything_else(schema: Any) -> None:
    with pytest.raises(BundleError, match=r"\$\.schema: expected 1 \(rebuild the bundle .*\), got"):
        read({"schema": schema, "keys": "of the future"})


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../model.onnx",
        "/etc/passwd",
        "sub/model.onnx",
        "sub\\model.onnx",
        "C:model.onnx",
        "model.onnx:stream",
        "model.onnx\x00",
        "model.onnx\n",
        ".hidden",
        "-rf",
        "model.",
        "modèle.onnx",
        "manifest.json",
        "x" * 256,
        3,
        None,
    ],
)
def test_path_that_is_no_plain_file_name(name: Any) -> None:
    with pytest.raises(BundleError, match=r"\$\.artefacts\[0\]\.files\.network\.path: expected"):
        read(with_value(f"{FILES}.path", name))


# Values that do not fit one another


def test_start_click_beyond_the_most_clicks() -> None:
    with pytest.raises(BundleError, match=r"\$\.crop: expected start_click of at most max_clicks = 2, got 3"):
        read(
            document(input={"max_clicks": 2})
            | {"crop": document()["crop"] | {"kind": "paper", "start_click": 3}}
        )


@pytest.mark.parametrize(
    "pipeline", [{}, {"encodes_once": True}, {"local_network": True}], ids=["network", "two_graphs", "two"]
)
def test_settings_and_graph_of_pixel_diffusion_come_together(pipeline: dict[str, Any]) -> None:
    with_it = document(**pipeline, pixel_diffusion=DIFFUSION)
    without = document(**pipeline)

    with pytest.raises(BundleError, match=r"\$\.pixel_diffusion: expected the settings of the graph 'pixel_"):
        read(with_it | {"pixel_diffusion": None})
    with pytest.raises(
        BundleError, match=r"\$\.pixel_diffusion: expected null without the graph 'pixel_diff"
    ):
        read(without | {"pixel_diffusion": DIFFUSION})


def test_pixel_diffusion_alone_is_no_pipeline() -> None:
    changed = document(pixel_diffusion=DIFFUSION)
    del changed["graphs"]["network"]

    with pytest.raises(
        BundleError, match=r"\$\.graphs: expected the graphs .*perhaps with 'pixel_diffusion'"
    ):
        read(changed)


@pytest.mark.parametrize(
    ("side", "tensor", "message"),
    [
        ("inputs", 0, r"inputs: expected the tensors \['clicks', 'image', 'logits'\], got"),
        ("inputs", 2, r"inputs: expected the tensors \['clicks', 'image', 'logits'\], got"),
        ("outputs", 0, r"outputs: expected the tensors \['diffused_logits'\], got \['other'\]"),
    ],
)
def test_tensors_of_pixel_diffusion(side: str, tensor: int, message: str) -> None:
    path = f"graphs.pixel_diffusion.{side}[{tensor}].name"

    with pytest.raises(BundleError, match=rf"\$\.graphs\.pixel_diffusion\.{message}"):
        read(with_value(path, "other", pixel_diffusion=DIFFUSION))


@pytest.mark.parametrize("encodes_once", [False, True], ids=["one_graph", "two_graphs"])
def test_artefact_without_a_file_for_a_graph(encodes_once: bool) -> None:
    changed = document(encodes_once=encodes_once)
    graph = "decoder" if encodes_once else "network"
    del changed["artefacts"][0]["files"][graph]

    with pytest.raises(BundleError, match=rf"\$\.artefacts\[0\]\.files: expected the key '{graph}'"):
        read(changed)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("source.local", None, r"\$\.source\.local: expected the checkpoint of the graph 'local_network'"),
        ("source.local.sha256", "F" * 64, r"\$\.source\.local\.sha256: expected a sha256"),
        ("source.local.local", None, r"\$\.source\.local: expected only the keys"),
        ("crop.kind", "paper", r"\$\.crop\.kind: expected 'global_to_local' with a graph 'local_network'"),
        (
            "graphs.local_network.outputs[0].shape",
            ["B", 1, "S/4", "S/4"],
            r"\$\.graphs\.local_network\.outputs",
        ),
    ],
)
def test_second_network_that_does_not_fit(path: str, value: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read(with_value(path, value, local_network=True))


def test_checkpoint_of_a_second_network_that_is_not_there() -> None:
    local = {"checkpoint": "b.pth", "sha256": "0" * 64}

    with pytest.raises(BundleError, match=r"\$\.source\.local: expected null without a 'local_network'"):
        read(with_value("source.local", local))


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["encoder"],
        ["decoder"],
        ["network", "encoder"],
        ["network", "encoder", "decoder"],
        ["local_network"],
        ["encoder", "decoder", "local_network"],
        ["main"],
    ],
)
def test_graph_set_that_is_no_pipeline(names: list[str]) -> None:
    changed = document()
    changed["graphs"] = {name: changed["graphs"]["network"] for name in names}

    with pytest.raises(BundleError, match=r"\$\.graphs: expected the graphs \{'network'\}, "):
        read(changed)


def _tensor(name: str, *shape: int | str, dtype: str = "float32") -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape)}


IMAGE = _tensor("image", "B", 3, "S", "S")
CLICKS = _tensor("clicks", "B", "M", 3)
MASK = _tensor("previous_mask", "B", 1, "S", "S")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([IMAGE, CLICKS], r"network\.inputs: expected the tensors \['clicks', 'image', 'previous_mask'\]"),
        (
            [IMAGE, CLICKS, MASK, _tensor("depth", "B")],
            r"got \['clicks', 'depth', 'image', 'previous_mask'\]",
        ),
        ([IMAGE, IMAGE, CLICKS, MASK], r"\$\.graphs\.network: expected each tensor name once"),
        (
            [_tensor("image", "B", "S", "S", 3), CLICKS, MASK],
            r"expected image to be float32 \['B', 3, 'S', 'S'\], got float32 \['B', 'S', 'S', 3\]",
        ),
        (
            [_tensor("image", "B", 3, "S", "S", dtype="float16"), CLICKS, MASK],
            r"image to be float32 .* got float16",
        ),
        (
            [_tensor("image", "B", 3, "S", "S", dtype="int8"), CLICKS, MASK],
            r"dtype: expected one of 'float32'",
        ),
        (
            [_tensor("image", 1, 3, "S", "S"), CLICKS, MASK],
            r"inputs\[0\]\.shape: expected the batch 'B' as first",
        ),
        (
            [_tensor("image", "B", 3, "H", "W"), CLICKS, MASK],
            r"shape\[2\]: expected a number, 'B', 'M', 'S' or 'S/n'",
        ),
        ([_tensor("image", "B", 0, "S", "S"), CLICKS, MASK], r"shape\[1\]: expected an integer from 1"),
        ([_tensor("image"), CLICKS, MASK], r"shape: expected an array of 1 to 8 items, got 0 items"),
        ([], r"network\.inputs: expected an array of 1 to 64 items"),
    ],
    ids=[
        "missing",
        "unknown",
        "twice",
        "axis_order",
        "half",
        "integer",
        "fixed_batch",
        "symbol",
        "zero",
        "no_shape",
        "none",
    ],
)
def test_network_inputs_that_the_run_time_cannot_feed(inputs: list[Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read(with_value("graphs.network.inputs", inputs))


def test_previous_mask_that_the_input_section_does_not_announce() -> None:
    with pytest.raises(BundleError, match=r"previous_mask exactly when input\.previous_mask is true"):
        read(with_value("input.previous_mask", False))


def test_network_without_logits() -> None:
    with pytest.raises(
        BundleError, match=r"network\.outputs: expected the tensors \['logits'\], got \['mask'\]"
    ):
        read(with_value("graphs.network.outputs", [_tensor("mask", "B", 1, "S", "S")]))


def test_feature_that_the_encoder_does_not_give() -> None:
    changed = document(encodes_once=True)
    changed["graphs"]["decoder"]["inputs"][0]["name"] = "feature_1"

    with pytest.raises(BundleError, match=r"decoder\.inputs: expected the tensors \['clicks', 'feature_0'"):
        read(changed)


def test_feature_of_another_shape_on_the_other_side() -> None:
    changed = document(encodes_once=True)
    changed["graphs"]["decoder"]["inputs"][0]["shape"][1] = 5

    with pytest.raises(BundleError, match="expected feature_0 to be"):
        read(changed)


def test_encoder_outputs_that_are_not_numbered_features() -> None:
    changed = document(encodes_once=True)
    changed["graphs"]["encoder"]["outputs"][0]["name"] = "feature_7"

    with pytest.raises(BundleError, match="expected encoder outputs feature_0, feature_1"):
        read(changed)


def test_feature_stride_that_does_not_divide_a_size() -> None:
    changed = document(encodes_once=True)
    for tensor in (changed["graphs"]["encoder"]["outputs"][0], changed["graphs"]["decoder"]["inputs"][0]):
        tensor["shape"][2] = "S/64"

    with pytest.raises(
        BundleError, match=r"feature_0 dimensions that divide every size of \[64, 96, 128\], got S/64"
    ):
        read(changed)


# The writer


def test_writer_refuses_what_the_reader_would() -> None:
    with pytest.raises(BundleError, match=r"\$\.threshold: expected a number between 0 and 1, got 2"):
        dataclasses.replace(fake_manifest(), threshold=2.0).to_json()


def test_writer_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(BundleError, match="expected values that JSON can hold"):
        dataclasses.replace(fake_manifest(), threshold=float("nan")).to_json()
    with pytest.raises(BundleError, match="expected values that JSON can hold"):
        dataclasses.replace(fake_manifest(), name=b"bytes").to_json()  # type: ignore[arg-type]
