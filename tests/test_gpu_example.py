"""examples/05_gpu_zero_copy says what a machine lacks, whatever machine that is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples/05_gpu_zero_copy/zero_copy.py"

MACHINES = {
    "no_pycuda": ("raise ModuleNotFoundError(\"No module named 'pycuda'\")", "", "pip install pycuda"),
    "no_gpu": ("", "raise RuntimeError('cuInit failed: no CUDA-capable device')", "check nvidia-smi"),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("check", [True, False], ids=["check", "run"])
def test_it_refuses_and_says_what_would_help(tmp_path: Path, machine: str, check: bool) -> None:
    package, context, advice = MACHINES[machine]
    folder = tmp_path / "pycuda"
    folder.mkdir()
    (folder / "__init__.py").write_text(package)
    (folder / "autoprimaryctx.py").write_text(context)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--output", str(tmp_path / "out"), *(["--check"] if check else [])],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == (0 if check else 1), done.stderr
    said = done.stdout if check else done.stderr
    assert advice in said
    assert len(said.splitlines()) == 1  # no traceback
    assert not (tmp_path / "out").exists()


def test_it_never_imports_pycuda_autoinit() -> None:
    code = [line.split("#")[0] for line in SCRIPT.read_text().splitlines()]
    assert any("import pycuda.autoprimaryctx" in line for line in code)
    assert not any("autoinit" in line for line in code)
