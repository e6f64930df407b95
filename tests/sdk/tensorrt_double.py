"""A TensorRT without a GPU: plans are JSON, engines run the tiny network of bundles.py on a ``FakeCuda``."""

from __future__ import annotations

import enum
import json
import math
import sys
import threading
import types
from typing import Any

import numpy as np
import pytest
from bundles import LOCAL_BIAS, STRIDE, expected_diffusion, expected_logits
from cuda_double import FakeCuda

from clickmask.backends import diffusion, tensorrt
from clickmask.backends.host_facts import Gpu, HostFacts, Package
from clickmask.errors import BackendUnavailableError

DataType = enum.Enum("DataType", ["FLOAT", "HALF"])
IOMode = enum.Enum("TensorIOMode", ["INPUT", "OUTPUT"])
Location = enum.Enum("TensorLocation", ["DEVICE", "HOST"])
Strategy = enum.Enum("ExecutionContextAllocationStrategy", ["STATIC", "USER_MANAGED"])
Information = enum.Enum("LayerInformationFormat", ["ONELINE", "JSON"])
Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])
HOST = HostFacts(
    platform="linux x86_64",
    cuda=(13, 0),
    gpus=(Gpu("NVIDIA H100 80GB HBM3", (9, 0)),) * 2,
    tensorrt=Package("tensorrt-cu13", "11.4.0.106"),
    tensorrt_lean=None,
    cuda_bindings="13.4.4",
)
"""A box that loads the plans of ``bundles.engine``."""

SCRATCH = {"encoder": 4096, "decoder": 2048, "network": 4096, "local_network": 4096, "pixel_diffusion": 512}


class ILogger:
    """The base that a logger must call."""

    Severity = Severity

    def __init__(self) -> None:
        self.ready = True


class IProfiler:
    """The base that a profiler must call."""

    def __init__(self) -> None:
        self.ready = True


class FakeTensorRt:
    """The module, and what a test asks it afterwards.

    Attributes:
        fail: Calls, by name, that report failure from now on; "execute_async_v3 captured" only while a stream
            is captured.
        contexts: Every execution context that was made.
        host_code_allowed: Of each runtime, whether it may run a plan's code.
        refits: The weights that engines were refitted with.
    """

    def __init__(self, cuda: FakeCuda, name: str = "tensorrt") -> None:
        self.cuda = cuda
        self.fail: set[str] = set()
        self.contexts: list[Context] = []
        self.runtimes: list[Runtime] = []
        self.refits: list[bytes] = []
        self.module = types.ModuleType(name)
        self.module.__dict__.update(
            __version__="11.4.0.106",
            DataType=DataType,
            TensorIOMode=IOMode,
            TensorLocation=Location,
            ExecutionContextAllocationStrategy=Strategy,
            ILogger=ILogger,
            IProfiler=IProfiler,
            LayerInformationFormat=Information,
            volume=math.prod,
            Runtime=lambda logger: Runtime(self, logger),
            Refitter=lambda engine, _logger: Refitter(self, engine),
            OnnxParserRefitter=lambda refitter, _logger: ParserRefitter(self, refitter),
        )

    def works(self, call: str) -> bool:
        """False for a call that a test wants to fail."""
        return call not in self.fail


