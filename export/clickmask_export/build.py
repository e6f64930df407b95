"""The steps of a build, in order. Nothing is at the output before the last one has succeeded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from torch import nn

from clickmask.backends import open_backend
from clickmask.backends.diffusion import Place, choose
from clickmask.bundle import Bundle
from clickmask.engine_facts import MAX_BATCH
from clickmask.manifest import Artefact, InputSpec, Parity, Source
from clickmask.manifest import Precision as ArtefactPrecision
from clickmask_export import graph_lint
from clickmask_export.bundle_writer import (
    describe_source,
    draft_bundle,
    read_back,
    write_artefact,
    write_manifest,
)
from clickmask_export.calibration import Calibration, held_cases, load_calibration
from clickmask_export.errors import BuildError, RecipeError
from clickmask_export.graphs import LOCAL_NETWORK, Graph, Precision, diffusion_graph, make_graphs
from clickmask_export.int8_gate import compare_int8
from clickmask_export.networks import check_strategy, open_networks, with_sparse_keys
from clickmask_export.onnx_graph import OPSET, export_onnx, serialise
from clickmask_export.parity_cases import Case, in_batches, load_photo, make_cases
from clickmask_export.precision_policy import PIXEL_DIFFUSION
from clickmask_export.progress import Progress
from clickmask_export.quantization import quantised
from clickmask_export.recipes import Overrides, Recipe, make_recipe
from clickmask_export.staging import check_place, staged
from clickmask_export.targets import Target, TargetName, find_target
from clickmask_export.tensorrt_options import PlanOptions
from clickmask_export.tensorrt_plans import make_plans
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
        calibration: a folder of photographs, for int8 and only for it.
        plan: choices for TensorRT.
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
    precision: ArtefactPrecision = "fp32"
    calibration: Path | None = None
    plan: PlanOptions = field(default_factory=PlanOptions)
    fdm: Literal["dense", "sparse"] = "dense"
    overrides: Overrides = field(default_factory=Overrides)
    force: bool = False
    parity_image: Path | None = None

    @property
    def body(self) -> Precision:
        """What the body is exported in; int8 is made of a float32 export."""
        return "fp16" if self.precision == "fp16" else "fp32"


def build(request: Request, progress: Progress) -> dict[str, Mapping[str, Parity]]:
    """Builds, verifies and places a bundle.

    Returns:
        Backend to kind of image to the worst difference from torch.

    Raises:
        BuildError: see ``errors``; nothing was written.
    """
    targets = _targets(request)
    check_place(request.output, force=request.force)
    calibration = _calibration(request)
    pictures = _pictures(request, calibration)
    networks, source = _open(request, progress)
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
        artefacts = tuple(
            _make(folder, target, request, graphs, calibration, recipe, progress) for target in targets
        )
        specs = {graph.name: graph.spec for graph in graphs}
        draft = draft_bundle(folder, source, recipe, specs, artefacts)
        cases = pictures(recipe.input)
        references = {
            name: _reference(name, Reference(network, diffusion, recipe.flip), cases, recipe, progress)
            for name, network in networks.items()
        }
        parities = {}
        for target in targets:
            with progress.stage(f"compare {target.backend} with torch on {target.verified_on}"):
                parities[target.backend] = _verify(draft, target, cases, references, request, progress)
        with progress.stage("write the manifest, read the bundle back and run it"):
            write_manifest(draft, parities)
            finished = read_back(folder)
            for target in targets:
                _verify(finished, target, cases, references, request, progress, most_cases=1)
    return parities


def _targets(request: Request) -> list[Target]:
    """ONNX files first: plans without weights are refitted from them and then need none of their own."""
    names = sorted(dict.fromkeys(request.targets), key=lambda name: name != "onnxruntime")
    return [find_target(name, request.precision) for name in names]


def _open(request: Request, progress: Progress) -> tuple[Mapping[str, nn.Module], Source]:
    """The networks, and which files they are: a trainer may write its file anew at any time."""
    before = _stamps(request)
    networks = open_networks(request.checkpoint, request.checkpoint_index, request.local_checkpoint, progress)
    source = describe_source(request.checkpoint, request.local_checkpoint)
    if _stamps(request) != before:
        raise BuildError(
            f"{request.checkpoint} or the local checkpoint was written while it was being read: build from "
            "a copy of it"
        )
    return networks, source


def _stamps(request: Request) -> list[tuple[int, int, int] | None]:
    """What changes with each writing of a checkpoint; None for one that is no file."""
    paths = [path for path in (request.checkpoint, request.local_checkpoint) if path is not None]
    facts = [path.stat() if path.is_file() else None for path in paths]
    return [fact and (fact.st_ino, fact.st_size, fact.st_mtime_ns) for fact in facts]


def _graphs(
    request: Request, networks: Mapping[str, nn.Module], diffusion: PixelDiffusion | None, flip: bool
) -> list[Graph]:
    graphs: list[Graph] = []
    for name, network in networks.items():
        body = with_sparse_keys(network) if request.fdm == "sparse" else network
        graphs += make_graphs(body, flip=flip, precision=request.body, name=name)
    return graphs if diffusion is None else [*graphs, diffusion_graph(diffusion)]


def _calibration(request: Request) -> Calibration | None:
    if (request.precision == "int8") != (request.calibration is not None):
        raise RecipeError(
            "--precision int8 and --calibration belong together: the ranges of 8-bit integers are measured "
            "on photographs; give both or neither"
        )
    if request.calibration is None:
        return None
    if request.parity_image is not None:
        raise RecipeError(
            "--parity-image and --calibration exclude each other: 8-bit integers are compared on photographs "
            "of --calibration that are held back; leave --parity-image out"
        )
    return load_calibration(request.calibration)


def _pictures(request: Request, calibration: Calibration | None) -> Callable[[InputSpec], list[Case]]:
    """What artefacts are compared on; a photograph that cannot be read is told of here, before the work."""
    if calibration is not None:
        return lambda spec: held_cases(calibration.held, spec)
    photo = load_photo(request.parity_image)
    return lambda spec: list(make_cases(spec, photo))


def _make(
    folder: Path,
    target: Target,
    request: Request,
    graphs: Sequence[Graph],
    calibration: Calibration | None,
    recipe: Recipe,
    progress: Progress,
) -> Artefact:
    contents = {}
    for graph in graphs:
        with progress.stage(f"export the {graph.name} for {target.backend}"):
            contents[graph.name] = _export(graph, target, request.body)
    if calibration is not None:
        contents = quantised(contents, recipe.input, calibration, recipe.threshold, target.backend, progress)
    if target.backend != "tensorrt":
        return write_artefact(folder, target, request.precision, contents)
    plans = make_plans(graphs, contents, recipe.input, request.precision, request.plan, progress)
    weights = contents if request.plan.strip_weights else {}
    return write_artefact(folder, target, request.precision, plans.files, plans.facts, weights)


def _export(graph: Graph, target: Target, precision: Precision) -> bytes:
    """The file of one graph, linted."""
    if target.backend != "torchscript":
        model = export_onnx(graph)
        graph_lint.check(model, graph.spec, OPSET, precision, graph.name)
        return serialise(model)
    archive = export_torchscript(graph, target.verified_on)
    if precision == "fp16" and graph.name != PIXEL_DIFFUSION and not is_half(archive):
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
    request: Request,
    progress: Progress,
    most_cases: int | None = None,
) -> Mapping[str, Parity]:
    """Runs an artefact through the backend that will run it, in every way that it can run here.

    Of two networks, and of Pixel Diffusion's graph and its fused kernel, the worse counts.
    """
    most = request.plan.max_batch if target.backend == "tensorrt" else MAX_BATCH
    judge = compare_int8 if request.precision == "int8" else partial(compare, precision=request.precision)
    found: dict[str, Parity] = {}
    for place in _places(bundle, target):
        with closing(
            # A plan may carry the code of its lean runtime; this one was just made here.
            open_backend(
                bundle, target.backend, target.verified_on, pixel_diffusion=place, trust_host_code=True
            )
        ) as backend:
            for name, logits in references.items():
                calls = list(zip(cases, logits, strict=True))[:most_cases]
                fitting = [call for case, right in calls for call in in_batches(case, right, most)]
                one = judge(
                    [case for case, _ in fitting],
                    [right for _, right in fitting],
                    backend,
                    local=name == LOCAL_NETWORK,
                    threshold=bundle.manifest.threshold,
                    step=partial(progress.step, total=len(fitting)),
                )
                found = {kind: worst(found.get(kind, parity), parity) for kind, parity in one.items()}
    return found


def _places(bundle: Bundle, target: Target) -> tuple[Place, ...]:
    choice = choose(bundle.manifest, "auto", target.verified_on)
    return ("graph", "native") if choice.place == "native" else ("graph",)
