"""The build hook, by building wheels: with the library, and without where it cannot or shall not be built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile

import pytest


def build_wheel(root, target, **environment):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    environment = {**os.environ, "CLICKMASK_NATIVE": "", **environment}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def contents(target):
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return wheel.name, [name for name in archive.namelist() if "clickmask_native" in name]


def test_a_wheel_with_the_library_is_for_one_platform_and_finds_it(root, tmp_path):
    if not shutil.which("cmake") or not (
        shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    ):
        pytest.skip("needs cmake and a C++ compiler")
    done = build_wheel(root, tmp_path, CLICKMASK_NATIVE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    name, (library,) = contents(tmp_path)
    assert "-py3-none-" in name
    assert not name.endswith("-any.whl")
    assert library.startswith("clickmask/")
    with zipfile.ZipFile(tmp_path / name) as archive:
        archive.extractall(tmp_path / "site")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "from clickmask import native_library as native\n"
        "print(native.__file__, native.unavailable_because())"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.split() == [str(tmp_path / "site/clickmask/native_library.py"), "None"], ran.stderr


@pytest.mark.parametrize("environment", [{"CLICKMASK_NATIVE": "0"}, {"CXX": "/no/such/compiler"}], ids=str)
def test_a_wheel_without_the_library_is_for_every_platform(root, tmp_path, environment):
    done = build_wheel(root, tmp_path, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    name, libraries = contents(tmp_path)
    assert name.endswith("-py3-none-any.whl")
    assert not libraries
    said = [line for line in (done.stdout + done.stderr).splitlines() if "native Pixel Diffusion" in line]
    assert len(said) == (0 if "CLICKMASK_NATIVE" in environment else 1)


def test_a_failure_is_an_error_where_the_library_is_a_must(root, tmp_path):
    done = build_wheel(root, tmp_path, CLICKMASK_NATIVE="1", CXX="/no/such/compiler")
    assert done.returncode != 0
    assert not list(tmp_path.glob("*.whl"))
