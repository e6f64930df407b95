"""Reading the manifest: each function turns one object of docs/bundle.md into its value, or refuses it."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args

from .crop import CropKind, CropPolicy
from .errors import BundleError, InvalidInputError
from .manifest import (
    SCHEMA,
    Artefact,
    ArtefactFile,
    BackendName,
    Checkpoint,
    ClickMaps,
    Device,
    GraphSpec,
    InputSpec,
    Manifest,
    Parity,
    PixelDiffusionSpec,
    Precision,
    Scalar,
    Source,
)
from .manifest_graphs import read_graphs
from .strict_json import Node, parse
from .view import Coordinates, Fit

if TYPE_CHECKING:
    from .engine_facts import EngineFacts

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
MAX_ARTEFACT_BYTES = 4 << 30
MAX_ARTEFACTS = 64
MAX_CLICKS = 1024
MIN_SIZE, MAX_SIZE, SIZE_STEP = 64, 2048, 32
MAX_ITERATIONS = 1000
MAX_MOMENTUM = 0.9  # at 1 nothing would change but around the click

# A white list, so that a name means the same file on every system: no separators, drives, streams or hidden
# files.
_FILE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._+-]{0,253}[A-Za-z0-9])?")
_KEYS = tuple(f.name for f in dataclasses.fields(Manifest))


def read_manifest(data: bytes, name: str) -> Manifest:
    """Read and check a manifest from UTF-8 text; see :meth:`Manifest.from_json`."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{name}: expected at most {MAX_MANIFEST_BYTES} bytes, got {len(data)}.")
    return _manifest(parse(data, name))


def read_document(document: Any, name: str) -> Manifest:
    """Check a manifest that is already parsed into dicts and lists."""
    return _manifest(Node(document, "$", name))


def _manifest(root: Node) -> Manifest:
    # The number first: a manifest of another schema may have other keys, and the number is what to tell the
    # user.
    number = root.members().get("schema")
    if number is None:
        raise root.error("the key 'schema'", f"only {sorted(root.members())}")
    if number.value != SCHEMA or type(number.value) is not int:
        remedy = "rebuild the bundle with this version of clickmask, or install the version that wrote it"
        raise number.error(f"{SCHEMA} ({remedy})")
    keys = root.fields(_KEYS)
    input_spec = _input(keys["input"])
    graphs = read_graphs(keys["graphs"], input_spec)
    source, crop = _source(keys["source"]), _crop(keys["crop"])
    if crop.kind != "none" and crop.start_click > input_spec.max_clicks:
        raise keys["crop"].error(
            f"start_click of at most max_clicks = {input_spec.max_clicks}", str(crop.start_click)
        )
    _check_local_network(keys, graphs, source, crop)
    diffusion = _pixel_diffusion(keys["pixel_diffusion"])
    if ("pixel_diffusion" in graphs) != (diffusion is not None):
        wanted = "the settings of" if diffusion is None else "null without"
        raise keys["pixel_diffusion"].error(f"{wanted} the graph 'pixel_diffusion'")
    return Manifest(
        name=keys["name"].text(),
        family=keys["family"].text(),
        preset=keys["preset"].text(),
        source=source,
        input=input_spec,
        click_maps=_click_maps(keys["click_maps"]),
        crop=crop,
        flip_averaging=keys["flip_averaging"].flag(),
        threshold=keys["threshold"].number(0, 1, open_ends=True),
        momentum=keys["momentum"].number(0, MAX_MOMENTUM),
        pixel_diffusion=diffusion,
        graphs=graphs,
        artefacts=tuple(
            _artefact(node, graphs, input_spec) for node in keys["artefacts"].items(1, MAX_ARTEFACTS)
        ),
        created=_date(keys["created"]),
    )


