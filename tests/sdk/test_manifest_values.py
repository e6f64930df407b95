"""Schema 1, key by key: the message where a value is not what it must be."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from manifests import document, read, with_value

from clickmask.errors import BundleError

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
        ("crop.close_above", -0.1, r"\$\.crop\.close_above: expected a number from 0 to 100"),
        ("crop.hysteresis_iou", -0.1, r"\$\.crop\.hysteresis_iou: expected a number from 0 to 1"),
        ("momentum", -0.1, r"\$\.momentum: expected a number from 0 to 0.9"),
        ("momentum", 1, r"\$\.momentum: expected a number from 0 to 0.9"),
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
