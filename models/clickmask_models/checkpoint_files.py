"""Reading checkpoint files: tensors and plain values come out, and nothing that a file says is run.

Two formats, told apart by their first bytes, whatever the file is called: safetensors, and what
``torch.save`` writes. The latter is a pickle, a program in all but name: it is read by torch's weights-only
reader, which knows tensors and plain containers, and any file that asks for more is refused.
"""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

# A zip archive (torch 1.6 and later) and a bare pickle (earlier): what torch.save writes begins so.
_ZIP_MAGIC = b"PK\x03\x04"
_TORCH_MAGIC = (_ZIP_MAGIC, b"\x80")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why and what to do."""


class Contents(NamedTuple):
    """``tensors`` by name; ``metadata`` of a safetensors file; ``config`` beside a pickled state dict."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    config: object = None


def read_checkpoint(path: Path, index: int | None = None) -> Contents:
    """Reads a checkpoint file of either format.

    Args:
        path: the file.
        index: which network of a file that holds a list of them, from 0; None where there is but one.

    Raises:
        CheckpointError: no such file, a damaged one, a pickle that needs code, anything but named dense
            tensors, or an ``index`` that does not fit.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise _unreadable(path, error) from error
    # A safetensors file starts with its header's length, whose first byte can be any; then comes a brace.
    if head.endswith(b"{") or not head.startswith(_TORCH_MAGIC):
        if index is not None:
            raise CheckpointError(_one_network(path))
        return read_safetensors(path)
    return _unpack(path, _choose(path, _load_pickle(path), index))


def read_safetensors(path: Path) -> Contents:
    """Reads a safetensors file.

    Raises:
        CheckpointError: no such file, or not a whole safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Contents(tensors, dict(file.metadata() or {}))
    except OSError as error:
        raise _unreadable(path, error) from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: expected a file that safetensors or torch.save wrote, and reading it failed: {error}"
        ) from error


def _load_pickle(path: Path) -> Any:
    # An open file, not its path: of a path, torch looks at the extension first.
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of odd files before it raises
        try:
            _check_expansion(file)
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged or hostile pickle can raise anything
            message = str(error).strip()
    if wanted := re.search(r"GLOBAL ([\w.]+)", message):
        raise CheckpointError(
            f"{path}: expected tensors and plain values, and this pickle needs the code of {wanted[1]}, "
            "which is never run. If you trust the file, open it where it was made and save its tensors "
            "alone: torch.save({'state_dict': network.state_dict()}, 'plain.pth')"
        )
    reason = message.splitlines()[0].split(". ")[0] if message else "it ends too early"
    raise CheckpointError(
        f"{path}: expected a whole file that torch.save wrote, and reading failed: {reason}"
    )


def _check_expansion(file: IO[bytes]) -> None:
    """Refuses an archive whose records hold far more than the file: compressed, or several on the same bytes.

    torch.save stores records as they are, one after the other, but torch.load would expand any. Twice the
    size passes: TorchScript, which torch.load refuses by name, compresses its code.
    """
    zipped = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
    size = file.seek(0, os.SEEK_END)
    if zipped:
        with zipfile.ZipFile(file) as archive:
            expanded = sum(record.file_size for record in archive.infolist())
        if expanded > 2 * size:
            raise ValueError(f"it would expand from {size} bytes to {expanded}, which torch.save's never do")
    file.seek(0)


def _choose(path: Path, loaded: Any, index: int | None) -> Any:
    """The public code can keep one network for each of the first clicks, the last serving all later ones."""
    if not isinstance(loaded, list):
        if index is not None:
            raise CheckpointError(_one_network(path))
        return loaded
    if index is None or not 0 <= index < len(loaded):
        got = "none was chosen" if index is None else f"{index} was chosen"
        raise CheckpointError(
            f"{path}: expected one network, got a list of {len(loaded)}, one for each click (the last for "
            f"all later ones), and {got}. build_engine.py's --checkpoint takes one of them by "
            f"--checkpoint-index, 0 to {len(loaded) - 1}; for anything else save it alone: "
            f"torch.save(torch.load({str(path)!r}, weights_only=True)[{len(loaded) - 1}], 'one.pth')"
        )
    return loaded[index]


def _unpack(path: Path, loaded: Any) -> Contents:
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path}: expected named tensors or {{'state_dict': ...}}, got {_kind(loaded)}")
    tensors = loaded.get("state_dict", loaded)
    config = None if tensors is loaded else loaded.get("config")
    if not isinstance(tensors, Mapping) or not tensors:
        raise CheckpointError(f"{path}: expected tensors by name in the state dict, got {_kind(tensors)}")
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise CheckpointError(
                f"{path}: expected tensors by name in the state dict, got one under {name!r}"
            )
        if not _is_plain(value):
            raise CheckpointError(
                f"{path}: expected dense tensors by name, alone or under 'state_dict'; {name!r} is "
                f"{_kind(value)}"
            )
    return Contents(dict(tensors), {}, config)


def _is_plain(value: object) -> bool:
    """Whether a tensor is dense and owns all its elements: a few bytes must not stand for a terabyte."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_quantized:
        return False
    return value.device.type == "cpu" and value.untyped_storage().nbytes() >= value.numel() * value.itemsize


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return "a tensor" if _is_plain(value) else "a tensor that is not dense"
    return f"a {type(value).__name__}" if value else f"an empty {type(value).__name__}"


def _one_network(path: Path) -> str:
    return f"{path}: holds one network, not a list of them: leave --checkpoint-index out"


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"expected a checkpoint at {path}, found no such file")
    return CheckpointError(f"{path}: expected a checkpoint that can be read: {error.strerror or error}")
