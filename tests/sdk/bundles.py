"""Tiny bundles that the tests make themselves, with the NumPy truth of what their graphs compute.

The network: the mean of the image's channels, plus 0.25 for each positive click, plus half the previous mask.
With two graphs the encoder averages 4 x 4 blocks and the decoder enlarges them again. A second network adds
``LOCAL_BIAS`` to what the first one gives. Pixel Diffusion is a stand-in too: half the logits, plus the mean
of the image's channels, minus 0.125 for each positive click.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from clickmask.backends.fake import fake_manifest
from clickmask.engine_facts import EngineFacts, read_engine
from clickmask.manifest import Manifest
from clickmask.strict_json import Node

STRIDE = 4
CLICK_WEIGHT = 0.25
MASK_WEIGHT = 0.5
LOCAL_BIAS = 0.125
LOGIT_WEIGHT, DIFFUSED_CLICK_WEIGHT = 0.5, -0.125

SUFFIX = {"onnxruntime": "onnx", "torchscript": "ts", "tensorrt": "plan"}

DIFFUSION = {"iterations": 10, "dilations": [1, 2, 4, 8], "amplitude": 1.0, "eps": 1e-4, "norm": "tanh_half"}
"""Settings without the options that the fused kernel needs: the graph runs everywhere."""


def expected_logits(
    image: np.ndarray, clicks: np.ndarray, previous_mask: np.ndarray | None, encodes_once: bool
) -> np.ndarray:
    """The tiny network in NumPy, in float64."""
    batch, channels, size, _ = image.shape
    body = image.astype(np.float64)
    if encodes_once:
        blocks = body.reshape(batch, channels, size // STRIDE, STRIDE, size // STRIDE, STRIDE).mean((3, 5))
        body = blocks.repeat(STRIDE, axis=2).repeat(STRIDE, axis=3)
    logits = body.mean(axis=1, keepdims=True)
    labels = np.maximum(clicks[:, :, 2], 0)  # padding, -1, must not change the result
    logits = logits + CLICK_WEIGHT * labels.sum(axis=1, dtype=np.float64)[:, None, None, None]
    return logits if previous_mask is None else logits + MASK_WEIGHT * previous_mask


def expected_diffusion(image: np.ndarray, clicks: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The stand-in for Pixel Diffusion in NumPy, in float64."""
    clicked = np.maximum(clicks[:, :, 2], 0).sum(axis=1, dtype=np.float64)[:, None, None, None]
    grey = image.astype(np.float64).mean(axis=1, keepdims=True)
    return LOGIT_WEIGHT * logits + grey + DIFFUSED_CLICK_WEIGHT * clicked


