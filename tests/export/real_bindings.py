"""What the real TensorRT bindings offer, found without TensorRT.

The wheel of the bindings (tensorrt-cu13-bindings) has no dependencies and 1 MB; the libraries behind it have
gigabytes. The module imports where those are stood in for by three stubs with the functions that it links to.
Nothing is ever called: names, enumerations and docstrings are all that is read, in a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

_STUBS = {
    "libnvinfer": (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
    ),
    "libnvonnxparser": (
        "createNvOnnxParser_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "getNvOnnxParserVersion",
    ),
    "libnvinfer_plugin": ("initLibNvInferPlugins",),
}
_DESCRIBE = """
import inspect, json, sys
import tensorrt_bindings as trt

def describe(value):
    if inspect.isfunction(value):  # the module's few in Python; others have their signature in the docstring
        return {"doc": f"{value.__name__}{inspect.signature(value)} -> object"}
    if not inspect.isclass(value):
        return {"doc": getattr(value, "__doc__", None) or ""}
    members = {name: getattr(value, name) for name in dir(value)}
    return {
        "doc": value.__doc__ or "",
        "enum": sorted(getattr(value, "__members__", {})),
        "members": {
            name: describe(member)
            for name, member in members.items()
            if name == "__init__" or not name.startswith("__")
        },
    }

json.dump({name: describe(getattr(trt, name)) for name in dir(trt)}, sys.stdout)
"""
_SIGNATURE = re.compile(r"^(?:\d+\. )?(\w+)\((.*)\) -> (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Bindings:
    """Names of one version.

    Attributes:
        version: such as "11.4.0.106".
        api: module attribute to its description; classes have "members" and, if enumerations, "enum".
    """

    version: str
    api: dict[str, Any]

    def find(self, *path: str) -> dict[str, Any] | None:
        """The description of ``trt.A.B``, or None if there is no such thing."""
        node: dict[str, Any] | None = self.api.get(path[0])
        for name in path[1:]:
            if node is None:
                return None
            inside = node.get("members", {})
            node = inside.get(name) or ({"doc": ""} if name in node.get("enum", ()) else None)
        return node

    def _class(self, result: str) -> str:
        """The name in this module of what a docstring says: "nvonnxparser::IParserError" is ParserError."""
        name = re.split(r"[.:]+", result)[-1]
        return name if name in self.api else name.removeprefix("I")

    def signatures(self, *path: str) -> list[tuple[list[str], str]]:
        """Argument names and the type of the result of each overload, as the docstring has them."""
        found = self.find(*path)
        if found is None:
            return []
        return [
            (_arguments(arguments), self._class(result))
            for _, arguments, result in _SIGNATURE.findall(found["doc"])
            if arguments != "*args, **kwargs"
        ]


def places() -> list[str]:
    """Where bindings are: installed (the empty name), and unpacked in $CLICKMASK_TENSORRT_BINDINGS."""
    more = os.environ.get("CLICKMASK_TENSORRT_BINDINGS", "")
    return ["", *filter(None, more.split(os.pathsep))]


@cache
def read_bindings(place: str) -> Bindings:
    """The bindings at a place; skips the test where they or a C compiler are missing."""
    if place:
        folder: Path | None = Path(place) / "tensorrt_bindings"
    else:
        spec = importlib.util.find_spec("tensorrt_bindings")
        folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    if folder is None or not folder.is_dir():
        pytest.skip("needs the wheel tensorrt-cu13-bindings, which has the names of the real TensorRT")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler to make stubs of TensorRT's libraries")
    (library,) = folder.glob("tensorrt*.so")
    (major,) = set(re.findall(rb"libnvinfer\.so\.(\d+)", library.read_bytes()))
    with TemporaryDirectory() as stubs:
        for name, functions in _STUBS.items():
            source = "".join(f"void *{function}(void) {{ return 0; }}\n" for function in functions)
            target = Path(stubs) / f"{name}.so.{major.decode()}"
            command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(target)]
            subprocess.run(command, input=source, text=True, check=True)
        environment = {**os.environ, "LD_LIBRARY_PATH": stubs, "PYTHONPATH": str(folder.parent)}
        done = subprocess.run(
            [sys.executable, "-c", _DESCRIBE], env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    api = json.loads(done.stdout)
    source = (folder / "__init__.py").read_text()
    return Bindings(re.search(r'__version__ = "([\d.]+)', source)[1], api)  # type: ignore[index]


def _arguments(text: str) -> list[str]:
    """Names in "self: a.B, input: str, flags: int = 0", commas within brackets aside."""
    depth, parts, part = 0, [], ""
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    names = [piece.split(":")[0].split("=")[0].strip() for piece in [*parts, part]]
    return [name for name in names if name and name != "self"]
