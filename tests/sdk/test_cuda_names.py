"""Every name of ``cuda.bindings.runtime`` that clickmask uses, and each number of arguments, in the real one.

Collected from the source, so that the list cannot go stale. It imports without a GPU; nothing is run.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from cuda_double import FakeCuda

ROOT = Path(__file__).parents[2] / "sdk/clickmask"


def is_cudart(node: ast.AST) -> bool:
    return (isinstance(node, ast.Name) and node.id == "cudart") or (
        isinstance(node, ast.Attribute) and node.attr == "cudart"
    )


def trees() -> list[ast.Module]:
    texts = [path.read_text() for path in sorted(ROOT.rglob("*.py"))]
    return [ast.parse(text) for text in texts if "cudart" in text]


def dotted(node: ast.Attribute) -> str | None:
    """ "a.b" for ``cudart.a.b``; None for anything else."""
    if is_cudart(node.value):
        return node.attr
    inner = dotted(node.value) if isinstance(node.value, ast.Attribute) else None
    return None if inner is None else f"{inner}.{node.attr}"


def names() -> set[str]:
    nodes = [node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {name for node in nodes if (name := dotted(node))}


def calls() -> dict[str, set[int]]:
    """Function to the numbers of arguments that it is given, directly or through ``CudaRuntime.call``."""
    found: dict[str, set[int]] = {}
    for node in (node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function, arguments = node.func, node.args
        if isinstance(function, ast.Attribute) and function.attr == "call" and arguments:
            function, arguments = arguments[0], arguments[1:]
        if isinstance(function, ast.Attribute) and is_cudart(function.value):
            found.setdefault(function.attr, set()).add(len(arguments))
    return found


def parameters(function: Any) -> int:
    """Of a compiled function: counted in the first line of its docstring, ``name(int a, b: type, c)``."""
    match = re.match(r"\w+\(([^)]*)\)", inspect.getdoc(function) or "")
    assert match, function
    return len([part for part in match.group(1).split(",") if part.strip()])


@pytest.fixture(scope="module")
def cudart() -> Any:
    return pytest.importorskip(
        "cuda.bindings.runtime", reason="needs cuda-bindings, which runs without a GPU"
    )


def test_the_source_is_read() -> None:
    assert {"cudaMalloc", "cudaGraphLaunch", "cudaError_t.cudaSuccess"} <= names()
    assert calls()["cudaMemcpyAsync"] == {5}


def test_the_double_has_every_name() -> None:
    module = FakeCuda().module
    for name in names():
        target: Any = module
        for part in name.split("."):
            target = getattr(target, part)


def test_every_name_exists(cudart: Any) -> None:
    for name in names():
        target = cudart
        for part in name.split("."):
            assert hasattr(target, part), name
            target = getattr(target, part)


def test_every_call_has_the_right_number_of_arguments(cudart: Any) -> None:
    for name, counts in calls().items():
        assert counts == {parameters(getattr(cudart, name))}, name


def test_the_double_takes_what_the_real_one_takes(cudart: Any) -> None:
    for name in calls():
        fake = len(inspect.signature(getattr(FakeCuda, name)).parameters) - 1
        assert fake == parameters(getattr(cudart, name)), name


def test_streams_are_integers_and_errors_come_first(cudart: Any) -> None:
    assert int(cudart.cudaStream_t(5)) == 5
    assert cudart.cudaGetErrorString(cudart.cudaError_t.cudaErrorInvalidValue) == (
        cudart.cudaError_t.cudaSuccess,
        b"invalid argument",
    )
