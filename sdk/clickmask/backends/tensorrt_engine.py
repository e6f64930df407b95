"""From the bytes of a plan to a TensorRT engine, with every way to fail named."""

from __future__ import annotations

import importlib
import logging
import threading
from collections import deque
from typing import Any

from ..engine_facts import EngineFacts
from ..errors import BackendError, BackendUnavailableError
from ..manifest import GraphSpec
from . import host

_log = logging.getLogger("clickmask.tensorrt")
_loggers: dict[
    str, Any
] = {}  # TensorRT keeps the first logger of a process, which must therefore never go away
_lock = threading.Lock()
_REINSTALL = 'pip install --force-reinstall "{}>=10.12,<12"'


def import_tensorrt(name: str) -> Any:
    """The module "tensorrt" or "tensorrt_lean".

    Raises:
        BackendUnavailableError: It does not import, or another folder has its name.
    """
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as exc:
        raise BackendUnavailableError(
            f"expected the module {name} to import, got: {exc}; run: {_REINSTALL.format(name)}"
        ) from exc
    if not hasattr(module, "Runtime"):
        raise BackendUnavailableError(
            f"expected TensorRT, got a module without Runtime from {host.location(module)}; rename that "
            f"folder or run: {_REINSTALL.format(name)}"
        )
    return module


class EngineLoader:
    """Makes engines of plans with one runtime.

    Attributes:
        trt: The module it uses.
    """

    def __init__(self, trt: Any, *, trust_host_code: bool) -> None:
        """Make a runtime; call this only where ``plan_fit`` said that a plan loads.

        Args:
            trt: "tensorrt" or "tensorrt_lean".
            trust_host_code: Whether plans may bring code that this process runs.
        """
        self.trt = trt
        self._logger = process_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        if trust_host_code:
            self._runtime.engine_host_code_allowed = True

    def load(self, plan: bytes, weights: bytes | None = None) -> Any:
        """An engine.

        Args:
            plan: The bytes of the plan.
            weights: Of a plan without weights, the ONNX file that has them.

        Raises:
            BackendError: TensorRT refuses either; its own last messages are in the text.
        """
        self._logger.last.clear()
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self._error("Runtime.deserialize_cuda_engine")
        if weights is not None:
            self._refit(engine, weights)
        return engine

    def _refit(self, engine: Any, weights: bytes) -> None:
        trt = self.trt
        refitter = trt.Refitter(engine, self._logger)
        parser = trt.OnnxParserRefitter(refitter, self._logger)
        if not parser.refit_from_bytes(weights):
            errors = "; ".join(parser.get_error(number).desc() for number in range(parser.num_errors))
            raise self._error("OnnxParserRefitter.refit_from_bytes", errors)
        if not refitter.refit_cuda_engine():
            raise self._error("Refitter.refit_cuda_engine")

    def _error(self, call: str, detail: str = "") -> BackendError:
        said = "; ".join(filter(None, [detail, *self._logger.last])) or "nothing"
        return BackendError(f"TensorRT {self.trt.__version__}: {call} failed; it said: {said}")


def check_engine(trt: Any, engine: Any, graph: str, spec: GraphSpec, facts: EngineFacts) -> None:
    """Hold an engine's tensors and profiles against the manifest.

    Raises:
        BackendError: They differ: the plan is another graph's or was built for another manifest.
    """
    dtypes = {trt.DataType.FLOAT: "float32", trt.DataType.HALF: "float16"}
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    for side, mode, wanted in (
        ("inputs", trt.TensorIOMode.INPUT, spec.inputs),
        ("outputs", trt.TensorIOMode.OUTPUT, spec.outputs),
    ):
        found = {
            name: dtypes.get(engine.get_tensor_dtype(name), str(engine.get_tensor_dtype(name)))
            for name in names
            if engine.get_tensor_mode(name) == mode
        }
        expected = {tensor.name: tensor.dtype for tensor in wanted}
        if found != expected:
            raise BackendError(
                f"graph {graph!r}: expected the {side} {expected} of the manifest, got {found}."
            )
    on_host = [name for name in names if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE]
    if on_host:
        raise BackendError(
            f"graph {graph!r}: expected every tensor on the device, got {on_host} on the host."
        )
    if engine.num_optimization_profiles != len(facts.profiles):
        raise BackendError(
            f"graph {graph!r}: expected the {len(facts.profiles)} optimisation profiles of the manifest, got "
            f"{engine.num_optimization_profiles}."
        )


def process_logger(trt: Any) -> Any:
    """The process's one logger for a module: its messages go to ``clickmask.tensorrt``.

    TensorRT keeps the first logger that it is given, so that builder and loader share this one. Its ``last``
    has the last errors.
    """
    with _lock:
        if trt.__name__ not in _loggers:
            levels = {
                trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
                trt.ILogger.Severity.ERROR: logging.ERROR,
                trt.ILogger.Severity.WARNING: logging.WARNING,
                trt.ILogger.Severity.INFO: logging.INFO,
                trt.ILogger.Severity.VERBOSE: logging.DEBUG,
            }

            class Logger(trt.ILogger):  # type: ignore[misc]
                def __init__(self) -> None:
                    trt.ILogger.__init__(self)
                    self.last: deque[str] = deque(maxlen=3)

                def log(self, severity: Any, msg: str) -> None:  # from any thread
                    level = levels[severity]
                    if level >= logging.ERROR:
                        self.last.append(msg)
                    _log.log(level, "%s", msg)

            _loggers[trt.__name__] = Logger()
        return _loggers[trt.__name__]
