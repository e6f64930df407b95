"""The CMake build and its ctest, which also runs the CUDA twin's per-pixel code on the processor."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def test_the_cmake_build_passes_its_ctest(root, tmp_path):
    if not shutil.which("cmake") or not shutil.which("c++"):
        pytest.skip("needs cmake and a C++ compiler")
    for command in (
        ["cmake", "-S", str(root), "-B", str(tmp_path), "-DCLICKMASK_CUDA=OFF"],
        ["cmake", "--build", str(tmp_path), "--parallel", "2"],
        ["ctest", "--test-dir", str(tmp_path), "--output-on-failure"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning:" not in done.stdout + done.stderr