def pretend_gpu(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    """Make this process believe that it is on ``HOST``."""
    cuda = FakeCuda()
    trt = FakeTensorRt(cuda)
    for name, module in {**cuda.modules(), "tensorrt": trt.module}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(tensorrt, "host_facts", lambda: HOST)

    def not_built() -> Any:  # a library that was would want a real GPU
        raise BackendUnavailableError("not built")

    monkeypatch.setattr(diffusion, "diffusion_library", not_built)
    return trt


class Runtime:
    def __init__(self, trt: FakeTensorRt, logger: Any) -> None:
        assert logger.ready
        self.trt, self.logger = trt, logger
        self.engine_host_code_allowed = False
        trt.runtimes.append(self)

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        try:
            facts = json.loads(plan)
        except ValueError:
            self.logger.log(Severity.ERROR, "magic tag does not match")
            return None
        return Engine(self.trt, facts)


class Engine:
    """``facts``: graph, tensors as [name, dtype, shape, mode], profiles."""

    def __init__(self, trt: FakeTensorRt, facts: dict[str, Any]) -> None:
        self.trt, self.facts = trt, facts
        self.tensors = {name: (dtype, shape, mode) for name, dtype, shape, mode in facts["tensors"]}
        self.num_io_tensors = len(self.tensors)
        self.num_optimization_profiles = facts["profiles"]

    def get_tensor_name(self, number: int) -> str:
        return list(self.tensors)[number]

    def get_tensor_dtype(self, name: str) -> DataType:
        return {"float32": DataType.FLOAT, "float16": DataType.HALF}[self.tensors[name][0]]

    def get_tensor_mode(self, name: str) -> IOMode:
        return IOMode[self.tensors[name][2]]

    def get_tensor_location(self, _name: str) -> Location:
        return Location.DEVICE

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return SCRATCH[self.facts["graph"]] * (profile + 1)

    def create_execution_context(self, strategy: Strategy = Strategy.STATIC) -> Any:
        return Context(self, strategy) if self.trt.works("create_execution_context") else None

    def create_engine_inspector(self) -> Inspector:
        return Inspector(self)


class Inspector:
    """One layer, of which two nodes became one."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def get_engine_information(self, form: Information) -> str:
        assert form is Information.JSON
        graph = self.engine.facts["graph"]
        metadata = f"[ONNX Layer: network.{graph}/Conv]\x1e[ONNX Layer: network.{graph}/Relu]"
        return json.dumps({"Layers": [{"Name": f"{graph} layer", "Metadata": metadata}]})


class Context:
    """Checks what it is told and runs the graph in NumPy when its stream gets there."""

    def __init__(self, engine: Engine, strategy: Strategy) -> None:
        self.engine, self.trt, self.cuda = engine, engine.trt, engine.trt.cuda
        self.strategy = strategy
        self.profiler: Any = None
        self.enqueue_emits_profile = False
        self.graph = engine.facts["graph"]
        self.profile = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = (0, 0)
        self.threads: set[int] = set()
        self.runs: list[dict[str, tuple[int, ...]]] = []
        self.busy = threading.Lock()
        self.trt.contexts.append(self)

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream != 0, "the default stream"
        self.profile = profile
        return self.trt.works("set_optimization_profile_async")

    def set_device_memory(self, memory: int, size: int) -> None:
        assert self.strategy is Strategy.USER_MANAGED
        assert memory % 256 == 0
        assert size >= self.engine.get_device_memory_size_for_profile_v2(self.profile)
        self.scratch = (memory, size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert not self.cuda.capturing()
        self.shapes[name] = shape
        return self.trt.works("set_input_shape")

    def infer_shapes(self) -> list[str]:
        return [] if self.trt.works("infer_shapes") else ["clicks"]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return self.trt.works("set_tensor_address")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name] if name in self.shapes else self._outputs()[name]

    def execute_async_v3(self, stream: int) -> bool:
        assert self.busy.acquire(blocking=False), "one context, two threads"
        try:
            assert stream != 0
            capturing = self.cuda.capturing()
            if not self.trt.works("execute_async_v3") or (
                capturing and not self.trt.works("execute_async_v3 captured")
            ):
                return False
            self.threads.add(threading.get_ident())
            self.runs.append(dict(self.shapes))
            self.cuda.put(stream, self._work(dict(self.shapes), dict(self.addresses), self.scratch))
            return True
        finally:
            self.busy.release()

    def _outputs(self) -> dict[str, tuple[int, ...]]:
        first = "feature_0" if self.graph == "decoder" else "image"
        batch, _, side, _ = self.shapes[first]
        size = side * STRIDE if self.graph == "decoder" else side
        full = (batch, 1, size, size)
        small = (batch, 3, size // STRIDE, size // STRIDE)
        return {"logits": full, "diffused_logits": full, "feature_0": small}

    def _work(self, shapes: dict[str, Any], addresses: dict[str, int], scratch: tuple[int, int]) -> Any:
        outputs = self._outputs()
        assert scratch[1] or self.strategy is Strategy.STATIC

        def run() -> None:
            if scratch[1]:
                self.cuda.array(scratch[0], (scratch[1],), "uint8")[:] = 0x7F
            feeds = {name: self._view(name, shapes[name], addresses) for name in shapes}
            name, result = self._compute(feeds)
            self._view(name, outputs[name], addresses)[:] = result
            if self.profiler is not None and self.enqueue_emits_profile:
                assert self.profiler.ready
                self.profiler.report_layer_time(f"{self.graph} layer", float(len(self.runs)))

        return run

    def _view(self, name: str, shape: tuple[int, ...], addresses: dict[str, int]) -> np.ndarray:
        return self.cuda.array(addresses[name], shape, self.engine.tensors[name][0])

    def _compute(self, feeds: dict[str, np.ndarray]) -> tuple[str, np.ndarray]:
        if self.graph == "pixel_diffusion":
            result = expected_diffusion(feeds["image"], feeds["clicks"], feeds["logits"])
            return "diffused_logits", np.where(np.isfinite(result), result, 1)  # the real one hides them, too
        if self.graph == "encoder":
            batch, channels, size, _ = feeds["image"].shape
            side = size // STRIDE
            return "feature_0", feeds["image"].reshape(batch, channels, side, STRIDE, side, STRIDE).mean(
                (3, 5)
            )
        body = feeds["feature_0" if self.graph == "decoder" else "image"]
        if self.graph == "decoder":
            body = body.repeat(STRIDE, axis=2).repeat(STRIDE, axis=3)
        logits = expected_logits(body, feeds["clicks"], feeds.get("previous_mask"), encodes_once=False)
        bias = self.engine.facts["bias"] + LOCAL_BIAS * (self.graph == "local_network")
        return "logits", logits + bias


class Refitter:
    def __init__(self, trt: FakeTensorRt, _engine: Engine) -> None:
        self.trt = trt

    def refit_cuda_engine(self) -> bool:
        return self.trt.works("refit_cuda_engine")


class ParserRefitter:
    def __init__(self, trt: FakeTensorRt, _refitter: Refitter) -> None:
        self.trt, self.num_errors = trt, 1

    def refit_from_bytes(self, model: bytes) -> bool:
        self.trt.refits.append(model)
        return self.trt.works("refit_from_bytes")

    def get_error(self, _number: int) -> Any:
        return types.SimpleNamespace(desc=lambda: "no such initializer")
