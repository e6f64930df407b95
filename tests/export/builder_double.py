"""A TensorRT that records how it is used: plans are JSON, layers are the ONNX graph's, nothing is computed.

Classes and members have the real names; ``test_tensorrt_contract.py`` holds them against the real bindings.
"""

from __future__ import annotations

import enum
import json
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import TensorProto

from clickmask_export.precision_policy import node_precisions

BuilderFlag = enum.Enum(
    "BuilderFlag", ["TF32", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME", "STRIP_PLAN", "REFIT_IDENTICAL"]
)
NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", ["STRONGLY_TYPED"], start=0)
MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED"])
HardwareCompatibilityLevel = enum.Enum(
    "HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"]
)
LayerInformationFormat = enum.Enum("LayerInformationFormat", ["ONELINE", "JSON"])
DataType = enum.Enum("DataType", ["FLOAT", "HALF"])
TensorIOMode = enum.Enum("TensorIOMode", ["INPUT", "OUTPUT"])
TensorLocation = enum.Enum("TensorLocation", ["DEVICE", "HOST"])
ExecutionContextAllocationStrategy = enum.Enum(
    "ExecutionContextAllocationStrategy", ["STATIC", "USER_MANAGED"]
)
Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])


@dataclass
class World:
    """What one test sees and decides.

    Attributes:
        calls: what was called, in order.
        configs: every builder configuration.
        cache: what timing caches serialise to.
        old_caches: bytes that caches were made of.
        accepts_cache: whether a cache of old bytes fits.
        parser_faults: (node, name, operator, description) that the parser reports.
        build: called while a plan is built, with the monitor; False makes the build fail.
        layers: changes the inspector's layers.
        style: of the inspector's JSON, 10 or 11.
        refits: models that engines were refitted with.
    """

    calls: list[str] = field(default_factory=list)
    configs: list[IBuilderConfig] = field(default_factory=list)
    cache: bytes = b"measured"
    old_caches: list[bytes] = field(default_factory=list)
    accepts_cache: bool = True
    parser_faults: list[tuple[int, str, str, str]] = field(default_factory=list)
    build: Callable[[Any], bool] = lambda monitor: walk(monitor)
    layers: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda layers: layers
    style: int = 11
    refits: list[bytes] = field(default_factory=list)


world = World()


def walk(monitor: Any) -> bool:
    """A build of two nested phases; stops where the monitor says so."""
    monitor.phase_start("Building Engine", None, 2)
    for step in range(2):
        monitor.phase_start("Tactic Selection", "Building Engine", 3)
        for inner in range(3):
            if not monitor.step_complete("Tactic Selection", inner):
                return False
        monitor.phase_finish("Tactic Selection")
        if not monitor.step_complete("Building Engine", step):
            return False
    monitor.phase_finish("Building Engine")
    return True


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.ready = True


class IProgressMonitor:
    def __init__(self) -> None:
        self.ready = True


class IHostMemory:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bytes__(self) -> bytes:
        return self._data


class Builder:
    def __init__(self, logger: Any) -> None:
        assert logger.ready
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        world.calls.append("create_network")
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        world.calls.append("create_builder_config")
        world.configs.append(IBuilderConfig())
        return world.configs[-1]

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> Any:
        world.calls.append("build_serialized_network")
        assert config.progress_monitor.ready
        if not world.build(config.progress_monitor):
            self._logger.log(Severity.ERROR, "no kernel for the node")
            return None
        strip = BuilderFlag.STRIP_PLAN in config.chosen
        plan = {
            "model": "" if strip else network.model.hex(),
            "tensors": network.tensors,
            "profiles": len(config.profiles),
            "verbosity": config.profiling_verbosity.name,
            "layers": network._described(),
        }
        return IHostMemory(json.dumps(plan).encode())


class INetworkDefinition:
    model = b""

    @property
    def _graph(self) -> onnx.GraphProto:
        return onnx.load_model_from_string(self.model).graph

    @property
    def tensors(self) -> list[tuple[str, int, str]]:
        sides = (("INPUT", self._graph.input), ("OUTPUT", self._graph.output))
        return [(v.name, v.type.tensor_type.elem_type, side) for side, values in sides for v in values]

    def _described(self) -> list[dict[str, Any]]:
        """One layer for each node, and what a real engine has besides."""
        model = onnx.load_model_from_string(self.model)
        half = any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
        found = [_layer("Reformatting CopyNode for Input Tensor 0", "Reformat", "fp32")]
        for name, node in node_precisions(model, "any", "fp16" if half else "fp32").items():
            found.append(_layer(f"__myl_{len(found)}" if node.heavy else name, "kgen", node.dtype, name))
        return found


