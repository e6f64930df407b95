"""Files written all or nothing: being stopped leaves what was there before, or what is there after."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from .errors import InvalidInputError


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