def prompt(batch: int, size: int, slots: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random image, clicks (padding included) and previous mask."""
    random = np.random.default_rng(seed)
    image = random.random((batch, 3, size, size), dtype=np.float32)
    clicks = random.random((batch, slots, 3), dtype=np.float32) * size
    clicks[:, :, 2] = random.integers(0, 2, (batch, slots))
    clicks[:, slots // 2 + 1 :] = -1
    return image, clicks, random.random((batch, 1, size, size), dtype=np.float32)


def make_bundle(
    folder: Path,
    *,
    encodes_once: bool = False,
    local_network: bool = False,
    backends: tuple[str, ...] = ("onnxruntime",),
    bias: float = 0.0,
    **overrides: Any,
) -> Path:
    """Write a bundle whose files are all in order; ``bias`` is added to its logits.

    Overrides are those of ``fake_manifest``; with ``pixel_diffusion=DIFFUSION`` its graph is written too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = fake_manifest(encodes_once=encodes_once, local_network=local_network, **overrides)
    previous_mask = manifest.input.previous_mask
    artefacts = []
    for backend in backends:
        files = {}
        for graph in manifest.graphs:
            path = folder / f"{graph}.{SUFFIX[backend]}"
            if backend == "tensorrt":
                _write_plan(path, graph, manifest, bias)
            else:
                write = _write_onnx if backend == "onnxruntime" else _write_torchscript
                write(path, graph, previous_mask, bias + LOCAL_BIAS * (graph == "local_network"))
            files[graph] = file_entry(path)
        artefacts.append(artefact(backend, files))
    write_manifest(folder, json.loads(fake_manifest_text(manifest, artefacts)))
    return folder


def fake_manifest_text(manifest: Manifest, artefacts: list[dict[str, Any]]) -> str:
    return json.dumps({**json.loads(manifest.to_json()), "artefacts": artefacts})


def artefact(backend: str, files: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "backend": backend,
        "precision": "fp32",
        "device": "cuda" if backend == "tensorrt" else "any",
        "files": files,
        "parity": {"synthetic": {"iou": 1.0, "sign_flips": 0, "max_error": 0.0}},
        "opset": 18 if backend == "onnxruntime" else None,
        "tools": {"test": "1"},
        **({"engine": engine()} if backend == "tensorrt" else {}),
        **changes,
    }


def engine(**changes: Any) -> dict[str, Any]:
    """Facts of a plan for the sizes of ``fake_manifest``."""
    return {
        "tensorrt": "11.4.0.106",
        "flavour": "full",
        "platform": "linux x86_64",
        "gpu_name": "NVIDIA H100 80GB HBM3",
        "compute_capability": "9.0",
        "hardware_compatibility": "none",
        "version_compatible": False,
        "lean_runtime_inside": False,
        "stripped": False,
        "flags": ["STRIP_PLAN"],
        "profiles": [
            {"size": size, "min_batch": 1, "opt_batch": 1, "max_batch": 8} for size in (64, 96, 128)
        ],
        "workspace_bytes": 1 << 30,
        "half_share": 0.0,
        "fp32_layers": {},
        **changes,
    }


def facts_of(document: Any) -> EngineFacts:
    """What such an object says, read as a manifest's."""
    return read_engine(Node(document, "$", "engine"))


def file_entry(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"path": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def read_manifest(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text())


def write_manifest(folder: Path, document: Any) -> None:
    (folder / "manifest.json").write_text(json.dumps(document))


def change_manifest(folder: Path, **changes: Any) -> None:
    """Replace top-level keys of a bundle's manifest."""
    write_manifest(folder, {**read_manifest(folder), **changes})


def _write_plan(path: Path, graph: str, manifest: Manifest, bias: float) -> None:
    """What tensorrt_double.py takes for a plan."""
    spec = manifest.graphs[graph]
    tensors = [
        [tensor.name, tensor.dtype, tensor.shape, mode]
        for mode, side in (("INPUT", spec.inputs), ("OUTPUT", spec.outputs))
        for tensor in side
    ]
    profiles = len(engine()["profiles"])
    facts = {"graph": graph, "bias": bias, "tensors": tensors, "profiles": profiles}
    path.write_text(json.dumps(facts))


def _write_onnx(path: Path, graph: str, previous_mask: bool, bias: float) -> None:
    from onnx import TensorProto, checker, helper, save

    def value(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))

    image, feature = value("image", "B", 3, "S", "S"), value("feature_0", "B", 3, "s", "s")
    if graph == "pixel_diffusion":
        body = _onnx_diffusion()
        inputs = [image, value("clicks", "B", "M", 3), value("logits", "B", 1, "S", "S")]
        outputs = [value("diffused_logits", "B", 1, "S", "S")]
    elif graph == "encoder":
        sides = {"kernel_shape": [STRIDE, STRIDE], "strides": [STRIDE, STRIDE]}
        body = [helper.make_node("AveragePool", ["image"], ["feature_0"], **sides)]
        inputs, outputs = [image], [feature]
    else:
        body = _onnx_body(graph == "decoder", previous_mask)
        inputs = [feature if graph == "decoder" else image, value("clicks", "B", "M", 3)]
        inputs += [value("previous_mask", "B", 1, "S", "S")] if previous_mask else []
        outputs = [value("logits", "B", 1, "S", "S")]
    constants = [] if graph == "encoder" else _onnx_constants(bias)
    model = helper.make_model(
        helper.make_graph(body, graph, inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    checker.check_model(model)
    save(model, str(path))


def _onnx_constants(bias: float) -> list[Any]:
    from onnx import TensorProto, helper

    integers = {"axis_1": 1, "axis_2": 2, "axis_3": 3}
    numbers = {"click_weight": CLICK_WEIGHT, "mask_weight": MASK_WEIGHT, "bias": bias}
    numbers |= {"logit_weight": LOGIT_WEIGHT, "diffused_click_weight": DIFFUSED_CLICK_WEIGHT}
    return [
        *(helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in integers.items()),
        *(helper.make_tensor(name, TensorProto.FLOAT, [1], [value]) for name, value in numbers.items()),
        helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, STRIDE, STRIDE]),
    ]


def _onnx_body(enlarge: bool, previous_mask: bool) -> list[Any]:
    from onnx.helper import make_node as node

    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    body = [node("Resize", ["feature_0", "", "scales"], ["enlarged"], **nearest)] if enlarge else []
    body += _onnx_grey_and_clicks("enlarged" if enlarge else "image", "click_weight")
    body += [
        node("Add", ["with_clicks", "bias"], ["with_bias" if previous_mask else "logits"]),
    ]
    if previous_mask:
        body += [
            node("Mul", ["previous_mask", "mask_weight"], ["mask_term"]),
            node("Add", ["with_bias", "mask_term"], ["logits"]),
        ]
    return body


def _onnx_grey_and_clicks(pixels: str, weight: str) -> list[Any]:
    """``with_clicks``: the mean of the channels plus the weighted number of positive clicks."""
    from onnx.helper import make_node as node

    return [
        node("ReduceMean", [pixels, "axis_1"], ["grey"], keepdims=1),
        node("Slice", ["clicks", "axis_2", "axis_3", "axis_2"], ["labels"]),
        node("Relu", ["labels"], ["positive"]),
        node("ReduceSum", ["positive", "axis_1"], ["label_sum"], keepdims=1),
        node("Mul", ["label_sum", weight], ["click_term"]),
        node("Unsqueeze", ["click_term", "axis_3"], ["click_map"]),
        node("Add", ["grey", "click_map"], ["with_clicks"]),
    ]


def _onnx_diffusion() -> list[Any]:
    from onnx.helper import make_node as node

    return [
        *_onnx_grey_and_clicks("image", "diffused_click_weight"),
        node("Mul", ["logits", "logit_weight"], ["half"]),
        node("Add", ["half", "with_clicks"], ["diffused_logits"]),
    ]


def _write_torchscript(path: Path, graph: str, previous_mask: bool, bias: float) -> None:
    import torch
    import torch_graphs

    with warnings.catch_warnings():  # torch deprecates TorchScript as a whole
        warnings.simplefilter("ignore", DeprecationWarning)
        if graph == "pixel_diffusion":
            module: Any = torch_graphs.PixelDiffusion()
        elif graph == "encoder":
            module = torch_graphs.Encoder()
        elif previous_mask:
            module = torch_graphs.Decoder(graph == "decoder", bias)
        else:
            module = torch_graphs.DecoderWithoutMask(graph == "decoder", bias)
        torch.jit.script(module).save(str(path))