def _check_local_network(
    keys: Mapping[str, Node], graphs: Mapping[str, GraphSpec], source: Source, crop: CropPolicy
) -> None:
    there = "local_network" in graphs
    if there != (source.local is not None):
        wanted = "the checkpoint of the graph 'local_network'" if there else "null without a 'local_network'"
        raise keys["source"].at("local").error(wanted)
    if there and crop.kind != "global_to_local":
        # with any other, none but a caller who asks for that policy would ever run it
        raise keys["crop"].at("kind").error("'global_to_local' with a graph 'local_network'")


def _source(node: Node) -> Source:
    keys = node.fields(("checkpoint", "sha256", "local"))
    local = keys["local"]
    return Source(
        checkpoint=_file_name(keys["checkpoint"]),
        sha256=keys["sha256"].sha256(),
        local=None if local.value is None else _checkpoint(local),
    )


def _checkpoint(node: Node) -> Checkpoint:
    keys = node.fields(("checkpoint", "sha256"))
    return Checkpoint(checkpoint=_file_name(keys["checkpoint"]), sha256=keys["sha256"].sha256())


def _input(node: Node) -> InputSpec:
    keys = node.fields(tuple(f.name for f in dataclasses.fields(InputSpec)))
    return InputSpec(
        sizes=_sizes(keys["sizes"]),
        fit=keys["fit"].choice(get_args(Fit)),
        pad=_triple(keys["pad"], 0, 1),
        coordinates=keys["coordinates"].choice(get_args(Coordinates)),
        mean=_triple(keys["mean"], -1e3, 1e3),
        std=_triple(keys["std"], 1e-6, 1e3),
        previous_mask=keys["previous_mask"].flag(),
        max_clicks=keys["max_clicks"].integer(1, MAX_CLICKS),
    )


def _sizes(node: Node) -> tuple[int, ...]:
    sizes = tuple(item.integer(MIN_SIZE, MAX_SIZE) for item in node.items(1))
    if any(size % SIZE_STEP for size in sizes) or any(b <= a for a, b in pairwise(sizes)):
        raise node.error(f"ascending multiples of {SIZE_STEP}, each once")
    return sizes


def _triple(node: Node, minimum: float, maximum: float) -> tuple[float, float, float]:
    red, green, blue = (item.number(minimum, maximum) for item in node.items(3, 3))
    return red, green, blue


def _click_maps(node: Node) -> ClickMaps:
    keys = node.fields(("kind", "radius"))
    return ClickMaps(kind=keys["kind"].text(), radius=keys["radius"].number(0, MAX_SIZE, open_ends=True))


def _crop(node: Node) -> CropPolicy:
    keys = node.fields(tuple(f.name for f in dataclasses.fields(CropPolicy)))
    try:
        return CropPolicy(
            kind=keys["kind"].choice(get_args(CropKind)),
            start_click=keys["start_click"].integer(1, MAX_CLICKS),
            expansion=keys["expansion"].number(1, 100),
            small_object_expansion=keys["small_object_expansion"].number(1, 100),
            min_size=keys["min_size"].integer(1, 1 << 16),
            min_fraction=keys["min_fraction"].number(0, 1),
            hysteresis_iou=keys["hysteresis_iou"].number(0, 1),
            close_above=None if keys["close_above"].value is None else keys["close_above"].number(0, 100),
        )
    except InvalidInputError as exc:
        raise node.error("a crop policy that makes sense", str(exc)) from exc


def _pixel_diffusion(node: Node) -> PixelDiffusionSpec | None:
    if node.value is None:
        return None
    keys = node.fields(("iterations", "dilations", "amplitude", "eps", "norm"), ("options",))
    options = keys["options"].members() if "options" in keys else {}
    return PixelDiffusionSpec(
        iterations=keys["iterations"].integer(1, MAX_ITERATIONS),
        dilations=tuple(item.integer(1, MAX_SIZE) for item in keys["dilations"].items(1)),
        amplitude=keys["amplitude"].number(-1e6, 1e6),
        eps=keys["eps"].number(0, 1, open_ends=True),
        norm=keys["norm"].text(),
        options={name: _scalar(item) for name, item in options.items()},
    )


