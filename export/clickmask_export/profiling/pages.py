"""What the pages of benchmarks have in common: paragraphs, tables, and where the figures were taken."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

_WIDTH = 118


def paragraph(text: str) -> list[str]:
    """Lines of a page."""
    return textwrap.wrap(text, _WIDTH)


def table_head(left: int, *names: str) -> tuple[str, str]:
    """The first two lines of a table whose first columns are text and the others numbers."""
    return "| " + " | ".join(names) + " |", "|" + "---|" * left + "--:|" * (len(names) - left)


def cell(row: Mapping[str, Any]) -> str:
    """The median of a ``summary``, and the least."""
    return f"{row['p50']:.2f} ({row['min']:.2f})"


def written(command: str, threads: int, machine: Mapping[str, Any]) -> str:
    """By what, when and where; ``machine`` is `machine_facts`, with ``load_average_after``."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"Written by `{command}` on {machine['date']}: {machine['cpu']}, {machine['cores']} cores, {threads} "
        f"threads, {machine['native_instruction_set']} kernels, {machine['platform']}; load "
        f"{machine['load_average']} before, {machine['load_average_after']} after. {versions}."
    )
