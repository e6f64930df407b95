"""What ``import clickmask`` offers, and what its documentation must say."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest

import clickmask

ROOT = Path(__file__).parents[1]
EXPECTED = [
    "BackendError",
    "BackendUnavailableError",
    "Box",
    "BundleError",
    "Click",
    "ClickmaskError",
    "CropPolicy",
    "InvalidInputError",
    "Region",
    "Segmenter",
    "Session",
    "SessionStateError",
    "__version__",
    "rle_decode",
]


def test_the_public_names_are_exactly_these() -> None:
    assert clickmask.__all__ == EXPECTED
    visible = {
        name for name, value in vars(clickmask).items() if inspect.isclass(value) or inspect.isfunction(value)
    }
    assert {name for name in visible if not name.startswith("_")} == set(EXPECTED) - {"__version__"}


def test_every_error_is_a_clickmask_error() -> None:
    for name in EXPECTED:
        value = getattr(clickmask, name)
        if inspect.isclass(value) and issubclass(value, Exception):
            assert issubclass(value, clickmask.ClickmaskError)


def function_of(member: object) -> object:
    """The function behind a method, class method or property."""
    for attribute in ("fget", "func", "__func__"):
        member = getattr(member, attribute, member)
    return member


MEMBERS = [
    ("rle_decode", clickmask.rle_decode),
    *(
        (f"{owner.__name__}.{name}", function_of(member))
        for owner in (clickmask.Segmenter, clickmask.Session)
        for name, member in vars(owner).items()
        if not name.startswith("_")
    ),
]
WITH_ARRAYS = [
    (name, f) for name, f in MEMBERS if re.search("NDArray|ndarray|Image|Mask", str(inspect.signature(f)))
]


@pytest.mark.parametrize(("name", "function"), MEMBERS)
def test_public_members_are_documented(name: str, function: object) -> None:
    assert inspect.getdoc(function), f"{name} has no docstring"


@pytest.mark.parametrize(("name", "function"), WITH_ARRAYS)
def test_array_arguments_and_results_state_shape_and_type(name: str, function: object) -> None:
    text = inspect.getdoc(function) or ""
    assert re.search(r"\(H, W|\(h, w|\(N, ", text), f"{name}: no shape in {text!r}"
    assert re.search(r"uint8|bool|float32|dtype", text), f"{name}: no dtype in {text!r}"


def test_version_and_changelog_agree() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## (\S+)", changelog, flags=re.MULTILINE)
    assert newest
    assert newest.group(1) == clickmask.__version__


def test_extras_keep_the_two_onnxruntime_wheels_apart() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for wheel, owner in (("onnxruntime", "cpu"), ("onnxruntime-gpu", "gpu")):
        holders = [
            name for name, wanted in extras.items() if any(re.match(rf"{wheel}[>=<]", w) for w in wanted)
        ]
        assert holders == [owner]
