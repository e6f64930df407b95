"""The law of imports: the run time needs neither torch nor onnx, and nothing imports training or export."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {
    "clickmask": ROOT / "sdk/clickmask",
    "clickmask_models": ROOT / "models/clickmask_models",
    "clickmask_training": ROOT / "training/clickmask_training",
    "clickmask_export": ROOT / "export/clickmask_export",
}
# What a room may import beside the standard library and itself.
ALLOWED = {
    "clickmask": {"numpy", "cv2"},
    "clickmask_models": {"torch", "safetensors"},
    "clickmask_training": {"torch", "numpy", "cv2", "clickmask", "clickmask_models"},
    "clickmask_export": {
        "torch",
        "numpy",
        "cv2",
        "onnx",
        "onnxscript",
        "onnx_ir",
        "clickmask",
        "clickmask_models",
    },
}
# What few run-time files may open, inside a function.
OPENED_BY = {
    "onnxruntime": ("backends/onnxruntime.py",),
    "torch": ("backends/torchscript.py",),
    "PIL": ("evaluation/truths.py", "evaluation/drawing.py"),
    "scipy": ("evaluation/truths.py",),
    "skimage": ("evaluation/anchors.py",),
    "ray": ("evaluation/pools.py",),
}
HEAVY = (
    *("torch", "onnx", "onnxruntime", "tensorrt", "safetensors", "pycuda", "cupy"),
    *("PIL", "scipy", "skimage", "matplotlib", "ray"),
)


def files(room: str) -> list[Path]:
    return sorted(ROOMS[room].rglob("*.py"))


def imports(tree: ast.AST) -> set[str]:
    """Top-level package names that any import statement below a node names."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def import_time(tree: ast.Module) -> set[str]:
    """Packages imported when the module is: everything outside functions and TYPE_CHECKING blocks."""
    names: set[str] = set()
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= imports(node)
        pending.extend(ast.iter_child_nodes(node))
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    allowed = ALLOWED[room] | {room} | set(sys.stdlib_module_names)
    for path in files(room):
        foreign = import_time(ast.parse(path.read_text())) - allowed
        assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"


def test_each_runtime_is_opened_by_its_one_file() -> None:
    for path in files("clickmask"):
        name = path.relative_to(ROOMS["clickmask"]).as_posix()
        for package in imports(ast.parse(path.read_text())) & set(HEAVY):
            assert name in OPENED_BY.get(package, ()), f"{name} imports {package}"


def test_nothing_imports_training_or_export() -> None:
    for room in ROOMS:
        for path in files(room):
            foreign = imports(ast.parse(path.read_text())) & {"clickmask_training", "clickmask_export"} - {
                room
            }
            assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"


# What making and using a session takes; a bundle, its runtime and JSON come with Segmenter.load.
AT_IMPORT = """
blend clicks crop encode encoded_crops errors history image mask mask_memory native_library native_pixels
outlines paste pixels predictor prefetch segmenter session state view
"""
# Of the standard library, what costs more than a millisecond and only files and JSON need.
LATER = "argparse concurrent hashlib json logging pathlib subprocess tempfile urllib"


def test_importing_clickmask_takes_little_more_than_numpy_and_opencv_do() -> None:
    script = """
import sys
import cv2, numpy, numpy.typing
before = set(sys.modules)
import clickmask
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {name for name in loaded if name.split(".")[0] == "clickmask"} == {
        "clickmask",
        *(f"clickmask.{name}" for name in AT_IMPORT.split()),
    }
    assert not {name.split(".")[0] for name in loaded} & set(LATER.split())


def test_every_run_time_module_imports_with_the_heavy_packages_blocked() -> None:
    modules = [
        "clickmask"
        + "".join(f".{part}" for part in path.relative_to(ROOMS["clickmask"]).with_suffix("").parts)
        for path in files("clickmask")
        if path.name != "__main__.py"
    ]
    script = f"""
import importlib, sys
for name in {HEAVY!r}:
    sys.modules[name] = None
for name in {modules!r}:
    importlib.import_module(name.removesuffix(".__init__"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
