"""The CMake build and its ctest, which also runs the CUDA twin's per-pixel code on the processor."""

from __future__ import annotations

import shutil
import subprocess

import pytest

ARM = "-DCMAKE_TOOLCHAIN_FILE=sdk/native/cmake/aarch64-linux.cmake"


@pytest.mark.parametrize(
    ("tools", "setting", "tested"),
    [
        (("cmake", "c++"), "-DCLICKMASK_CUDA=OFF", "portable"),
        (("cmake", "aarch64-linux-gnu-g++", "qemu-aarch64-static"), ARM, "neon"),
    ],
    ids=["here", "arm"],
)
def test_the_cmake_build_passes_its_ctest(root, tmp_path, tools, setting, tested):
    for tool in tools:
        if not shutil.which(tool):
            pytest.skip(f"needs {tool}")
    for command in (
        ["cmake", "-S", str(root), "-B", str(tmp_path), setting],
        ["cmake", "--build", str(tmp_path), "--parallel", "2"],
        ["ctest", "--test-dir", str(tmp_path), "--verbose"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, cwd=root)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning:" not in done.stdout + done.stderr
    assert f"{tested} " in done.stdout
