"""Every name of ``cuda.bindings`` that clickmask uses, and each number of arguments, in the real one.

Collected from the source, so that the list cannot go stale. It imports without a GPU; nothing is run.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from cuda_double import FakeCuda
from driver_double import FakeDriver

ROOT = Path(__file__).parents[2]
ROOMS = ("sdk/clickmask", "export", "examples", "tests/gpu")
MODULES = {"cudart": "cuda.bindings.runtime", "cudriver": "cuda.bindings.driver"}
"""What they are called in the source."""
DOUBLES = {"cudart": FakeCuda, "cudriver": FakeDriver}


def module_of(node: ast.AST) -> str | None:
    """ "cudart" for the name or an attribute of that name; None for anything else."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name if name in MODULES else None


def trees() -> list[ast.Module]:
    texts = [path.read_text() for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return [ast.parse(text) for text in texts if any(name in text for name in MODULES)]


def dotted(node: ast.Attribute) -> tuple[str, ...]:
    """("cudart", "a", "b") for ``cudart.a.b``; nothing for anything else."""
    if module := module_of(node.value):
        return module, node.attr
    inner = dotted(node.value) if isinstance(node.value, ast.Attribute) else ()
    return (*inner, node.attr) if inner else ()


def names() -> set[tuple[str, ...]]:
    nodes = [node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {name for node in nodes if (name := dotted(node))}


def calls() -> dict[tuple[str, str], set[int]]:
    """Module and function to the numbers of arguments given, directly or through ``CudaRuntime.call``."""
    found: dict[tuple[str, str], set[int]] = {}
    for node in (node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function, arguments = node.func, node.args
        if isinstance(function, ast.Attribute) and function.attr == "call" and arguments:
            function, arguments = arguments[0], arguments[1:]
        if isinstance(function, ast.Attribute) and (module := module_of(function.value)):
            found.setdefault((module, function.attr), set()).add(len(arguments))
    return found


def parameters(function: Any) -> int:
    """Of a compiled function: counted in the first line of its docstring, ``name(int a, b: type, c)``."""
    match = re.match(r"\w+\(([^)]*)\)", inspect.getdoc(function) or "")
    assert match, function
    return len([part for part in match.group(1).split(",") if part.strip()])


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-bindings, which runs without a GPU")
    return {name: importlib.import_module(module) for name, module in MODULES.items()}


def test_the_source_is_read() -> None:
    assert {("cudart", "cudaGraphLaunch"), ("cudart", "cudaError_t", "cudaSuccess")} <= names()
    assert calls()["cudart", "cudaMemcpyAsync"] == {5}
    assert calls()["cudriver", "cuCtxPopCurrent"] == {0}
    assert calls()["cudart", "cudaDeviceSynchronize"] == {0}  # of the profiler


def test_the_double_has_every_name() -> None:
    modules = FakeCuda().modules()
    for module, *parts in names():
        target: Any = modules[MODULES[module]]
        for part in parts:
            target = getattr(target, part)


def test_every_name_exists(real: dict[str, Any]) -> None:
    for module, *parts in names():
        target = real[module]
        for part in parts:
            assert hasattr(target, part), (module, parts)
            target = getattr(target, part)


def test_every_call_has_the_right_number_of_arguments(real: dict[str, Any]) -> None:
    for (module, name), counts in calls().items():
        assert counts == {parameters(getattr(real[module], name))}, name


def test_the_double_takes_what_the_real_one_takes(real: dict[str, Any]) -> None:
    for module, name in calls():
        fake = len(inspect.signature(getattr(DOUBLES[module], name)).parameters) - 1
        assert fake == parameters(getattr(real[module], name)), name


def test_streams_are_integers_and_errors_come_first(real: dict[str, Any]) -> None:
    cudart, cudriver = real["cudart"], real["cudriver"]
    assert int(cudart.cudaStream_t(5)) == 5
    assert cudart.cudaGetErrorString(cudart.cudaError_t.cudaErrorInvalidValue) == (
        cudart.cudaError_t.cudaSuccess,
        b"invalid argument",
    )
    assert not isinstance(cudart.cudaError_t.cudaSuccess, cudriver.CUresult)