def _scalar(node: Node) -> Scalar:
    if isinstance(node.value, bool):
        return node.value
    if isinstance(node.value, int):
        return node.value
    if isinstance(node.value, float):
        return node.number(-1e300, 1e300)
    return node.text()


def _artefact(node: Node, graphs: Mapping[str, GraphSpec], spec: InputSpec) -> Artefact:
    plan_only = ("engine", "weights")
    always = tuple(f.name for f in dataclasses.fields(Artefact) if f.name not in plan_only)
    backend = node.members().get("backend")
    is_plan = backend is not None and backend.value == "tensorrt"
    keys = node.fields((*always, "engine") if is_plan else always, ("weights",) if is_plan else ())
    device, precision = keys["device"].choice(get_args(Device)), keys["precision"].choice(get_args(Precision))
    if is_plan and device != "cuda":
        raise keys["device"].error("'cuda', the only device of tensorrt")
    opset = None if keys["opset"].value is None else keys["opset"].integer(1, 1000)
    if keys["backend"].choice(get_args(BackendName)) == "onnxruntime" and opset is None:
        raise keys["opset"].error("the ONNX opset as an integer")
    parity = keys["parity"].members()
    if not parity:
        raise keys["parity"].error(
            "at least one kind of image: an artefact is shipped only when it was compared"
        )
    weights = keys["weights"].fields(tuple(graphs)) if "weights" in keys else {}
    return Artefact(
        backend=keys["backend"].value,
        precision=precision,
        device=device,
        files={name: _file(item) for name, item in keys["files"].fields(tuple(graphs)).items()},
        parity={kind: _parity(item) for kind, item in parity.items()},
        opset=opset,
        tools={tool: item.text() for tool, item in keys["tools"].members().items()},
        engine=_engine(keys["engine"], spec, precision, bool(weights)) if is_plan else None,
        weights={name: _file(item) for name, item in weights.items()},
    )


def _engine(node: Node, spec: InputSpec, precision: str, has_weights: bool) -> EngineFacts:
    from .engine_facts import read_engine  # few bundles have one, and every import counts

    facts = read_engine(node)
    unknown = sorted({profile.size for profile in facts.profiles} - set(spec.sizes))
    missing = [size for size in spec.sizes if facts.profile(size, 1) is None]
    if unknown or missing:
        got = f"none for {missing}" if missing else f"some for {unknown}"
        raise node.at("profiles").error(
            f"for each of input.sizes {list(spec.sizes)} one that takes 1 image", got
        )
    if precision == "fp16" and facts.half_share == 0:
        raise node.at("half_share").error("more than 0 of a plan whose precision is 'fp16'")
    if facts.stripped != has_weights:
        raise node.at("stripped").error("true exactly when the artefact has the key 'weights'")
    return facts


def _file(node: Node) -> ArtefactFile:
    keys = node.fields(("path", "sha256", "bytes"))
    name = _file_name(keys["path"])
    if name == MANIFEST_NAME:
        raise keys["path"].error("a file other than the manifest")
    size = keys["bytes"].integer(1, MAX_ARTEFACT_BYTES)
    return ArtefactFile(path=name, sha256=keys["sha256"].sha256(), bytes=size)


def _file_name(node: Node) -> str:
    name = node.text()
    if not _FILE_NAME.fullmatch(name):
        raise node.error("a plain file name (letters, digits and . _ + - only; no folders)")
    return name


def _parity(node: Node) -> Parity:
    keys = node.fields(("iou", "sign_flips", "max_error"))
    return Parity(
        iou=keys["iou"].number(0, 1),
        sign_flips=keys["sign_flips"].number(0, 1),
        max_error=keys["max_error"].number(0, 1e30),
    )


def _date(node: Node) -> str:
    text = node.text()
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError as exc:
        raise node.error("an ISO 8601 date such as 2026-01-31 or 2026-01-31T12:00:00+00:00") from exc
    return text
