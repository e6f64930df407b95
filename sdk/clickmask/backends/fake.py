"""A backend without a runtime, for the tests of applications: a mask is a disk around each positive click."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..manifest import Manifest, TensorSpec, plain_json
from ..manifest_graphs import TENSORS
from ..manifest_reader import read_document
from .base import Backend

_STRIDE = 4


class FakeBackend(Backend):
    """Deterministic logits from clicks alone, counting its calls.

    The nearest click decides each pixel (of equally near ones the last): a positive click gives
    ``radius - distance`` in network pixels, a negative one ``-radius``; without clicks every logit is
    ``-radius``. Image and previous mask are checked and have no effect, and Pixel Diffusion leaves the logits
    as they are. docs/bundle.md has an example.

    Attributes:
        encode_calls: Calls of ``encode`` so far.
        decode_calls: Calls of ``decode`` so far.
    """

    def __init__(self, manifest: Manifest | None = None, radius: float = 12.0) -> None:
        """A manifest, by default ``fake_manifest()``, and the disks' radius in network pixels."""
        super().__init__("fake", "cpu", "made for a test", manifest or fake_manifest())
        self.radius = radius
        self.encode_calls = 0
        self.decode_calls = 0
        self._lock = threading.Lock()

    def _upload(self, array: np.ndarray) -> np.ndarray:
        with self._lock:
            self.encode_calls += 1
        return array

    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        if graph == "pixel_diffusion":
            return {"diffused_logits": feeds["logits"]}
        if graph == "encoder":
            return {"feature_0": np.ascontiguousarray(feeds["image"][:, :, ::_STRIDE, ::_STRIDE])}
        with self._lock:
            self.decode_calls += 1
        stride = _STRIDE if graph == "decoder" else 1
        size = feeds["feature_0" if graph == "decoder" else "image"].shape[-1] * stride
        return {"logits": np.stack([self._logits(rows, size) for rows in feeds["clicks"]])}

    def _logits(self, rows: np.ndarray, size: int) -> np.ndarray:
        """Clicks (M, 3) to logits (1, size, size) float32."""
        rows = rows[rows[:, 2] >= 0][::-1]  # argmin takes the first of equals: the last click
        if len(rows) == 0:
            return np.full((1, size, size), -self.radius, np.float32)
        y, x = np.mgrid[:size, :size].astype(np.float32)
        distances = np.hypot(x - rows[:, 0, None, None], y - rows[:, 1, None, None])  # (M, size, size)
        positive = rows[distances.argmin(axis=0), 2] > 0
        logits = np.where(positive, self.radius - distances.min(axis=0), -self.radius)
        return logits.astype(np.float32)[None]


def fake_manifest(*, encodes_once: bool = False, local_network: bool = False, **overrides: Any) -> Manifest:
    """A valid manifest for tests.

    Args:
        encodes_once: Two graphs, encoder and decoder, instead of one.
        local_network: Two networks, for the two passes of "global_to_local", which is then the crop policy.
        **overrides: Top-level keys of the manifest, as JSON values or the dataclasses. An object given for
            "input", "crop", "click_maps" or "source" replaces only the keys that it has, as in
            ``fake_manifest(input={"sizes": [64]})``.

    Raises:
        BundleError: The result is not a valid manifest.
    """
    document = _document()
    if local_network:
        document["source"]["local"] = {"checkpoint": "fake_local.safetensors", "sha256": "0" * 64}
        document["crop"]["kind"] = "global_to_local"
    for key, value in overrides.items():
        plain = plain_json(value)
        merge = isinstance(plain, Mapping) and key in ("input", "crop", "click_maps", "source")
        document[key] = {**document[key], **plain} if merge else plain
    graphs = _graphs(encodes_once, local_network, document["input"]["previous_mask"])
    document.setdefault("graphs", graphs | (_diffusion_graph() if document["pixel_diffusion"] else {}))
    document.setdefault("artefacts", [_artefact(list(document["graphs"]))])
    return read_document(document, "fake manifest")


def _document() -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "fake",
        "family": "fake",
        "preset": "fake",
        "source": {"checkpoint": "fake.safetensors", "sha256": "0" * 64, "local": None},
        "input": {
            "sizes": [64, 96, 128],
            "fit": "letterbox",
            "pad": [0.5, 0.5, 0.5],
            "coordinates": "half_pixel",
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
            "previous_mask": True,
            "max_clicks": 32,
        },
        "click_maps": {"kind": "disk", "radius": 5.0},
        "crop": {
            "kind": "none",
            "start_click": 1,
            "expansion": 1.4,
            "small_object_expansion": 1.0,
            "min_size": 32,
            "min_fraction": 0.0,
            "hysteresis_iou": 0.5,
            "close_above": None,
        },
        "flip_averaging": False,
        "threshold": 0.5,
        "momentum": 0.0,
        "pixel_diffusion": None,
        "created": "2026-01-01",
    }


def _graphs(encodes_once: bool, local_network: bool, previous_mask: bool) -> dict[str, Any]:
    known = plain_json(TENSORS)
    image, logits = known["image"], known["logits"]
    prompt = [known["clicks"], known["previous_mask"]] if previous_mask else [known["clicks"]]
    if not encodes_once:
        names = ("network", "local_network") if local_network else ("network",)
        return {name: {"inputs": [image, *prompt], "outputs": [logits]} for name in names}
    side = f"S/{_STRIDE}"
    feature = plain_json(TensorSpec("feature_0", "float32", ("B", 3, side, side)))
    return {
        "encoder": {"inputs": [image], "outputs": [feature]},
        "decoder": {"inputs": [feature, *prompt], "outputs": [logits]},
    }


def _diffusion_graph() -> dict[str, Any]:
    known = plain_json(TENSORS)
    inputs = [known["image"], known["clicks"], known["logits"]]
    return {"pixel_diffusion": {"inputs": inputs, "outputs": [known["diffused_logits"]]}}


def _artefact(graphs: list[str]) -> dict[str, Any]:
    return {
        "backend": "onnxruntime",
        "precision": "fp32",
        "device": "any",
        "files": {graph: {"path": f"{graph}.onnx", "sha256": "0" * 64, "bytes": 1} for graph in graphs},
        "parity": {"synthetic": {"iou": 1.0, "sign_flips": 0, "max_error": 0.0}},
        "opset": 18,
        "tools": {},
    }
