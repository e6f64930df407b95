"""Writing a bundle into a folder: artefacts first, the manifest last and under a name of its own (see
``staging``), so that nothing unfinished looks like a bundle.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from clickmask.bundle import Bundle
from clickmask.engine_facts import EngineFacts
from clickmask.manifest import (
    Artefact,
    ArtefactFile,
    Checkpoint,
    GraphSpec,
    Manifest,
    Parity,
    Precision,
    Source,
)
from clickmask_export.errors import OutputError
from clickmask_export.onnx_graph import OPSET
from clickmask_export.recipes import Recipe, describe_diffusion
from clickmask_export.staging import UNVERIFIED
from clickmask_export.targets import Target

_SUFFIX = {"onnxruntime": "onnx", "torchscript": "ts", "tensorrt": "plan"}
_TOOLS = {
    "onnxruntime": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "torchscript": ("torch",),
    "tensorrt": ("torch", "onnx", "onnxscript"),  # its own version is one of the engine's facts
}
_CHUNK = 1 << 20


def write_artefact(
    folder: Path,
    target: Target,
    precision: Precision,
    contents: Mapping[str, bytes],
    engine: EngineFacts | None = None,
    weights: Mapping[str, bytes] | None = None,
) -> Artefact:
    """Writes the files of an artefact and describes them; its parity is still empty.

    Args:
        folder: the bundle's.
        target: what it is for.
        precision: of its body, as proven.
        contents: graph name to the bytes of its file.
        engine: what is known of TensorRT plans.
        weights: graph name to the ONNX file that a plan without weights is refitted from.
    """
    suffix = _SUFFIX[target.backend]
    files = {graph: _write(folder / f"{graph}.{suffix}", data) for graph, data in contents.items()}
    return Artefact(
        backend=target.backend,
        precision=precision,
        device=target.device,
        files=files,
        parity={},
        opset=None if target.backend == "torchscript" else OPSET,
        tools={tool: _version(tool) for tool in _TOOLS[target.backend]},
        engine=engine,
        weights={graph: _write_weights(folder, graph, data) for graph, data in (weights or {}).items()},
    )


def describe_source(checkpoint: Path, local: Path | None) -> Source:
    """Names and hashes of the files of weights."""
    second = None if local is None else Checkpoint(_plain_name(local), _sha256(local))
    return Source(_plain_name(checkpoint), _sha256(checkpoint), second)


def draft_bundle(
    folder: Path,
    source: Source,
    recipe: Recipe,
    graphs: Mapping[str, GraphSpec],
    artefacts: tuple[Artefact, ...],
) -> Bundle:
    """The bundle as it will be, in memory only: backends can open it, and on disk there is no manifest
    yet.
    """
    manifest = Manifest(
        name=folder.name,
        family=recipe.family,
        preset=recipe.preset,
        source=source,
        input=recipe.input,
        click_maps=recipe.click_maps,
        crop=recipe.crop,
        flip_averaging=recipe.flip,
        threshold=recipe.threshold,
        momentum=recipe.momentum,
        pixel_diffusion=describe_diffusion(recipe.pixel_diffusion),
        graphs=graphs,
        artefacts=artefacts,
        created=_now(),
    )
    return Bundle(folder, manifest)


def write_manifest(draft: Bundle, parities: Mapping[str, Mapping[str, Parity]]) -> None:
    """Completes a draft on disk; ``staging`` gives the manifest its name.

    Args:
        draft: as verified.
        parities: backend to kind of image to the measured difference.
    """
    proven = tuple(
        replace(artefact, parity=parities[artefact.backend]) for artefact in draft.manifest.artefacts
    )
    text = replace(draft.manifest, artefacts=proven).to_json()
    (draft.path / UNVERIFIED).write_text(text, encoding="utf-8")


def read_back(folder: Path) -> Bundle:
    """The bundle as an application will load it: its manifest parsed, every file hashed.

    Raises:
        BundleError: the manifest that was written is not one that the run time reads.
        OutputError: a file is not what was written.
    """
    path = folder / UNVERIFIED
    bundle = Bundle(folder, Manifest.from_json(path.read_bytes(), str(path)))
    for artefact in bundle.manifest.artefacts:
        for file in artefact.all_files:
            if _sha256(folder / file.path) != file.sha256:
                raise OutputError(
                    f"{file.path} differs on the disk from what was written: check {folder.parent}"
                )
    return bundle


def _write(path: Path, data: bytes) -> ArtefactFile:
    path.write_bytes(data)
    return ArtefactFile(path.name, hashlib.sha256(data).hexdigest(), len(data))


def _write_weights(folder: Path, graph: str, data: bytes) -> ArtefactFile:
    """An ONNX artefact's file of the same bytes serves; else one of its own."""
    path = folder / f"{graph}.{_SUFFIX['onnxruntime']}"
    if not path.is_file() or path.read_bytes() != data:
        path = folder / f"{graph}.weights.{_SUFFIX['onnxruntime']}"
    return _write(path, data)


def _plain_name(path: Path) -> str:
    """The file's name in the letters that a manifest allows."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", path.name).strip("._+-") or "checkpoint"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _version(tool: str) -> str:
    """Of a distribution; onnxruntime's is onnxruntime-gpu where that is installed."""
    for name in (tool, f"{tool}-gpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def _now() -> str:
    """Seconds, UTC; SOURCE_DATE_EPOCH makes builds reproducible to the byte (reproducible-builds.org)."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.datetime.now(datetime.UTC)
    if epoch.isdigit():
        now = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)
    return now.isoformat(timespec="seconds")
