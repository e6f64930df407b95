"""Files written all or nothing: being stopped leaves what was there before, or what is there after."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from .errors import InvalidInputError

_PathLike = str | os.PathLike[str]


def check_targets(targets: Iterable[tuple[str, _PathLike | None]], inputs: Iterable[_PathLike] = ()) -> None:
    """Refuse, before the work, files that could not be written after it or would take another's place.

    Args:
        targets: (option, what was given for it, None or "" where nothing was) of each file to write.
        inputs: Files that are read.

    Raises:
        InvalidInputError: A folder, a place that is not there, an input, or the same file twice.
    """
    taken = {os.path.realpath(path): f"the input {os.fspath(path)}" for path in inputs}
    for option, path in targets:
        if not path:
            continue
        if os.path.isdir(path) or not os.path.isdir(os.path.dirname(path) or "."):
            raise InvalidInputError(f"{option}: expected a file in an existing folder, got {path}")
        try:
            os.stat(path)
        except FileNotFoundError:
            pass
        except OSError as exc:  # such as a name that is too long
            raise InvalidInputError(f"{option}: expected to write {path}, got: {exc.strerror}") from exc
        place = os.path.realpath(path)
        if place in taken:
            raise InvalidInputError(
                f"{option}: expected another file than {taken[place]}, got {path}; give it another name"
            )
        taken[place] = option


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, in place of one that is there.

    Raises:
        InvalidInputError: A place that cannot be written.
    """
    # Beside the target, so that the replacement is one rename within a file system.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as exc:
        raise InvalidInputError(f"expected to write {str(path)!r}, got: {exc.strerror}.") from exc
    finally:
        with suppress(OSError):  # whatever stood in its way is told already
            temporary.unlink()
