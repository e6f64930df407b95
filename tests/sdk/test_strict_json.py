"""The text of a manifest from a stranger: one test per offence, each refused at once and in few words."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from bundles import make_bundle, read_manifest, write_manifest

from clickmask.backends.fake import fake_manifest
from clickmask.bundle import load_bundle
from clickmask.errors import BundleError
from clickmask.strict_json import parse


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle in order."""
    return make_bundle(tmp_path / "bundle")


def reject(folder: Path, text: bytes, message: str) -> None:
    (folder / "manifest.json").write_bytes(text)
    start = time.perf_counter()
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)
    assert time.perf_counter() - start < 2


def test_manifest_too_large(folder: Path) -> None:
    reject(folder, b" " * ((1 << 20) + 1), "expected at most 1048576 bytes, got 1048577")


def test_manifest_of_the_largest_size_is_read(folder: Path) -> None:
    text = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(text.ljust(1 << 20))

    load_bundle(folder)


def test_huge_sparse_manifest_is_not_read_whole(folder: Path) -> None:
    with open(folder / "manifest.json", "r+b") as file:
        file.truncate(1 << 40)

    with pytest.raises(BundleError, match="expected at most 1048576 bytes"):
        load_bundle(folder)


def test_manifest_empty(folder: Path) -> None:
    reject(folder, b"", "expected JSON")


def test_manifest_not_json(folder: Path) -> None:
    reject(folder, b"{'schema': 1}", "expected JSON")


def test_manifest_cut_short(folder: Path) -> None:
    reject(folder, (folder / "manifest.json").read_bytes()[:-5], "expected JSON")


def test_manifest_with_something_after_it(folder: Path) -> None:
    reject(folder, (folder / "manifest.json").read_bytes() + b"{}", "expected JSON")


def test_manifest_not_utf8(folder: Path) -> None:
    reject(folder, b'{"schema": "\xff"}', "expected UTF-8 text")


def test_manifest_in_utf16(folder: Path) -> None:
    reject(folder, '{"schema": 1}'.encode("utf-16"), "expected UTF-8 text")


def test_manifest_that_is_not_an_object(folder: Path) -> None:
    reject(folder, b"[1]", r"\$: expected an object")


def test_key_twice(folder: Path) -> None:
    reject(folder, b'{"schema": 1, "schema": 1}', "expected each key once, got 'schema' twice")


def test_key_twice_deep_inside(folder: Path) -> None:
    reject(folder, b'{"schema": 1, "a": [{"b": {"c": 1, "c": 2}}]}', "got 'c' twice")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_number_that_is_not_finite(folder: Path, text: str) -> None:
    reject(folder, f'{{"schema": 1, "threshold": {text}}}'.encode(), f"expected finite numbers, got {text}")


def test_number_that_overflows_to_infinity(folder: Path) -> None:
    text = (folder / "manifest.json").read_text().replace('"threshold": 0.5', '"threshold": 1e999')
    reject(folder, text.encode(), r"\$\.threshold: expected a number between 0 and 1, got inf")


def test_integer_of_a_million_digits(folder: Path) -> None:
    reject(folder, b'{"schema": ' + b"9" * 1_000_000 + b"}", r"expected integers of at most 2\*\*53")


def test_nesting_of_half_a_million_arrays(folder: Path) -> None:
    reject(folder, b"[" * 500_000 + b"]" * 500_000, "expected at most 16 levels of nesting")


def test_nesting_of_objects(folder: Path) -> None:
    reject(folder, b'{"a":' * 17 + b"1" + b"}" * 17, "expected at most 16 levels of nesting")


@pytest.mark.parametrize("text", [b'\\"', b"\\\\"], ids=["quotes", "escapes"])
def test_string_that_never_ends_is_refused_quickly(folder: Path, text: bytes) -> None:
    reject(folder, b'"' + text * 500_000, "expected JSON")


def test_brackets_after_an_escaped_quote_are_no_nesting() -> None:
    assert parse(b'["\\"' + b"[" * 40 + b'", {"a": 1}]', "text").value[1] == {"a": 1}


def test_brackets_in_strings_are_no_nesting() -> None:
    assert fake_manifest(name="[" * 40 + '"' + "{" * 40).name.startswith("[[")


def test_object_of_too_many_members(folder: Path) -> None:
    members = b", ".join(b'"k%d": 1' % i for i in range(5000))
    reject(folder, b"{" + members + b"}", "expected at most 1024 members, got 5000")


def test_long_values_are_shortened_in_messages(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"schema": 1, "name": "%s"}' % ("x" * 100_000))

    with pytest.raises(BundleError) as caught:
        load_bundle(folder)

    assert len(str(caught.value)) < 1000


def test_long_lists_of_unknown_keys_are_shortened_in_messages(folder: Path) -> None:
    document = read_manifest(folder)
    write_manifest(folder, {**document, **{"x" * 500 + str(i): 1 for i in range(900)}})

    with pytest.raises(BundleError) as caught:
        load_bundle(folder)

    assert len(str(caught.value)) < 1000


def test_control_characters_do_not_reach_the_message(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"schema": 1, "\\u001b[31m": 1}')

    with pytest.raises(BundleError) as caught:
        load_bundle(folder)

    assert "\x1b" not in str(caught.value)
