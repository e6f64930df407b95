"""The limits that CONTRIBUTING.md sets: a file is one idea, a function fits a screen."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    path for room in ("sdk", "models", "training", "export") for path in sorted((ROOT / room).rglob("*.py"))
]


def length_without_docstring(function: ast.FunctionDef) -> int:
    first = function.body[0]
    has_docstring = ast.get_docstring(function) is not None
    start = function.body[1].lineno if has_docstring and len(function.body) > 1 else first.lineno
    return (function.end_lineno or start) - start + 1


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert length_without_docstring(node) <= 40, node.name
