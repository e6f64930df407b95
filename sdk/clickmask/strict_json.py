"""JSON from a stranger: parsed with limits, then read value by value with messages that name the place.

``parse`` refuses what the standard parser lets through (duplicate keys, NaN, deep nesting, huge numbers);
``Node`` is a value together with its path, so that every refusal says where, what was expected and what came.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from .errors import BundleError

MAX_DEPTH = 16
"""Objects and arrays inside one another; schema 1 needs seven."""

MAX_TEXT = 512
"""Characters in one string value or key."""

MAX_ITEMS = 1024
"""Members of one object or array."""

MAX_INTEGER = 2**53
"""Largest magnitude that every JSON reader keeps exactly."""

# Possessive, and a string that never ends is a match too: else each quote in it is scanned to the end again.
_STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def parse(data: bytes, name: str) -> Node:
    """Parse UTF-8 JSON text.

    Args:
        data: The text as bytes; the caller caps its length.
        name: What to call the text in messages, such as a file name.

    Returns:
        The root value as a :class:`Node` with path ``$``.

    Raises:
        BundleError: Not UTF-8, not JSON, or JSON that hides something.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise BundleError(f"{name}: expected UTF-8 text, got bytes that are not ({exc}).") from exc
    _check_depth(text, name)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object_without_duplicates,
            parse_constant=_refuse_constant,
            parse_int=_bounded_integer,
        )
    except _Refused as exc:
        raise BundleError(f"{name}: {exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise BundleError(f"{name}: expected JSON, got text that is not ({exc}).") from exc
    return Node(value, "$", name)


class _Refused(ValueError):
    """Well-formed JSON that this reader refuses."""


def _check_depth(text: str, name: str) -> None:
    # Counted before parsing: the standard parser recurses, and its limit depends on the caller's stack.
    depth = 0
    for match in _STRUCTURE.finditer(text):
        found = match.group()
        if found in "[{":
            depth += 1
        elif found in "]}":
            depth -= 1
        if depth > MAX_DEPTH:
            raise BundleError(f"{name}: expected at most {MAX_DEPTH} levels of nesting, got more.")


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise _Refused(f"expected each key once, got {_shorten(key)} twice in one object.")
        members[key] = value
    return members


def _refuse_constant(text: str) -> Any:
    raise _Refused(f"expected finite numbers, got {text}.")


def _bounded_integer(text: str) -> int:
    # Measured as text first: Python's own conversion is quadratic in the number of digits.
    if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
        raise _Refused(f"expected integers of at most 2**53, got {text[:20]}...")
    return int(text)


def _shorten(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True)
class Node:
    """One JSON value and where it stands.

    Attributes:
        value: The parsed value.
        path: Where it is, as ``$.artefacts[0].files``.
        name: The document, for messages.
    """

    value: Any
    path: str
    name: str

    def error(self, expected: str, got: str | None = None) -> BundleError:
        """The error for this place; ``got`` defaults to the value itself."""
        came = _shorten(self.value) if got is None else got[:300]
        return BundleError(f"{self.name}: {self.path}: expected {expected}, got {came}.")

    def at(self, key: str) -> Node:
        """The member of this name, which must be known to be there."""
        return Node(self.value[key], f"{self.path}.{key}", self.name)

    def members(self) -> dict[str, Node]:
        """An object's members, whatever their names."""
        if not isinstance(self.value, dict):
            raise self.error("an object")
        if len(self.value) > MAX_ITEMS:
            raise self.error(f"at most {MAX_ITEMS} members", str(len(self.value)))
        for key in self.value:
            Node(key, f"{self.path} key", self.name).text()
        return {key: self.at(key) for key in self.value}

    def fields(self, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Node]:
        """An object's members, which must be exactly these."""
        found = self.members()
        missing = [key for key in required if key not in found]
        if missing:
            raise self.error(f"the key {missing[0]!r}", f"only {sorted(found)}")
        unknown = sorted(set(found) - set(required) - set(optional))
        if unknown:
            raise self.error(f"only the keys {sorted({*required, *optional})}", f"also {unknown}")
        return found

    def items(self, minimum: int = 0, maximum: int = MAX_ITEMS) -> Iterator[Node]:
        """An array's items."""
        if not isinstance(self.value, list):
            raise self.error("an array")
        if not minimum <= len(self.value) <= maximum:
            wanted = str(minimum) if minimum == maximum else f"{minimum} to {maximum}"
            raise self.error(f"an array of {wanted} items", f"{len(self.value)} items")
        return (Node(value, f"{self.path}[{i}]", self.name) for i, value in enumerate(self.value))

    def text(self) -> str:
        """A short printable string, not empty."""
        if not isinstance(self.value, str):
            raise self.error("a string")
        # Printable only: names reach terminals and logs, where control characters act.
        if not 0 < len(self.value) <= MAX_TEXT or not self.value.isprintable():
            raise self.error(f"1 to {MAX_TEXT} printable characters")
        return self.value

    def choice(self, options: tuple[str, ...]) -> Any:
        """One of the given strings, which the caller holds as a ``Literal``."""
        if not isinstance(self.value, str) or self.value not in options:
            raise self.error("one of " + ", ".join(map(repr, options)))
        return self.value

    def sha256(self) -> str:
        """A SHA-256 digest as 64 lower-case hexadecimal digits."""
        if not isinstance(self.value, str) or not _SHA256.fullmatch(self.value):
            raise self.error("a sha256 as 64 lower-case hexadecimal digits")
        return self.value

    def flag(self) -> bool:
        """Either of the two JSON booleans."""
        if not isinstance(self.value, bool):
            raise self.error("true or false")
        return self.value

    def integer(self, minimum: int, maximum: int) -> int:
        """An integer within bounds, both included; true and 1.0 are not integers."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise self.error(f"an integer from {minimum} to {maximum}")
        if not minimum <= self.value <= maximum:
            raise self.error(f"an integer from {minimum} to {maximum}")
        return self.value

    def number(self, minimum: float, maximum: float, *, open_ends: bool = False) -> float:
        """A finite number within bounds: both included, or with ``open_ends`` neither."""
        first, then = ("between", "and") if open_ends else ("from", "to")
        wanted = f"a number {first} {minimum:g} {then} {maximum:g}"
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)):
            raise self.error(wanted)
        value = float(self.value)
        inside = minimum < value < maximum if open_ends else minimum <= value <= maximum
        if not math.isfinite(value) or not inside:
            raise self.error(wanted)
        return value
