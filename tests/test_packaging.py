"""What is shipped: the files git keeps, and the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", ["engines/default.safetensors", "engines/default/manifest.json"])
def test_the_default_engine_is_not_ignored_by_git(path: str) -> None:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs a git checkout")
    assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 1


def test_the_wheel_holds_the_default_engine_and_runs_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (entry_points,) = site.glob("clickmask-*.dist-info/entry_points.txt")
    assert "clickmask = clickmask.cli:main" in entry_points.read_text()

    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    script = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import clickmask\n"
        f"assert clickmask.__file__.startswith({str(site)!r}), clickmask.__file__\n"
        "print(clickmask.Segmenter.load().bundle.path)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(site / "clickmask/engines/default")


def test_constraints_pin_what_any_index_has() -> None:
    # A local version such as 2.13.0+cpu exists on one machine only.
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert not any("+" in pin for pin in pins)
