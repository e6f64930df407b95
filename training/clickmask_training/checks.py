"""Checks of configuration values, and tables read into typed dataclasses."""

from __future__ import annotations

import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

TINY = sys.float_info.min
"""The least positive number."""

LARGEST = sys.float_info.max


class ConfigError(ValueError):
    """A configuration or a command that cannot be used; the message says what was expected."""


def number(
    name: str, value: object, wanted: str, low: float, high: float = LARGEST, *, whole: bool = False
) -> None:
    """Refuses a value that is no number in [low, high]; a whole number serves as any.

    Args:
        name: of the key, for the message.
        value: what was given.
        wanted: what was expected, in words.
        low: least value.
        high: largest value.
        whole: whether fractions are refused.
    """
    kinds = (int,) if whole else (int, float)
    if type(value) not in kinds or not low <= value <= high:  # type: ignore[operator]
        raise ConfigError(f"{name}: expected {wanted}{' (whole)' * whole}, got {value!r}")


def share(name: str, value: object) -> None:
    """Refuses a value outside [0, 1]."""
    number(name, value, "a share in [0, 1]", 0, 1)


def pair(name: str, value: object, wanted: str, low: float, high: float) -> None:
    """Refuses anything but two numbers of [low, high], the lower first."""
    if not isinstance(value, Sequence) or len(value) != 2:
        raise ConfigError(f"{name}: expected two numbers, {wanted}, got {value!r}")
    for item in value:
        number(name, item, wanted, low, high)
    if value[0] > value[1]:
        raise ConfigError(f"{name}: expected the lower number first, got {list(value)}")


def choice(name: str, value: object, options: Sequence[str]) -> None:
    """Refuses a value that is none of the options."""
    if value not in options:
        raise ConfigError(f"{name}: expected one of {', '.join(options)}, got {value!r}")


def flag(name: str, value: object) -> None:
    """Refuses anything but true and false."""
    if type(value) is not bool:
        raise ConfigError(f"{name}: expected true or false, got {value!r}")


def parse(kind: type, values: object, path: str = "") -> Any:
    """A table of a TOML file as a dataclass; its nested tables too, where the type says so.

    Args:
        kind: the dataclass; its ``__post_init__`` checks the values.
        values: what was read.
        path: of the table, such as "clicks.", for messages.

    Raises:
        ConfigError: unknown or missing keys, or a value where a table belongs.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path.rstrip('.')}: expected a table, got {values!r}")
    known = {item.name: item for item in fields(kind)}
    if unknown := sorted(set(values) - set(known)):
        names = ", ".join(path + key for key in unknown)
        raise ConfigError(f"unknown keys {names}; known: {', '.join(sorted(known))}")
    needed = {n for n, item in known.items() if item.default is item.default_factory is MISSING}
    if missing := sorted(needed - set(values)):
        raise ConfigError(f"missing keys {', '.join(path + key for key in missing)}")
    hints = typing.get_type_hints(kind)
    return kind(**{key: _convert(hints[key], value, path + key) for key, value in values.items()})


def _convert(hint: Any, value: Any, path: str) -> Any:
    if is_dataclass(hint):
        return parse(typing.cast(type, hint), value, path + ".")
    return tuple(value) if isinstance(value, list) else value
