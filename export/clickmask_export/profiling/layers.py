"""Where the time of a graph goes, by the module of the network that a node came from.

Our exports name nodes after modules (``network.backbone/features.3/Conv``). Runtimes fuse and rename: ONNX
Runtime's blocked convolutions are named after the tensor that they give, TensorRT's layers after all the
nodes that went in. What can be traced to no module is listed as such.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clickmask.backends.click_rows import by_label
from clickmask.backends.host import split_device
from clickmask.backends.onnxruntime import session_options
from clickmask.backends.shapes import named_extents
from clickmask.bundle import Bundle
from clickmask.encode import click_slots
from clickmask.manifest import Artefact, GraphSpec
from clickmask_export.profiling.subject import Subject

RUNTIME = "(no module)"
_CLICKS = 4
_BLOCKED = "_nchwc"


def measure_layers(subject: Subject, size: int, runs: int) -> dict[str, Any]:
    """Profile each graph that the subject runs, at one size and with few clicks.

    Returns:
        Graph to a list of {``module``, ``ms`` (of one run), ``share``, ``nodes``}, slowest first; of a
        backend that cannot be looked into, ``unavailable`` with the reason.
    """
    backend, bundle = subject.segmenter.backend, subject.segmenter.bundle
    artefact = backend.artefact
    if artefact is None or not bundle.path.is_dir():
        return {"unavailable": f"{backend.name} has no profiler that tells layers"}
    graphs = [
        name
        for name in bundle.manifest.graphs
        if name != "pixel_diffusion" or backend.pixel_diffusion == "graph"
    ]
    if backend.name == "onnxruntime":
        return _onnxruntime(bundle, artefact, graphs, size, runs, subject)
    if backend.name == "tensorrt" and artefact.engine is not None:
        if artefact.engine.stripped:
            return {"unavailable": "the plans have no weights of their own"}
        from clickmask_export.profiling.tensorrt_layers import profile_engines

        device = split_device(backend.device)[1]
        trust = subject.how.trust_host_code
        profiled = profile_engines(bundle, artefact, graphs, size, runs, device, trust_host_code=trust)
        return {
            graph: by_module(times, {layer: module_of(origins.get(layer, layer)) for layer in times})
            for graph, (times, origins) in profiled.items()
        }
    return {"unavailable": f"{backend.name}: a traced program no longer knows its modules"}


def by_module(milliseconds: Mapping[str, float], modules: Mapping[str, str]) -> list[dict[str, Any]]:
    """Adds up nodes of the same module, slowest module first."""
    totals: defaultdict[str, list[float]] = defaultdict(list)
    for node, spent in milliseconds.items():
        totals[modules.get(node, RUNTIME)].append(spent)
    whole = sum(milliseconds.values()) or 1.0
    rows = [
        {"module": module, "ms": sum(spent), "share": sum(spent) / whole, "nodes": len(spent)}
        for module, spent in totals.items()
    ]
    return sorted(rows, key=lambda row: -row["ms"])


def module_of(node: str) -> str:
    """``network.decoder/refine.0/Conv_1`` -> ``network.decoder/refine.0``; the first of several in TensorRT's
    ``a/b/Conv + c/d/Relu``.
    """
    path, _, _ = node.split(" + ")[0].strip().rpartition("/")
    return path or RUNTIME


def inputs_of(spec: GraphSpec, size: int, most_clicks: int) -> dict[str, np.ndarray]:
    """Plausible inputs of a graph, by name; float32."""
    generator = np.random.default_rng(0)
    given = min(_CLICKS, most_clicks)
    slots = click_slots(given, most_clicks)
    extents, inputs = named_extents(spec, {"B": 1, "S": size, "M": slots}), {}
    for tensor in spec.inputs:
        shape = [extents.get(extent, extent) for extent in tensor.shape]
        inputs[tensor.name] = generator.random(shape, np.float32)
        if tensor.name in ("clicks", "clicks_by_label"):
            clicks = np.full((1, slots, 3), -1, np.float32)
            rows = generator.uniform(0, size - 1, (given, 2))
            clicks[0, :given] = np.column_stack([rows, np.arange(given) % 2])
            inputs[tensor.name] = clicks if tensor.name == "clicks" else by_label(clicks)
    return inputs


def _onnxruntime(
    bundle: Bundle, artefact: Artefact, graphs: list[str], size: int, runs: int, subject: Subject
) -> dict[str, Any]:
    import onnxruntime

    found: dict[str, Any] = {}
    for graph in graphs:
        model, spec = bundle.file(artefact, graph), bundle.manifest.graphs[graph]
        inputs = inputs_of(spec, size, bundle.manifest.input.max_clicks)
        on_cpu = subject.segmenter.backend.device == "cpu"
        fixed = named_extents(spec, {"B": 1, "S": size}) if on_cpu and graph == "decoder" else {}
        options = session_options(onnxruntime, subject.how.threads or 0, fixed)  # as the backend has them
        with tempfile.TemporaryDirectory(prefix="clickmask-") as folder:
            optimised = Path(folder) / "optimised.onnx"
            times = _profile(model, optimised, options, inputs, runs, subject.segmenter.backend.device)
            found[graph] = by_module(times, _modules(model, optimised))
    return found


def _profile(
    model: Path, optimised: Path, options: Any, inputs: dict[str, np.ndarray], runs: int, device: str
) -> dict[str, float]:
    """Milliseconds of one run by node, in a session of its own with ONNX Runtime's profiler."""
    import onnxruntime

    options.enable_profiling = True
    options.profile_file_prefix = str(optimised.with_name("profile"))
    options.optimized_model_filepath = str(optimised)
    kind, index = split_device(device)
    cuda = ("CUDAExecutionProvider", {"device_id": str(index), "use_tf32": "0"})
    providers = [*([cuda] if kind == "cuda" else []), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(model), options, providers=providers)
    for _ in range(runs + 1):
        session.run(None, inputs)
    events = json.loads(Path(session.end_profiling()).read_text())
    calls: defaultdict[str, list[float]] = defaultdict(list)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            calls[event["name"].removesuffix("_kernel_time")].append(event["dur"] / 1e3)
    return {name: sum(spent[1:]) / max(len(spent) - 1, 1) for name, spent in calls.items()}


def _modules(model: Path, optimised: Path) -> dict[str, str]:
    """Node of the optimised graph to module, by its name or by the tensors that it still gives or takes."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    giver = {output: module_of(node.name) for node in graph.node for output in node.output}
    names = {node.name: module_of(node.name) for node in graph.node}
    found: dict[str, str] = {}
    for node in onnx.load(optimised, load_external_data=False).graph.node:
        tensors = (node.name.removesuffix(_BLOCKED), *node.output, *node.input)
        known = next((giver[tensor] for tensor in tensors if tensor in giver), None)
        found[node.name] = names.get(node.name) or known or module_of(node.name)
    return found
