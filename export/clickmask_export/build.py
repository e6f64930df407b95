"""The steps of a build, in order. Nothing is at the output before the last one has succeeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import nn

from clickmask.backends import open_backend
from clickmask.backends.diffusion import Place, choose
from clickmask.bundle import Bundle
from clickmask.manifest import Artefact, Parity
from clickmask_export import graph_lint
from clickmask_export.bundle_writer import draft_bundle, read_back, write_artefact, write_manifest
from clickmask_export.errors import BuildError
from clickmask_export.graphs import LOCAL_NETWORK, Graph, Precision, diffusion_graph, make_graphs
from clickmask_export.networks import check_strategy, open_networks, with_sparse_keys
from clickmask_export.onnx_graph import OPSET, export_onnx, serialise
from clickmask_export.parity_cases import Case, load_photo, make_cases
from clickmask_export.progress import Progress
from clickmask_export.recipes import Overrides, Recipe, make_recipe
from clickmask_export.staging import check_place, staged
from clickmask_export.targets import Target, TargetName, find_target
from clickmask_export.torchscript import export_torchscript, is_half
from clickmask_export.verify import Array, Reference, compare, cuts_something, worst
from clickmask_models.pixel_diffusion import PixelDiffusion


@dataclass(frozen=True)
class Request:
    """What to build, from what, and where.

    Attributes:
        checkpoint: of clickmask, or of a public implementation; see docs/checkpoints.md.
        output: the bundle's folder.
        checkpoint_index: which network of a checkpoint that holds a list of them.
        local_checkpoint: of a second network, for the crop of the global-to-local strategy.
        targets: runtimes to make an artefact for.
        precision: of the network's body.
        fdm: form of Feature Diffusion in the graph; see docs/benchmarks/fdm.md.
        overrides: what of the preset is changed.
        force: whether a bundle at ``output`` may be replaced.
        parity_image: a photograph to compare on; None takes scikit-image's.
    """

    checkpoint: Path
    output: Path
    checkpoint_index: int | None = None
    local_checkpoint: Path | None = None
    targets: Sequence[TargetName] = ("onnxruntime",)
    precision: Precision = "fp32"
    fdm: Literal["dense", "sparse"] = "dense"
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
    networks = open_networks(request.checkpoint, request.checkpoint_index, request.local_checkpoint, progress)
    recipe = make_recipe(next(iter(networks.values())), request.overrides)
    check_strategy(networks, recipe)
    if recipe.departures:
        progress.note(
            f"the network is not that of preset {recipe.preset!r}, whose settings around it are used: it "
            f"differs in {', '.join(recipe.departures)}"
        )
    diffusion = None if recipe.pixel_diffusion is None else PixelDiffusion(recipe.pixel_diffusion).eval()
    with staged(request.output, force=request.force) as folder:
        graphs = _graphs(request, networks, diffusion, recipe.flip)
        artefacts = tuple(_make(folder, target, request.precision, graphs, progress) for target in targets)
        specs = {graph.name: graph.spec for graph in graphs}
        draft = draft_bundle(folder, request.checkpoint, request.local_checkpoint, recipe, specs, artefacts)
        cases = list(make_cases(recipe.input, photo))
        references = {
            name: _reference(name, Reference(network, diffusion, recipe.flip), cases, recipe, progress)
            for name, network in networks.items()
        }
        parities = {}
        for target in targets:
            with progress.stage(f"compare {target.backend} with torch on {target.verified_on}"):
                found = _verify(draft, target, cases, references, request.precision, progress)
            parities[target.backend] = found
        with progress.stage("write the manifest, read the bundle back and run it"):
            write_manifest(draft, parities)
            finished = read_back(folder)
            for target in targets:
                _verify(finished, target, cases[:1], references, request.precision, progress)
    return parities


def _graphs(
    request: Request, networks: Mapping[str, nn.Module], diffusion: PixelDiffusion | None, flip: bool
) -> list[Graph]:
    graphs: list[Graph] = []
    for name, network in networks.items():
        body = with_sparse_keys(network) if request.fdm == "sparse" else network
        graphs += make_graphs(body, flip=flip, precision=request.precision, name=name)
    return graphs if diffusion is None else [*graphs, diffusion_graph(diffusion)]


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
    name: str, reference: Reference, cases: Sequence[Case], recipe: Recipe, progress: Progress
) -> list[Array]:
    references = []
    with progress.stage(f"run the checkpoint's {name} in torch on {len(cases)} cases"):
        for done, case in enumerate(cases, start=1):
            references.append(reference(case))
            progress.step(done, len(cases))
    if not cuts_something(references, recipe.threshold):
        progress.note(
            f"warning: in no case does the {name}'s mask cover between 2 % and 98 % of the image, so that "
            "equal masks prove little: is it trained?"
        )
    return references


def _verify(
    bundle: Bundle,
    target: Target,
    cases: Sequence[Case],
    references: Mapping[str, Sequence[Array]],
    precision: Precision,
    progress: Progress,
) -> Mapping[str, Parity]:
    """Runs an artefact through the backend that will run it, in every way that it can run here.

    Of two networks, and of Pixel Diffusion's graph and its fused kernel, the worse counts.
    """
    found: dict[str, Parity] = {}
    for place in _places(bundle, target):
        with closing(
            open_backend(bundle, target.backend, target.verified_on, pixel_diffusion=place)
        ) as backend:
            for name, right in references.items():
                one = compare(
                    cases,
                    right[: len(cases)],
                    backend,
                    local=name == LOCAL_NETWORK,
                    precision=precision,
                    threshold=bundle.manifest.threshold,
                    step=lambda done: progress.step(done, len(cases)),
                )
                found = {kind: worst(found.get(kind, parity), parity) for kind, parity in one.items()}
    return found


def _places(bundle: Bundle, target: Target) -> tuple[Place, ...]:
    choice = choose(bundle.manifest, "auto", target.verified_on)
    return ("graph", "native") if choice.place == "native" else ("graph",)
