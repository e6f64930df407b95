"""The steps of a build, in order. Nothing is at the output before the last one has succeeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from clickmask.backends import open_backend
from clickmask.bundle import Bundle
from clickmask.manifest import Artefact, Parity
from clickmask_export import graph_lint
from clickmask_export.bundle_writer import draft_bundle, read_back, write_artefact, write_manifest
from clickmask_export.errors import BuildError
from clickmask_export.graphs import Graph, Precision, make_graphs
from clickmask_export.onnx_graph import OPSET, export_onnx, serialise
from clickmask_export.parity_cases import Case, load_photo, make_cases
from clickmask_export.progress import Progress
from clickmask_export.recipes import Overrides, make_recipe
from clickmask_export.staging import check_place, staged
from clickmask_export.targets import Target, TargetName, find_target
from clickmask_export.torchscript import export_torchscript, is_half
from clickmask_export.verify import Array, Reference, compare, cuts_something
from clickmask_models.checkpoints import CheckpointError, load_checkpoint
from clickmask_models.pixel_diffusion import PixelDiffusion


@dataclass(frozen=True)
class Request:
    """What to build, from what, and where.

    Attributes:
        checkpoint: a ``.safetensors`` file of clickmask.
        output: the bundle's folder.
        targets: runtimes to make an artefact for.
        precision: of the network's body.
        overrides: what of the preset is changed.
        force: whether a bundle at ``output`` may be replaced.
        parity_image: a photograph to compare on; None takes scikit-image's.
    """

    checkpoint: Path
    output: Path
    targets: Sequence[TargetName] = ("onnxruntime",)
    precision: Precision = "fp32"
    overrides: Overrides = field(default_factory=Overrides)
    force: bool = False
    parity_image: Path | None = None


def build(request: Request, progress: Progress) -> dict[str, Mapping[str, Parity]]:
    """Builds, verifies and places a bundle.

    Returns:
        Backend to kind of image to the worst difference from torch.

    Raises:
        BuildError: see ``errors``; nothing was written.
    """
    targets = [find_target(name, request.precision) for name in dict.fromkeys(request.targets)]
    check_place(request.output, force=request.force)
    photo = load_photo(request.parity_image)
    with progress.stage(f"load {request.checkpoint.name}"):
        network = _load(request.checkpoint)
    recipe = make_recipe(network, request.overrides)
    if recipe.departures:
        progress.note(
            f"the network is not that of preset {recipe.preset!r}, whose settings around it are used: it "
            f"differs in {', '.join(recipe.departures)}"
        )
    diffusion = None if recipe.pixel_diffusion is None else PixelDiffusion(recipe.pixel_diffusion).eval()
    with staged(request.output, force=request.force) as folder:
        graphs = make_graphs(network, diffusion, flip=recipe.flip, precision=request.precision)
        artefacts = tuple(_make(folder, target, request.precision, graphs, progress) for target in targets)
        specs = {graph.name: graph.spec for graph in graphs}
        draft = draft_bundle(folder, request.checkpoint, recipe, specs, artefacts)
        cases = list(make_cases(recipe.input, photo))
        reference = Reference(network, diffusion, recipe.flip)
        references = _reference(reference, cases, recipe.threshold, progress)
        parities = {}
        for target in targets:
            with progress.stage(f"compare {target.backend} with torch on {target.verified_on}"):
                found = _verify(draft, target, cases, references, request.precision, progress)
            parities[target.backend] = found
        with progress.stage("write the manifest, read the bundle back and run it"):
            write_manifest(draft, parities)
            finished = read_back(folder)
            for target in targets:
                _verify(finished, target, cases[:1], references[:1], request.precision, progress)
    return parities


def _load(path: Path) -> nn.Module:
    try:
        return load_checkpoint(path)
    except CheckpointError as exc:
        raise BuildError(str(exc)) from exc


def _make(
    folder: Path, target: Target, precision: Precision, graphs: Sequence[Graph], progress: Progress
) -> Artefact:
    contents = {}
    for graph in graphs:
        with progress.stage(f"export the {graph.name} for {target.backend}"):
            contents[graph.name] = _export(graph, target, precision)
    return write_artefact(folder, target, precision, contents)


def _export(graph: Graph, target: Target, precision: Precision) -> bytes:
    """The file of one graph, linted."""
    if target.backend == "onnxruntime":
        model = export_onnx(graph)
        graph_lint.check(model, graph.spec, OPSET, precision, graph.name)
        return serialise(model)
    archive = export_torchscript(graph, target.verified_on)
    if precision == "fp16" and not is_half(archive):
        raise BuildError(f"the traced {graph.name} is not in half precision although fp16 was asked for")
    return archive


def _reference(
    reference: Reference, cases: Sequence[Case], threshold: float, progress: Progress
) -> list[Array]:
    references = []
    with progress.stage(f"run the checkpoint in torch on {len(cases)} cases"):
        for done, case in enumerate(cases, start=1):
            references.append(reference(case))
            progress.step(done, len(cases))
    if not cuts_something(references, threshold):
        progress.note(
            "warning: in no case does the network's mask cover between 2 % and 98 % of the image, so that "
            "equal masks prove little: is the network trained?"
        )
    return references


def _verify(
    bundle: Bundle,
    target: Target,
    cases: Sequence[Case],
    references: Sequence[Array],
    precision: Precision,
    progress: Progress,
) -> Mapping[str, Parity]:
    """Runs an artefact through the backend that will run it."""
    with closing(open_backend(bundle, target.backend, target.verified_on)) as backend:
        return compare(
            cases,
            references,
            backend,
            precision=precision,
            threshold=bundle.manifest.threshold,
            step=lambda done: progress.step(done, len(cases)),
        )
