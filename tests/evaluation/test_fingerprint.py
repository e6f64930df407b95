"""The hash that says which data was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clickmask.evaluation.datasets import read_dataset
from clickmask.evaluation.samples import fingerprint


def test_the_fingerprint_changes_with_any_byte(dataset: Path) -> None:
    before = fingerprint(read_dataset(dataset))
    assert before == fingerprint(read_dataset(dataset))
    path = dataset / "images/a.png"
    path.write_bytes(path.read_bytes() + b"\0")
    assert fingerprint(read_dataset(dataset)) != before


def test_the_fingerprint_changes_with_a_name(dataset: Path) -> None:
    first, *others = read_dataset(dataset)
    assert fingerprint([replace(first, name="z.png"), *others]) != fingerprint([first, *others])