def _layer(name: str, kind: str, dtype: str, node: str = "") -> dict[str, Any]:
    said = {
        "fp32": ("Row major linear FP32", "Float"),
        "fp16": ("Row major linear FP16 format", "Half"),
        "int8": ("Thirty-two wide channel vectorized row major Int8 format", "Int8"),
    }[dtype]
    tensor = {10: {"Format/Datatype": said[0]}, 11: {"Datatype": said[1], "Format": "Row major linear"}}
    values = [{"Name": "x", "Dimensions": [1, 3], **tensor[world.style]}]
    metadata = f"[ONNX Layer: {node}]" if node else ""
    return {"Name": name, "LayerType": kind, "Inputs": values, "Outputs": values, "Metadata": metadata}


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: Any) -> None:
        assert logger.ready
        self._network = network
        self.num_errors = 0

    def parse(self, model: bytes) -> bool:
        world.calls.append("parse")
        self._network.model = model
        self.num_errors = len(world.parser_faults)
        return not world.parser_faults

    def get_error(self, index: int) -> ParserError:
        return ParserError(world.parser_faults[index])


class ParserError:
    def __init__(self, fault: tuple[int, str, str, str]) -> None:
        self._fault = fault

    def node(self) -> int:
        return self._fault[0]

    def node_name(self) -> str:
        return self._fault[1]

    def node_operator(self) -> str:
        return self._fault[2]

    def desc(self) -> str:
        return self._fault[3]


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Any, Any, Any]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[input] = (min, opt, max)


class ITimingCache:
    def serialize(self) -> IHostMemory:
        return IHostMemory(world.cache)


class IBuilderConfig:
    def __init__(self) -> None:
        self.limits: dict[MemoryPoolType, int] = {}
        self.chosen: set[BuilderFlag] = {BuilderFlag.TF32}  # as the real one begins
        self.profiles: list[IOptimizationProfile] = []
        self.builder_optimization_level = 3
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.progress_monitor: Any = None
        self._old = b""

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.limits[pool] = pool_size

    def set_flag(self, flag: BuilderFlag) -> None:
        self.chosen.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.chosen.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        world.old_caches.append(serialized_timing_cache)
        self._old = serialized_timing_cache
        return ITimingCache()

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert isinstance(cache, ITimingCache)
        assert not ignore_mismatch
        return world.accepts_cache or not self._old


class Runtime:
    def __init__(self, logger: Any) -> None:
        assert logger.ready
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine:
        world.calls.append("deserialize_cuda_engine")
        return ICudaEngine(json.loads(serialized_engine))


class ICudaEngine:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.num_io_tensors = len(plan["tensors"])
        self.num_optimization_profiles = plan["profiles"]

    def get_tensor_name(self, index: int) -> str:
        return str(self.plan["tensors"][index][0])

    def _tensor(self, name: str) -> tuple[str, int, str]:
        return next(tensor for tensor in self.plan["tensors"] if tensor[0] == name)

    def get_tensor_dtype(self, name: str) -> DataType:
        return {TensorProto.FLOAT: DataType.FLOAT, TensorProto.FLOAT16: DataType.HALF}[self._tensor(name)[1]]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode[self._tensor(name)[2]]

    def get_tensor_location(self, name: str) -> TensorLocation:  # noqa: ARG002 - the real one's argument
        return TensorLocation.DEVICE

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> IExecutionContext:
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return IExecutionContext(self)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True


class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self.execution_context: Any = None

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        assert format is LayerInformationFormat.JSON
        inputs = {tensor[0] for tensor in self._engine.plan["tensors"] if tensor[2] == "INPUT"}
        assert set(self.execution_context.shapes) == inputs, "formats of dynamic shapes need a context"
        layers = world.layers(self._engine.plan["layers"])
        if self._engine.plan["verbosity"] != "DETAILED":
            layers = [layer["Name"] for layer in layers]
        return json.dumps({"Layers": layers})


class Refitter:
    def __init__(self, engine: ICudaEngine, logger: Any) -> None:
        assert logger.ready
        self.engine = engine

    def refit_cuda_engine(self) -> bool:
        return True


class OnnxParserRefitter:
    num_errors = 0

    def __init__(self, refitter: Refitter, logger: Any) -> None:
        assert logger.ready
        self._refitter = refitter

    def refit_from_bytes(self, model: bytes) -> bool:
        world.refits.append(model)
        return True


def fake_tensorrt(style: int = 11) -> types.ModuleType:
    """A module of these, and a new ``world``."""
    global world
    world = World(style=style)
    module = types.ModuleType("tensorrt")
    module.__dict__.update({name: value for name, value in globals().items() if isinstance(value, type)})
    module.__version__ = {10: "10.16.0.72", 11: "11.4.0.106"}[style]
    return module
