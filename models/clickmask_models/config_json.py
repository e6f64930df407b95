"""Network configurations as JSON: nested frozen dataclasses, keys checked strictly both ways.

A field that came later says in its metadata what networks were ``before`` it, which is what a file without it
means: a default of today may not be what an old file was written with.
"""

from __future__ import annotations

import typing
from dataclasses import asdict, fields, is_dataclass
from types import UnionType
from typing import Any

from clickmask_models.cdnet import CDNetConfig
from clickmask_models.csfp import CSFPConfig
from clickmask_models.encode_once import EncodeOnceConfig
from clickmask_models.encode_once_csfp import EncodeOnceCSFPConfig
from clickmask_models.ritm import RITMConfig

FAMILIES: dict[str, type] = {
    "cdnet": CDNetConfig,
    "encode_once_cdnet": EncodeOnceConfig,
    "encode_once_csfp": EncodeOnceCSFPConfig,
    "csfp": CSFPConfig,
    "ritm": RITMConfig,
}


def config_to_json(config: object) -> dict[str, Any]:
    """{"family": ..., "config": {...}}, ready for ``json.dumps``."""
    for family, kind in FAMILIES.items():
        if type(config) is kind:
            return {"family": family, "config": asdict(config)}
    raise TypeError(f"expected one of {', '.join(k.__name__ for k in FAMILIES.values())}, got {config!r}")


def config_from_json(document: dict[str, Any]) -> Any:
    """The configuration that ``config_to_json`` wrote.

    Raises:
        ValueError: an unknown family, or an unknown or missing key.
    """
    family = document.get("family")
    if family not in FAMILIES:
        raise ValueError(f"expected a network family among {', '.join(FAMILIES)}, got {family!r}")
    return _parse(FAMILIES[family], document.get("config"), family)


def _parse(kind: type, value: object, path: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected an object, got {value!r}")
    known = {item.name for item in fields(kind)}
    value = {item.name: item.metadata["before"] for item in fields(kind) if "before" in item.metadata} | value
    if unknown := sorted(set(value) - known):
        raise ValueError(f"{path}: unknown keys {', '.join(unknown)}")
    if missing := sorted(known - set(value)):
        raise ValueError(f"{path}: missing keys {', '.join(missing)}")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _convert(hints[name], item, f"{path}.{name}") for name, item in value.items()})


def _convert(hint: Any, value: Any, path: str) -> Any:
    """Lists become tuples and objects dataclasses, as the field's type says."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    for option in options:
        if is_dataclass(option) and value is not None:
            return _parse(typing.cast(type, option), value, path)
    return tuple(value) if isinstance(value, list) else value
