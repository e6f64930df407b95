"""What the project's code asks of TensorRT, read off the code itself, so that no list can go stale.

A name has a TensorRT type if it is bound to what the bindings' docstrings say that a call returns
(``network = builder.create_network(...)``), or if it is a parameter of a conventional name (``engine``).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from real_bindings import Bindings

# Parameters cannot be inferred; values of these names are of these types all over the project.
PARAMETERS = {
    "builder": "Builder",
    "trt_config": "IBuilderConfig",
    "parser": "OnnxParser",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "refitter": "Refitter",
    "runtime": "Runtime",
}


@dataclass(frozen=True)
class Use:
    """One attribute of a TensorRT object, or of the module, that the code touches.

    Attributes:
        where: file and line.
        path: such as ("BuilderFlag", "TF32") or ("Builder", "create_network").
        positional: number of positional arguments if it is called; else None.
        keywords: names of keyword arguments if it is called.
    """

    where: str
    path: tuple[str, ...]
    positional: int | None = None
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """A method that our code defines for TensorRT to call (or, in a double, for TensorRT to have)."""

    where: str
    base: str
    name: str
    arguments: tuple[str, ...]


def uses_in(path: Path, bindings: Bindings) -> list[Use]:
    """Everything that a file asks of TensorRT."""
    return _File(path, bindings).uses()


def methods_in(path: Path) -> list[Method]:
    """Methods of classes that derive from a class of ``trt``."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            bases = [chain for base in node.bases if (chain := _chain(base)) and chain[0] == "trt"]
            found += [method for base in bases for method in _methods(node, base[1], path)]
    return found


def methods_of_double(path: Path, renamed: dict[str, str]) -> list[Method]:
    """Public methods of a double's classes, which have the real names, but for those ``renamed``."""
    found: list[Method] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found += _methods(node, renamed.get(node.name, node.name), path)
    return [method for method in found if not method.name.startswith("_")]


def enums_of_double(path: Path) -> dict[str, list[str]]:
    """Enumerations that a double makes by ``enum.Enum("Name", ["MEMBER", ...])``."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and _chain(node.func) in (["enum", "Enum"], ["enum", "IntEnum"]):
            found[ast.literal_eval(node.args[0])] = ast.literal_eval(node.args[1])
    return found


class _File:
    def __init__(self, path: Path, bindings: Bindings) -> None:
        self._path, self._bindings = path, bindings
        self._tree = ast.parse(path.read_text())
        self._types: dict[str, str] = {}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.arg) and node.arg in PARAMETERS:
                self._types[node.arg] = PARAMETERS[node.arg]
        while self._bind():
            pass

    def uses(self) -> list[Use]:
        called = {id(node.func): node for node in ast.walk(self._tree) if isinstance(node, ast.Call)}
        inner = {id(node.value) for node in ast.walk(self._tree) if isinstance(node, ast.Attribute)}
        found = []
        for node in ast.walk(self._tree):
            if not isinstance(node, ast.Attribute):
                continue
            path = self._path_of(node)
            if not path or (id(node) in inner and len(path) == 1):  # the longest chain says it all
                continue
            call = called.get(id(node))
            if call is None:
                found.append(Use(self._where(node), path))
            else:
                keywords = tuple(keyword.arg for keyword in call.keywords if keyword.arg is not None)
                bound = path[-1] == "__init__"  # of a base, called with self
                found.append(Use(self._where(node), path, len(call.args) - bound, keywords))
        return found

    def _bind(self) -> bool:
        """Types of names from what they are assigned; whether any was new."""
        before = len(self._types)
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self._bind_one(target, node.value)
            elif isinstance(node, ast.NamedExpr | ast.AnnAssign) and node.value is not None:
                self._bind_one(node.target, node.value)
        return len(self._types) > before

    def _bind_one(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, other in zip(target.elts, value.elts, strict=True):
                self._bind_one(one, other)
            return
        name, kind = _dotted(target), self._type(value)
        if name is not None and kind is not None:
            self._types[name] = kind

    def _type(self, node: ast.expr) -> str | None:
        """The TensorRT class of an expression, as far as it is known."""
        if (name := _dotted(node)) is not None and name in self._types:
            return self._types[name]
        if isinstance(node, ast.Call) and (path := self._path_of(node.func)) is not None:
            if len(path) == 1:
                return path[0]
            results = {result for _, result in self._bindings.signatures(*path)}
            return next((result for result in results if self._bindings.find(result)), None)
        return None

    def _path_of(self, node: ast.expr) -> tuple[str, ...] | None:
        if not isinstance(node, ast.Attribute):
            return None
        chain = _chain(node)
        if chain and chain[0] in ("trt", "self.trt"):
            return tuple(chain[1:])
        kind = self._type(node.value)
        return None if kind is None else (kind, node.attr)

    def _where(self, node: ast.expr) -> str:
        return f"{self._path.name}:{node.lineno}"


def _chain(node: ast.expr) -> list[str] | None:
    """["trt", "BuilderFlag", "TF32"]; what follows ``self.trt`` likewise."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    if node.id == "self" and names and names[0] in ("trt", "_trt"):
        return ["self.trt", *names[1:]]
    return [node.id, *names]


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return f"self.{node.attr}"
    return None


def _methods(node: ast.ClassDef, base: str, path: Path) -> Iterator[Method]:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and not item.decorator_list:
            arguments = tuple(argument.arg for argument in item.args.args[1:])
            yield Method(f"{path.name}:{item.lineno}", base, item.name, arguments)
