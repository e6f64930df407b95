"""Build hook: compiles sdk/native and puts the library beside the package, for wheels and editable installs.

The library is optional (docs/decisions/0013), and so an installation never fails for want of a compiler: the
hook says in one line why it left the library out. ``CLICKMASK_NATIVE=0`` leaves it out on purpose, and
``CLICKMASK_NATIVE=1`` makes a failure an error, for those who build wheels to publish.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

_PACKAGE = "clickmask"


class NativeLibraryHook(BuildHookInterface):
    """The hook that pyproject.toml names for the wheel target; it also serves editable installs."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the library; ``version`` is "standard" or "editable"."""
        wish = os.environ.get("CLICKMASK_NATIVE", "")
        if wish == "0":
            return
        self._folder = Path(tempfile.mkdtemp(prefix="clickmask-native-"))
        try:
            library = build_library(Path(self.root), self._folder)
        except (OSError, subprocess.CalledProcessError) as exc:
            shutil.rmtree(self._folder, ignore_errors=True)
            if wish == "1":
                raise
            self.app.display_warning(f"clickmask: native Pixel Diffusion left out: {_why(exc)}")
            return
        if version == "editable":
            _replace(library, Path(self.root, "sdk", _PACKAGE, library.name))
        else:
            build_data["force_include"][str(library)] = f"{_PACKAGE}/{library.name}"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{next(platform_tags())}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Removes the build folder."""
        if folder := getattr(self, "_folder", None):
            shutil.rmtree(folder, ignore_errors=True)


def build_library(root: Path, folder: Path) -> Path:
    """Runs cmake.

    Returns:
        The library, below ``folder``.

    Raises:
        OSError: there is no cmake.
        subprocess.CalledProcessError: cmake or the compiler failed.
    """
    build, out = folder / "build", folder / "out"
    settings = ["-DCMAKE_BUILD_TYPE=Release", "-DCLICKMASK_TESTS=OFF", "-DCLICKMASK_CUDA=OFF"]
    for command in (
        ["cmake", "-S", str(root), "-B", str(build), *settings],
        ["cmake", "--build", str(build), "--config", "Release", "--parallel", "2"],
        ["cmake", "--install", str(build), "--prefix", str(out), "--component", "library", "--strip"],
    ):
        subprocess.run(command, check=True, capture_output=True, text=True)
    (library,) = out.glob("*clickmask_native*")
    return library


def _replace(source: Path, target: Path) -> None:
    """Copies beside the target first: a process that has the old file open keeps it."""
    fresh = target.with_name(target.name + ".new")
    shutil.copy2(source, fresh)
    fresh.replace(target)


def _why(exc: Exception) -> str:
    """The line that says what is wrong."""
    if isinstance(exc, FileNotFoundError):
        return f"no {exc.filename} on this machine"
    output = f"{getattr(exc, 'stdout', '')}\n{getattr(exc, 'stderr', '')}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # cmake says where before it says what.
    said = [line for line in lines if not line.startswith(("CMake Error", "-- "))]
    errors = [line for line in said if "error:" in line]
    return (errors or said or [str(exc)])[0]
