"""From an ONNX graph to a TensorRT plan: network, configuration, profiles, build.

Networks are strongly typed: TensorRT computes in the types of the graph, which the export wrapper has set
(see ``precision``). Calls are those of TensorRT 10.12 to 11.4, where they are the same.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clickmask.backends.tensorrt_engine import process_logger
from clickmask.engine_facts import EngineProfile
from clickmask.manifest import GraphSpec, TensorSpec
from clickmask_export.errors import BuildError
from clickmask_export.progress import Progress
from clickmask_export.tensorrt_cache import keep_cache, use_cache
from clickmask_export.tensorrt_options import MEBIBYTE, PlanOptions
from clickmask_export.tensorrt_progress import Phases, progress_monitor

USUAL_CLICKS = 8  # rows of the click tensor that kernels are tuned for
_MOST_ERRORS = 10


@dataclass(frozen=True)
class PlanRequest:
    """What one build is asked for.

    Attributes:
        options: chosen by the user.
        profiles: of every graph, in the manifest's order.
        max_clicks: most rows of the click tensor.
        cache: file of the timing cache.
    """

    options: PlanOptions
    profiles: Sequence[EngineProfile]
    max_clicks: int
    cache: Path


def build_plan(
    trt: Any, name: str, spec: GraphSpec, model: bytes, request: PlanRequest, progress: Progress
) -> bytes:
    """Builds the plan of one graph; takes minutes, and ends within a step when interrupted.

    Args:
        trt: the module tensorrt.
        name: the graph's.
        spec: its inputs and outputs.
        model: its ONNX file.
        request: how to build.
        progress: shows a bar.

    Returns:
        The plan's bytes.

    Raises:
        BuildError: TensorRT cannot parse or build the graph; the message has its own last words.
    """
    logger = process_logger(trt)
    logger.last.clear()
    builder = trt.Builder(logger)
    # Required by TensorRT 10; in 11 all networks are, and the flag is ignored.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        raise BuildError(f"TensorRT {trt.__version__} cannot parse the {name}:\n{parser_errors(parser)}")
    config = configured(trt, builder, request.options)
    for profile in request.profiles:
        _add_profile(builder, config, spec, profile, request.max_clicks)
    cache = use_cache(config, request.cache, progress)
    phases = Phases(progress)
    monitor = progress_monitor(trt, phases)  # a name of its own: it must outlive the build
    config.progress_monitor = monitor
    plan = run_interruptibly(lambda: builder.build_serialized_network(network, config), phases.cancel)
    if phases.failure is not None:
        raise phases.failure
    if plan is None:
        said = "; ".join(logger.last) or "it gave no reason"
        raise BuildError(f"TensorRT {trt.__version__} cannot build the {name}: {said}")
    keep_cache(cache, request.cache, progress)
    return bytes(plan)


def configured(trt: Any, builder: Any, options: PlanOptions) -> Any:
    """An ``IBuilderConfig`` with everything but profiles, cache and monitor."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * MEBIBYTE)
    config.builder_optimization_level = options.optimisation_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the proof of precision reads it
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default
    flags = {
        "TF32": trt.BuilderFlag.TF32,
        "VERSION_COMPATIBLE": trt.BuilderFlag.VERSION_COMPATIBLE,
        "EXCLUDE_LEAN_RUNTIME": trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME,
        "STRIP_PLAN": trt.BuilderFlag.STRIP_PLAN,
        "REFIT_IDENTICAL": trt.BuilderFlag.REFIT_IDENTICAL,
    }
    for name in options.flags:
        config.set_flag(flags[name])
    config.hardware_compatibility_level = {
        "none": trt.HardwareCompatibilityLevel.NONE,
        "ampere_plus": trt.HardwareCompatibilityLevel.AMPERE_PLUS,
        "same_compute_capability": trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY,
    }[options.hardware_compatibility]
    return config


def parser_errors(parser: Any) -> str:
    """What the parser did not understand, a line for each node."""
    lines = []
    for index in range(min(parser.num_errors, _MOST_ERRORS)):
        error = parser.get_error(index)
        lines.append(f"  node {error.node()} {error.node_name()} ({error.node_operator()}): {error.desc()}")
    if parser.num_errors > _MOST_ERRORS:
        lines.append(f"  and {parser.num_errors - _MOST_ERRORS} more")
    return "\n".join(lines) or "  it gave no reason"


def profile_shapes(
    tensor: TensorSpec, profile: EngineProfile, max_clicks: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Least, usual and largest shape of an input in a profile."""
    least = {"B": profile.min_batch, "M": 1, "S": profile.size}
    usual = {"B": profile.opt_batch, "M": min(USUAL_CLICKS, max_clicks), "S": profile.size}
    most = {"B": profile.max_batch, "M": max_clicks, "S": profile.size}
    return _shape(tensor, least), _shape(tensor, usual), _shape(tensor, most)


def run_interruptibly(work: Callable[[], Any], cancel: Callable[[], None]) -> Any:
    """Runs what blocks outside Python in a thread, so that Ctrl-C and SIGTERM are heard meanwhile.

    A signal asks ``work`` to end, and takes its usual effect once it has: TensorRT is never left running.

    Args:
        work: gives the result; what it raises is raised here.
        cancel: asks ``work`` to end.
    """
    outcome: list[Any] = []
    failure: list[BaseException] = []
    received: list[int] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as exc:
            failure.append(exc)

    def note(number: int, _: object) -> None:
        received.append(number)
        cancel()

    with _handled_by(note):
        thread = threading.Thread(target=run, name="tensorrt-build")
        thread.start()
        while thread.is_alive():
            thread.join(0.1)
    if received:
        signal.raise_signal(received[0])
    if failure:
        raise failure[0]
    return outcome[0]


@contextmanager
def _handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM call ``handler``; in the main thread, which alone ever hears them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # What is ignored, as in the background of a shell, stays so; None is a handler that is not Python's.
    before = {number: old for number, old in known.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _add_profile(builder: Any, config: Any, spec: GraphSpec, profile: EngineProfile, max_clicks: int) -> None:
    shapes = builder.create_optimization_profile()
    for tensor in spec.inputs:
        least, usual, most = profile_shapes(tensor, profile, max_clicks)
        shapes.set_shape(tensor.name, min=least, opt=usual, max=most)
    if config.add_optimization_profile(shapes) < 0:
        raise BuildError(
            f"TensorRT refuses the optimisation profile for {profile.size} px and 1 to {profile.max_batch} "
            "images: build with a smaller --max-batch"
        )


def _shape(tensor: TensorSpec, extents: dict[str, int]) -> tuple[int, ...]:
    shape = []
    for dimension in tensor.shape:
        symbol, _, divisor = str(dimension).partition("/")
        shape.append(dimension if isinstance(dimension, int) else extents[symbol] // int(divisor or 1))
    return tuple(shape)
