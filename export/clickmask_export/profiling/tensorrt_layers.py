"""Times of TensorRT's layers, by its own profiler. Written against its documentation; it has never run.

The profiler makes TensorRT wait after every layer, so that the sum is more than a click takes. It is used on
an execution context of its own, never on one that is timed.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import Any

from clickmask.backends.cuda_runtime import CudaRuntime
from clickmask.backends.tensorrt_engine import EngineLoader, import_tensorrt
from clickmask.bundle import Bundle
from clickmask.errors import BackendError
from clickmask.manifest import Artefact
from clickmask_export.profiling.layers import inputs_of

_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


def profile_engines(
    bundle: Bundle,
    artefact: Artefact,
    graphs: list[str],
    size: int,
    runs: int,
    device: int,
    *,
    trust_host_code: bool,
) -> dict[str, tuple[dict[str, float], dict[str, str]]]:
    """Profile each graph's engine at one size.

    Args:
        bundle: with the plans.
        artefact: whose they are.
        graphs: to profile.
        size: of the input.
        runs: that are averaged.
        device: number of the GPU.
        trust_host_code: whether code that a plan carries may run.

    Returns:
        Graph to milliseconds of one run by layer, and layer to the node of the export that it came from,
        where the engine tells (it does if it was built with detailed profiling verbosity).

    Raises:
        BackendError: TensorRT refuses something, and says what.
        BackendUnavailableError: there is only the lean TensorRT.
    """
    trt, cuda = import_tensorrt("tensorrt"), CudaRuntime(device)
    profile = next(i for i, p in enumerate(artefact.engine.profiles) if p.takes(size, 1))
    found = {}
    with cuda.current():
        brings_code = artefact.engine.lean_runtime_inside
        loader = EngineLoader(trt, trust_host_code=trust_host_code and brings_code)
        for graph in graphs:
            engine = loader.load(bundle.read(artefact.files[graph]))
            inputs = inputs_of(bundle.manifest.graphs[graph], size, bundle.manifest.input.max_clicks)
            times = _profile(trt, cuda, engine, profile, inputs, runs)
            found[graph] = times, origins(_inspected(trt, engine))
    return found


def _inspected(trt: Any, engine: Any) -> str:
    text: str = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return text


def origins(inspected: str) -> dict[str, str]:
    """Layer to the first node of the export in it, from the engine inspector's JSON."""
    layers = json.loads(inspected).get("Layers", [])
    told = [layer for layer in layers if isinstance(layer, dict)]  # without detail a layer is but its name
    nodes = {layer["Name"]: _ORIGIN.findall(layer.get("Metadata", "")) for layer in told}
    return {name: found[0] for name, found in nodes.items() if found}


def _profile(
    trt: Any, cuda: Any, engine: Any, profile: int, inputs: dict[str, Any], runs: int
) -> dict[str, float]:
    class Times(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.spent: defaultdict[str, list[float]] = defaultdict(list)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.spent[layer_name].append(ms)

    context = engine.create_execution_context()
    _require(context is not None, "an execution context")
    times, stream, pointers = Times(), cuda.new_stream(), []
    try:
        _require(context.set_optimization_profile_async(profile, int(stream)), "the profile")
        cuda.synchronize(stream)
        for name, array in inputs.items():
            pointers.append(cuda.malloc(array.nbytes))
            cuda.upload(pointers[-1], array.ctypes.data, array.nbytes)
            _require(context.set_input_shape(name, array.shape), f"the shape of {name}")
            _require(context.set_tensor_address(name, pointers[-1]), f"the address of {name}")
        for name in (engine.get_tensor_name(i) for i in range(engine.num_io_tensors)):
            if name not in inputs:
                size = 4 * trt.volume(context.get_tensor_shape(name))
                pointers.append(cuda.malloc(size))
                _require(context.set_tensor_address(name, pointers[-1]), f"the address of {name}")
        context.profiler, context.enqueue_emits_profile = times, True
        for _ in range(runs + 1):
            _require(context.execute_async_v3(int(stream)), "a run")
            cuda.synchronize(stream)
    finally:
        for pointer in pointers:
            cuda.free(pointer)
        cuda.free_stream(stream)
    return {name: sum(spent[1:]) / max(len(spent) - 1, 1) for name, spent in times.spent.items()}


def _require(done: bool, what: str) -> None:
    if not done:
        raise BackendError(f"TensorRT refuses {what}")
