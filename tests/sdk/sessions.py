"""Helpers for the session tests: segmenters without a network, images, and slow references in plain NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clickmask.backends.fake import FakeBackend, fake_manifest
from clickmask.bundle import Bundle
from clickmask.segmenter import Segmenter
from clickmask.session import Session

CROP = {"kind": "paper", "start_click": 2, "min_size": 40}
WHOLE_AND_CLOSE = {"kind": "none", "start_click": 1, "close_above": 1.0}
GLOBAL_TO_LOCAL = {"kind": "global_to_local", "start_click": 1, "min_size": 1}


class RecordingBackend(FakeBackend):
    """The fake backend, remembering what it was fed; it can be told to fail or to echo the previous mask.

    With `echo`, pixels under the previous mask stay object: the previous mask then matters, as in a network.
    """

    def __init__(self, *args: Any, echo: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.echo = echo
        self.images: list[np.ndarray] = []
        self.decoded: list[dict[str, np.ndarray]] = []
        self.graphs: list[str] = []
        self.fail_encode = self.fail_decode = False

    def _upload(self, array: np.ndarray) -> np.ndarray:
        if self.fail_encode:
            raise RuntimeError("encode broke")
        self.images.append(array.copy())
        return super()._upload(array)

    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        if "clicks" in feeds:
            if self.fail_decode:
                raise RuntimeError("decode broke")
            self.decoded.append({name: np.array(value) for name, value in feeds.items()})
            self.graphs.append(graph)
        outputs = super()._run(graph, feeds)
        if self.echo and "previous_mask" in feeds:
            outputs["logits"] = outputs["logits"] + 20 * feeds["previous_mask"]
        return outputs


def make_segmenter(radius: float = 12.0, echo: bool = False, **overrides: Any) -> Segmenter:
    """A segmenter on a recording fake backend; overrides go to `fake_manifest`."""
    manifest = fake_manifest(**overrides)
    return Segmenter(Bundle(Path("nowhere"), manifest), RecordingBackend(manifest, radius, echo=echo))


def make_image(width: int, height: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def new_session(width: int = 120, height: int = 100, **overrides: Any) -> tuple[Session, RecordingBackend]:
    """A session on noise, and its backend; overrides go to `make_segmenter`."""
    segmenter = make_segmenter(**overrides)
    assert isinstance(segmenter.backend, RecordingBackend)
    return segmenter.session(make_image(width, height)), segmenter.backend


def everything(session: Session) -> tuple:
    """All that a caller can see."""
    return (
        session.clicks,
        session.crop,
        session.can_undo,
        session.can_redo,
        session.mask.tobytes(),
        session.probability.tobytes(),
        session.to_json(),
    )


def bilinear_matrix(count: int, new_count: int, coordinates: str = "half_pixel") -> np.ndarray:
    """(new_count, count) weights of bilinear resizing along one axis, from the definition."""
    matrix = np.zeros((new_count, count))
    for i in range(new_count):
        if coordinates == "half_pixel":
            at = (i + 0.5) * count / new_count - 0.5
        else:
            at = i * (count - 1) / (new_count - 1) if new_count > 1 else 0.0
        at = min(max(at, 0.0), count - 1.0)
        low = min(int(at), max(count - 2, 0))
        matrix[i, low] += 1 - (at - low)
        matrix[i, min(low + 1, count - 1)] += at - low
    return matrix


def area_matrix(count: int, new_count: int) -> np.ndarray:
    """(new_count, count) weights of averaging over areas along one axis that shrinks, from the definition."""
    edges = np.arange(new_count + 1) * count / new_count
    cells = np.arange(count)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.clip(overlap, 0, None) * new_count / count


def resize_reference(
    values: np.ndarray, size: tuple[int, int], coordinates: str = "half_pixel"
) -> np.ndarray:
    """(h, w, ...) float64 resized to size (w', h') as the documentation says an image is."""
    out = values.astype(np.float64)
    for axis, new_count in ((0, size[1]), (1, size[0])):
        count = values.shape[axis]
        shrinks = coordinates == "half_pixel" and new_count < count
        matrix = area_matrix(count, new_count) if shrinks else bilinear_matrix(count, new_count, coordinates)
        out = np.moveaxis(np.tensordot(matrix, out, axes=(1, axis)), 0, axis)
    return out


def paste_reference(values: np.ndarray, size: tuple[int, int], coordinates: str = "half_pixel") -> np.ndarray:
    """(h', w') values resized bilinearly to size (w, h), float64."""
    rows = bilinear_matrix(values.shape[0], size[1], coordinates)
    columns = bilinear_matrix(values.shape[1], size[0], coordinates)
    return rows @ values.astype(np.float64) @ columns.T


def probability_reference(logits: np.ndarray, size: tuple[int, int], coordinates: str) -> np.ndarray:
    """(h', w') logits as probabilities of a box of size (w, h): resized before or after the sigmoid."""
    if coordinates == "public":
        return paste_reference(1 / (1 + np.exp(-logits.astype(np.float64))), size, coordinates)
    return 1 / (1 + np.exp(-paste_reference(logits, size, coordinates)))
