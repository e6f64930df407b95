"""The engine bundle: a folder with a manifest and the artefacts it lists, checked before anything is loaded.

The format is specified in docs/bundle.md. Reading a bundle parses JSON and hashes bytes; nothing is unpickled
and nothing is run.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from .errors import BundleError, InvalidInputError
from .manifest import (
    Artefact,
    ArtefactFile,
    Checkpoint,
    ClickMaps,
    GraphSpec,
    InputSpec,
    Manifest,
    Parity,
    PixelDiffusionSpec,
    Source,
    TensorSpec,
)
from .manifest_reader import MANIFEST_NAME, MAX_ARTEFACT_BYTES, MAX_MANIFEST_BYTES

__all__ = [
    "MANIFEST_NAME",
    "MAX_ARTEFACT_BYTES",
    "MAX_MANIFEST_BYTES",
    "Artefact",
    "ArtefactFile",
    "Bundle",
    "Checkpoint",
    "ClickMaps",
    "GraphSpec",
    "InputSpec",
    "Manifest",
    "Parity",
    "PixelDiffusionSpec",
    "Source",
    "TensorSpec",
    "bundle_path",
    "default_bundle_path",
    "load_bundle",
    "read_manifest_file",
]

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest is valid and whose files were all there, of the right length and unaltered.

    Attributes:
        path: The folder.
        manifest: What the folder holds.
    """

    path: Path
    manifest: Manifest

    def file(self, artefact: Artefact, graph: str) -> Path:
        """Where an artefact keeps a graph of the pipeline."""
        return self.path / artefact.files[graph].path

    def read(self, file: ArtefactFile) -> bytes:
        """The bytes of a listed file, hashed again: what a runtime is given is what the manifest lists.

        Raises:
            BundleError: The file was changed since the bundle was loaded.
        """
        try:
            data = (self.path / file.path).read_bytes()
        except OSError as exc:
            raise BundleError(f"expected to read {file.path!r} in {str(self.path)!r}, got {exc}.") from exc
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise BundleError(
                f"expected {file.path!r} in {str(self.path)!r} unaltered, got other bytes than when "
                "the bundle was loaded; load it again."
            )
        return data


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read a bundle and check every file that its manifest lists; each is hashed once.

    Args:
        path: The bundle's folder.

    Raises:
        InvalidInputError: Not a path at all.
        BundleError: No such folder, an invalid manifest, or a file that is missing, truncated, too long,
            altered or outside the folder.
    """
    try:
        folder = Path(path)
    except TypeError as exc:
        raise InvalidInputError(
            f"path: expected a bundle folder as str or os.PathLike[str], got {type(path).__name__}."
        ) from exc
    manifest = read_manifest_file(folder)
    checked: set[ArtefactFile] = set()
    for artefact in manifest.artefacts:
        for file in artefact.all_files:
            if file not in checked:  # artefacts may share a file
                _check_file(folder, file)
                checked.add(file)
    return Bundle(folder, manifest)


def read_manifest_file(folder: Path) -> Manifest:
    """The manifest of a bundle alone, without a look at the artefacts.

    Raises:
        BundleError: No such folder, no manifest in it, or an invalid one.
    """
    try:
        is_folder = folder.is_dir()
    except OSError as exc:  # a folder above it that may not be entered, a name that is too long
        raise BundleError(f"expected a bundle folder, got {str(folder)!r}: {exc.strerror}.") from exc
    if not is_folder:
        raise BundleError(
            f"expected a bundle folder, got {str(folder)!r}, which is not a folder; check the path."
        )
    path = folder / MANIFEST_NAME
    if _regular_size(folder, MANIFEST_NAME) is None:
        raise BundleError(
            f"expected {MANIFEST_NAME} in {str(folder)!r}, got a folder without it: not a bundle."
        )
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as exc:
        raise BundleError(f"expected to read {str(path)!r}, got {exc.strerror}.") from exc
    return Manifest.from_json(data, str(path))


def bundle_path(text: str) -> Path:
    """The folder that a command line means: ``default`` and ``-`` stand for the bundle that ships.

    Raises:
        BundleError: The bundle that ships was asked for and this installation has none.
    """
    return default_bundle_path() if text in ("default", "-") else Path(text)


def default_bundle_path() -> Path:
    """The folder of the bundle that ships with clickmask.

    Raises:
        BundleError: This installation has none; the message says how to build one.
    """
    here = Path(__file__).resolve().parent
    # Inside the installed package, as the wheel places it; or at the root of a clone.
    places = (here / "engines" / "default", here.parent.parent / "engines" / "default")
    for place in places:
        if (place / MANIFEST_NAME).is_file():
            return place
    raise BundleError(
        f"expected the default bundle in {' or '.join(map(repr, map(str, places)))}, got neither; reinstall "
        "clickmask, or, from a clone of the repository, build one from a checkpoint with "
        "'python export/build_engine.py' and pass its folder."
    )


def _regular_size(folder: Path, name: str) -> int | None:
    """Bytes of a regular file that really lies in the folder; None where there is no such name."""
    path = folder / name
    try:
        if path.is_symlink() and path.resolve(strict=True).parent != folder.resolve(strict=True):
            raise BundleError(f"expected {name!r} inside {str(folder)!r}, got a link that leads out of it.")
        status = path.stat()
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError) as exc:  # RuntimeError: a link to itself, before Python 3.13
        raise BundleError(f"expected {name!r} in {str(folder)!r} to be readable, got {exc}.") from exc
    # Before opening: a pipe or device would block or never end.
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"expected {name!r} in {str(folder)!r} to be a regular file, got something else.")
    return status.st_size


def _check_file(folder: Path, file: ArtefactFile) -> None:
    again = "copy the bundle again or rebuild it"
    size = _regular_size(folder, file.path)
    if size is None:
        raise BundleError(
            f"expected {file.path!r} in {str(folder)!r}, got no such file: it is missing; {again}."
        )
    if size != file.bytes:
        what = "truncated" if size < file.bytes else "longer than it should be"
        raise BundleError(f"expected {file.path!r} of {file.bytes} bytes, got {size}: it is {what}; {again}.")
    digest = hashlib.sha256()
    try:
        with open(folder / file.path, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as exc:
        raise BundleError(f"expected to read {file.path!r} in {str(folder)!r}, got {exc.strerror}.") from exc
    if digest.hexdigest() != file.sha256:
        raise BundleError(
            f"expected {file.path!r} with sha256 {file.sha256}, got {digest.hexdigest()}: it was altered; "
            f"{again}."
        )
