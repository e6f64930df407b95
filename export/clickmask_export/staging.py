"""All or nothing: a bundle is made in a hidden folder beside its place and moved there in one step.

Whatever happens before, at the place is what was there before: the old bundle, or nothing. Until then the
manifest has another name, so that what a killed build leaves in the hidden folder does not load either.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clickmask.manifest_reader import MANIFEST_NAME
from clickmask_export.errors import OutputError

UNVERIFIED = f"{MANIFEST_NAME}.unverified"  # the manifest's name in a folder that is still being filled


@contextmanager
def staged(output: Path, *, force: bool) -> Iterator[Path]:
    """Gives a folder to fill, and moves it to ``output`` when the block ends without an exception.

    The block writes the manifest as ``UNVERIFIED``; it gets its name once everything else is done.

    Args:
        output: the bundle's future folder.
        force: whether a bundle that is there already may be replaced.

    Raises:
        OutputError: something is there that may not be replaced, or the place cannot be written.
    """
    check_place(output, force=force)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".{output.name}.building-", dir=output.parent))
    except OSError as exc:
        raise OutputError(
            f"expected to write in {output.parent}, got {exc.strerror}: choose another --output"
        ) from exc
    try:
        folder = hidden / output.name  # mkdtemp's folder is private to the user; this one follows the umask
        folder.mkdir()
        yield folder
        check_place(output, force=force)  # again: a build takes minutes
        os.replace(folder / UNVERIFIED, folder / MANIFEST_NAME)
        _move_in(folder, output)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def check_place(output: Path, *, force: bool) -> None:
    """Raises OutputError if a bundle may not be put at ``output``."""
    if not output.name:
        raise OutputError(f"expected the name of a folder to make, got {str(output)!r}")
    if not os.path.lexists(output):
        return
    if output.is_symlink() or not output.is_dir():
        raise OutputError(
            f"expected a folder or nothing at {output}, got a file or link: choose another --output"
        )
    if not (found := sorted(output.iterdir())):
        return
    if not (output / MANIFEST_NAME).is_file():
        raise OutputError(
            f"{output} is a folder with other things in it and no bundle: choose another --output"
        )
    foreign = [file for file in found if file.name != MANIFEST_NAME and not _is_artefact(file)]
    if foreign:
        raise OutputError(
            f"{output} has things in it that no build wrote, such as {foreign[0].name!r}: move them away, or "
            "choose another --output"
        )
    if not force:
        raise OutputError(
            f"{output} is a bundle already: add --force to replace it, or choose another --output"
        )


def _is_artefact(file: Path) -> bool:
    """By its ending; TypeScript has that of TorchScript, whose files are zip archives."""
    if file.suffix == ".ts":
        return file.is_file() and zipfile.is_zipfile(file)
    return file.is_file() and file.suffix in (".onnx", ".plan")


def _move_in(folder: Path, output: Path) -> None:
    """Puts the folder in place; a bundle there is set aside first, and put back if that fails."""
    if not output.exists():
        os.replace(folder, output)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{output.name}.replaced-", dir=output.parent))
    try:
        os.replace(output, aside)  # onto an empty folder: allowed, and atomic
    except BaseException:
        aside.rmdir()
        raise
    try:
        os.replace(folder, output)
    except BaseException:
        os.replace(aside, output)
        raise
    shutil.rmtree(aside, ignore_errors=True)
