"""The plans of a bundle: every graph built, loaded again, inspected and described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from clickmask.backends.host_facts import host_facts
from clickmask.backends.tensorrt_engine import EngineLoader, check_engine, import_tensorrt
from clickmask.engine_facts import EngineFacts
from clickmask.errors import ClickmaskError
from clickmask.manifest import GraphSpec, InputSpec
from clickmask_export.errors import BuildError
from clickmask_export.graphs import Graph
from clickmask_export.precision_policy import PIXEL_DIFFUSION, node_precisions
from clickmask_export.progress import Progress
from clickmask_export.tensorrt_build import PlanRequest, build_plan, profile_shapes
from clickmask_export.tensorrt_cache import default_cache
from clickmask_export.tensorrt_facts import engine_facts
from clickmask_export.tensorrt_options import PlanOptions
from clickmask_export.tensorrt_proof import Proof, half_share, prove, read_layers

_DEVICE = 0  # TensorRT builds for the device that is current, and none other is made so


@dataclass(frozen=True)
class Plans:
    """Graph name to the bytes of its plan, and what was proven of them all."""

    files: Mapping[str, bytes]
    facts: EngineFacts


def make_plans(
    graphs: Sequence[Graph],
    models: Mapping[str, bytes],
    spec: InputSpec,
    precision: str,
    options: PlanOptions,
    progress: Progress,
) -> Plans:
    """Builds and proves the plan of every graph.

    Args:
        graphs: of the bundle.
        models: graph name to its ONNX file.
        spec: of the bundle's input.
        precision: of the network's body; Pixel Diffusion's graph is float32 whatever it is.
        options: see ``PlanOptions``.
        progress: told of every step.

    Raises:
        BuildError: TensorRT cannot build or load a graph.
        VerificationError: a plan is not of the precision that was asked for.
    """
    trt, gpu = import_tensorrt("tensorrt"), host_facts().gpus[_DEVICE]
    facts = engine_facts(trt.__version__, gpu, options, spec.sizes)
    cache = options.timing_cache or default_cache(trt.__version__, gpu.name)
    request = PlanRequest(options, facts.profiles, spec.max_clicks, cache)
    loader = EngineLoader(trt, trust_host_code=facts.lean_runtime_inside)  # just built, from our own graph
    files, proofs = {}, dict[str, Proof]()
    for graph in graphs:
        model = models[graph.name]
        with progress.stage(f"build the TensorRT plan of the {graph.name}"):
            files[graph.name] = build_plan(trt, graph.name, graph.spec, model, request, progress)
        with progress.stage(f"load the plan of the {graph.name} and prove its precision"):
            try:
                engine = loader.load(files[graph.name], model if options.strip_weights else None)
                check_engine(trt, engine, graph.name, graph.spec, facts)
            except ClickmaskError as exc:
                raise BuildError(f"the plan of the {graph.name} was built and does not load: {exc}") from exc
            nodes = node_precisions(onnx.load_model_from_string(model), graph.name, precision)
            layers = read_layers(inspect(trt, engine, graph.spec, request), nodes)
            proofs[graph.name] = prove(layers, nodes, precision, graph.name)
    return Plans(files, _with_proofs(facts, proofs))


def inspect(trt: Any, engine: Any, spec: GraphSpec, request: PlanRequest) -> str:
    """What the engine inspector says of an engine, as JSON; formats are those of the first profile."""
    # Without a context that has shapes, formats of dynamic tensors are "N/A". It runs nothing: no memory.
    context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if context is None:
        raise BuildError("TensorRT makes no execution context of the plan that it has just built")
    for tensor in spec.inputs:
        shape = profile_shapes(tensor, request.profiles[0], request.max_clicks)[1]
        if not context.set_input_shape(tensor.name, shape):
            raise BuildError(f"TensorRT refuses {tensor.name} {list(shape)}, which its plan was built for")
    inspector = engine.create_engine_inspector()
    if inspector is None:
        raise BuildError("TensorRT makes no inspector of the plan that it has just built: nothing is proven")
    inspector.execution_context = context
    information: str = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return information


def _with_proofs(facts: EngineFacts, proofs: Mapping[str, Proof]) -> EngineFacts:
    layers: dict[str, tuple[str, ...]] = {}
    for proof in proofs.values():
        for policy, names in proof.fp32_layers.items():
            layers[policy] = (*layers.get(policy, ()), *names)
    share = half_share([proof for name, proof in proofs.items() if name != PIXEL_DIFFUSION])
    return replace(facts, half_share=round(share, 4), fp32_layers=layers)
