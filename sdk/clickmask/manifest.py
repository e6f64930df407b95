"""The manifest of an engine bundle, schema 1: frozen values and their text.

The schema is specified in docs/bundle.md. ``Manifest.from_json`` accepts exactly that; ``Manifest.to_json``
reads its own output back, so what can be written can be read.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .crop import CropPolicy
from .errors import BundleError
from .view import Coordinates, Fit

if TYPE_CHECKING:
    from .engine_facts import EngineFacts

SCHEMA = 1

DType = Literal["float32", "float16"]
BackendName = Literal["onnxruntime", "torchscript", "tensorrt"]
Precision = Literal["fp32", "fp16", "int8"]
Device = Literal["any", "cpu", "cuda"]
Scalar = str | int | float | bool


@dataclass(frozen=True)
class Checkpoint:
    """A file of trained weights: its name and the SHA-256 of its bytes."""

    checkpoint: str
    sha256: str


@dataclass(frozen=True)
class Source(Checkpoint):
    """What a bundle was built from: its checkpoint and, where it has two networks, the local one's."""

    local: Checkpoint | None = None


@dataclass(frozen=True)
class InputSpec:
    """What the network is fed.

    Attributes:
        sizes: Sides S of the square network inputs, pixels, ascending.
        fit: How a crop becomes a square: aspect kept and padded, or stretched.
        pad: RGB of the padding, each in [0, 1].
        coordinates: How clicks are mapped into the square; see docs/coordinates.md.
        mean: RGB mean that the graph subtracts, in [0, 1] units. For the reader only.
        std: RGB deviation that the graph divides by. For the reader only.
        previous_mask: Whether the graph takes the previous mask.
        max_clicks: Most clicks one call may carry.
    """

    sizes: tuple[int, ...]
    fit: Fit
    pad: tuple[float, float, float]
    coordinates: Coordinates
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    previous_mask: bool
    max_clicks: int


@dataclass(frozen=True)
class ClickMaps:
    """How the graph draws clicks: kind of spot, radius (or sigma) in network pixels. For the reader only."""

    kind: str
    radius: float


@dataclass(frozen=True)
class PixelDiffusionSpec:
    """What the graph "pixel_diffusion" does, so that the fused kernel can do it in its place.

    ``options`` holds further settings by name; the kernel is used only where it knows each of them.
    """

    iterations: int
    dilations: tuple[int, ...]
    amplitude: float
    eps: float
    norm: str
    options: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph; a dimension is a number or one of "B", "M", "S", "S/n"."""

    name: str
    dtype: DType
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphSpec:
    """A graph's inputs and outputs, in the order in which a positional runtime (TorchScript) has them."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class ArtefactFile:
    """A file of the bundle: its plain name, the SHA-256 of its bytes (lower-case hex) and their number."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Parity:
    """How far an artefact is from the checkpoint on one kind of image.

    Attributes:
        iou: Lowest intersection over union of the two masks, in [0, 1].
        sign_flips: Largest share of pixels that changed sides of the threshold, in [0, 1].
        max_error: Largest absolute difference of logits.
    """

    iou: float
    sign_flips: float
    max_error: float


@dataclass(frozen=True)
class Artefact:
    """The whole pipeline in one runtime's format: a file for every graph.

    Attributes:
        backend: The runtime that loads it.
        precision: Arithmetic of the body, as proven on the built artefact.
        device: Where it may run.
        files: Graph name to file.
        parity: Kind of test image to the measured difference.
        opset: ONNX opset; None where there is none.
        tools: Tool name to the version that built it.
        engine: Of a TensorRT plan, where it loads and what was proven of it; else None.
        weights: Of a plan without weights, graph name to the ONNX file that has them; else empty.
    """

    backend: BackendName
    precision: Precision
    device: Device
    files: Mapping[str, ArtefactFile]
    parity: Mapping[str, Parity]
    opset: int | None
    tools: Mapping[str, str]
    engine: EngineFacts | None = None
    weights: Mapping[str, ArtefactFile] = field(default_factory=dict)

    @property
    def all_files(self) -> tuple[ArtefactFile, ...]:
        """Every file that the artefact needs."""
        return (*self.files.values(), *self.weights.values())


@dataclass(frozen=True)
class Manifest:
    """Everything the run time knows about a bundle; the fields are those of schema 1 in docs/bundle.md."""

    name: str
    family: str
    preset: str
    source: Source
    input: InputSpec
    click_maps: ClickMaps
    crop: CropPolicy
    flip_averaging: bool
    threshold: float
    momentum: float
    pixel_diffusion: PixelDiffusionSpec | None
    graphs: Mapping[str, GraphSpec]
    artefacts: tuple[Artefact, ...]
    created: str
    schema: int = SCHEMA

    @property
    def encodes_once(self) -> bool:
        """True for the pipeline of two graphs, where the encoder runs once per crop."""
        return "encoder" in self.graphs

    @property
    def has_local_network(self) -> bool:
        """True where a second network, trained for it, does the second pass of "global_to_local"."""
        return "local_network" in self.graphs

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "manifest.json") -> Manifest:
        """Read and check a manifest.

        Args:
            text: The JSON text (bytes must be UTF-8).
            name: What to call it in messages.

        Raises:
            BundleError: The text is not a schema 1 manifest; the message names the JSON path.
        """
        from .manifest_reader import read_manifest  # here: the reader imports the values above

        return read_manifest(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text, name)

    def to_json(self) -> str:
        """The manifest as JSON text, ending in a newline.

        Raises:
            BundleError: The values do not make a valid manifest.
        """
        document = {"schema": self.schema, **plain_json(self)}
        if self.pixel_diffusion is not None and not self.pixel_diffusion.options:
            del document["pixel_diffusion"]["options"]
        for artefact in document["artefacts"]:
            for key in ("engine", "weights"):
                if not artefact[key]:
                    del artefact[key]
        try:
            text = json.dumps(document, indent=2, allow_nan=False) + "\n"
        except (TypeError, ValueError) as exc:
            raise BundleError(f"manifest: expected values that JSON can hold, got {exc}.") from exc
        Manifest.from_json(text)
        return text


def plain_json(value: Any) -> Any:
    """Dataclasses, mappings and tuples as the objects and arrays of JSON, all the way down."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain_json(item) for item in value]
    return value
