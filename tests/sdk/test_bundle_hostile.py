"""Bundles made to harm or merely damaged: one test per offence, each with its own message."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bundles import file_entry, make_bundle, read_manifest, write_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickmask import bundle as bundle_module
from clickmask.backends.fake import fake_manifest
from clickmask.bundle import Bundle, bundle_path, default_bundle_path, load_bundle
from clickmask.errors import BundleError, InvalidInputError
from clickmask.manifest import Manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle in order."""
    return make_bundle(tmp_path / "bundle")


def test_bundle_in_order_loads(folder: Path) -> None:
    bundle = load_bundle(folder)

    artefact = bundle.manifest.artefacts[0]
    assert bundle.path == folder
    assert bundle.file(artefact, "network") == folder / "network.onnx"


def test_path_may_be_text_and_relative(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)

    assert load_bundle("bundle").manifest.name == "fake"


def test_bundle_folder_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)

    assert isinstance(load_bundle(tmp_path / "link"), Bundle)


def test_files_that_the_manifest_does_not_list_are_left_alone(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")

    load_bundle(folder)


# The folder


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"expected a bundle folder, got .*nowhere"):
        load_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("path", [123, None, b"bundle", ["bundle"]], ids=["int", "none", "bytes", "list"])
def test_path_that_is_no_path(path: Any) -> None:
    with pytest.raises(InvalidInputError, match=rf"str or os\.PathLike\[str\], got {type(path).__name__}"):
        load_bundle(path)


def test_folder_whose_name_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"expected a bundle folder, got '.*nnn': File name too long\."):
        load_bundle(tmp_path / ("n" * 300))


def test_folder_in_one_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:  # by hand: permissions do not stop root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)

    with pytest.raises(BundleError, match=r"expected a bundle folder, got '.*bundle': Permission denied\."):
        load_bundle(tmp_path / "bundle")


def test_file_instead_of_a_folder(folder: Path) -> None:
    with pytest.raises(BundleError, match="expected a bundle folder"):
        load_bundle(folder / "manifest.json")


def test_folder_without_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"expected manifest\.json in .* not a bundle"):
        load_bundle(tmp_path)


def test_manifest_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()

    with pytest.raises(BundleError, match=r"'manifest\.json' .* to be a regular file"):
        load_bundle(tmp_path)


def test_manifest_that_is_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")

    with pytest.raises(BundleError, match=r"'manifest\.json' .* to be a regular file"):
        load_bundle(tmp_path)


# The files


def test_missing_file(folder: Path) -> None:
    (folder / "network.onnx").unlink()

    with pytest.raises(BundleError, match=r"'network\.onnx' .* it is missing"):
        load_bundle(folder)


def test_truncated_file(folder: Path) -> None:
    path = folder / "network.onnx"
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(BundleError, match=r"'network\.onnx' of \d+ bytes, got \d+: it is truncated"):
        load_bundle(folder)


def test_file_that_is_too_long(folder: Path) -> None:
    path = folder / "network.onnx"
    path.write_bytes(path.read_bytes() + b"\0")

    with pytest.raises(BundleError, match=r"'network\.onnx' .* it is longer than it should be"):
        load_bundle(folder)


def test_altered_file(folder: Path) -> None:
    path = folder / "network.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(BundleError, match=r"'network\.onnx' with sha256 [0-9a-f]{64}, got .* it was altered"):
        load_bundle(folder)


def test_every_artefact_is_checked_and_not_the_first_alone(folder: Path) -> None:
    (folder / "second.onnx").write_bytes(b"abc")
    document = read_manifest(folder)
    second = {**document["artefacts"][0], "files": {"network": file_entry(folder / "second.onnx")}}
    write_manifest(folder, {**document, "artefacts": [*document["artefacts"], second]})
    (folder / "second.onnx").write_bytes(b"abd")

    with pytest.raises(BundleError, match=r"'second\.onnx' .* it was altered"):
        load_bundle(folder)


def test_file_of_two_artefacts_is_hashed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = read_manifest(folder)
    write_manifest(folder, {**document, "artefacts": document["artefacts"] * 2})
    checked: list[Any] = []
    monkeypatch.setattr(bundle_module, "_check_file", lambda _, file: checked.append(file))

    load_bundle(folder)

    assert len(checked) == 1


def test_one_file_with_two_hashes(folder: Path) -> None:
    document = read_manifest(folder)
    entry = {**document["artefacts"][0]["files"]["network"], "sha256": "0" * 64}
    second = {**document["artefacts"][0], "files": {"network": entry}}
    write_manifest(folder, {**document, "artefacts": [*document["artefacts"], second]})

    with pytest.raises(BundleError, match="it was altered"):
        load_bundle(folder)


def test_link_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "network.onnx").rename(tmp_path / "outside.onnx")
    (folder / "network.onnx").symlink_to(tmp_path / "outside.onnx")

    with pytest.raises(BundleError, match=r"'network\.onnx' inside .* a link that leads out of it"):
        load_bundle(folder)


def test_link_out_of_the_folder_in_two_steps(folder: Path, tmp_path: Path) -> None:
    (folder / "network.onnx").rename(tmp_path / "outside.onnx")
    (folder / "step.onnx").symlink_to(tmp_path / "outside.onnx")
    (folder / "network.onnx").symlink_to("step.onnx")

    with pytest.raises(BundleError, match="a link that leads out of it"):
        load_bundle(folder)


def test_manifest_that_is_a_link_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").rename(tmp_path / "manifest.json")
    (folder / "manifest.json").symlink_to(tmp_path / "manifest.json")

    with pytest.raises(BundleError, match=r"'manifest\.json' inside .* a link that leads out of it"):
        load_bundle(folder)


def test_link_within_the_folder_is_allowed(folder: Path) -> None:
    (folder / "network.onnx").rename(folder / "real.onnx")
    (folder / "network.onnx").symlink_to("real.onnx")

    load_bundle(folder)


def test_dangling_link_is_a_missing_file(folder: Path) -> None:
    (folder / "network.onnx").unlink()
    (folder / "network.onnx").symlink_to("nowhere.onnx")

    with pytest.raises(BundleError, match="it is missing"):
        load_bundle(folder)


def test_link_to_itself(folder: Path) -> None:
    (folder / "network.onnx").unlink()
    (folder / "network.onnx").symlink_to("network.onnx")

    with pytest.raises(BundleError, match=r"'network\.onnx' .* to be readable"):
        load_bundle(folder)


def test_artefact_that_is_a_folder(folder: Path) -> None:
    (folder / "network.onnx").unlink()
    (folder / "network.onnx").mkdir()

    with pytest.raises(BundleError, match=r"'network\.onnx' .* to be a regular file"):
        load_bundle(folder)


def test_artefact_that_is_a_socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "network.onnx").unlink()
    monkeypatch.chdir(folder)  # the address of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("network.onnx")

        with pytest.raises(BundleError, match=r"'network\.onnx' .* to be a regular file"):
            load_bundle(folder)


def test_artefact_that_is_a_device(folder: Path) -> None:
    (folder / "network.onnx").unlink()
    (folder / "network.onnx").symlink_to("/dev/zero")

    with pytest.raises(BundleError, match="a link that leads out of it"):
        load_bundle(folder)


# Nothing is run


class Bomb:
    """Leaves a file behind when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("backend", ["onnxruntime", "torchscript"])
def test_pickle_in_place_of_a_graph_is_never_unpickled(tmp_path: Path, backend: str) -> None:
    from clickmask.backends import open_backend
    from clickmask.errors import BackendError

    if backend == "torchscript":
        pytest.importorskip("torch", reason="TorchScript needs torch")
    mark = tmp_path / "mark"
    folder = make_bundle(tmp_path / "bundle", backends=(backend,))
    document = read_manifest(folder)
    path = folder / document["artefacts"][0]["files"]["network"]["path"]
    path.write_bytes(pickle.dumps(Bomb(mark)))
    document["artefacts"][0]["files"]["network"] = file_entry(path)
    write_manifest(folder, document)

    with pytest.raises(BackendError, match="does not load"):
        open_backend(load_bundle(folder), backend, "cpu")

    assert not mark.exists()


def test_loading_a_bundle_imports_no_runtime_and_no_pickle_of_it(folder: Path) -> None:
    code = (
        "import sys; from clickmask.bundle import load_bundle; load_bundle(sys.argv[1]);"
        "bad = {'torch', 'onnx', 'onnxruntime', 'tensorrt'} & set(sys.modules); assert not bad, bad"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=environment, timeout=60)


# Anything at all


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(key=st.sampled_from(sorted(json.loads(fake_manifest().to_json()))), value=JSON)
@settings(max_examples=200, deadline=None)
def test_any_value_in_any_place_is_read_or_refused_and_never_crashes(key: str, value: Any) -> None:
    document = {**json.loads(fake_manifest().to_json()), key: value}
    try:
        manifest = Manifest.from_json(json.dumps(document))
    except BundleError:
        return
    assert Manifest.from_json(manifest.to_json()) == manifest


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_refused_and_never_crash(data: bytes) -> None:
    with pytest.raises(BundleError):
        Manifest.from_json(data)


# The default bundle


def test_default_bundle_is_found_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "clickmask"
    make_bundle(package / "engines" / "default")
    monkeypatch.setattr(bundle_module, "__file__", str(package / "bundle.py"))

    assert default_bundle_path() == package / "engines" / "default"


def test_default_bundle_is_found_in_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bundle(tmp_path / "engines" / "default")
    monkeypatch.setattr(bundle_module, "__file__", str(tmp_path / "sdk" / "clickmask" / "bundle.py"))

    assert default_bundle_path() == tmp_path / "engines" / "default"


def test_default_bundle_that_is_nowhere_says_how_to_build_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_module, "__file__", str(tmp_path / "sdk" / "clickmask" / "bundle.py"))

    with pytest.raises(BundleError, match=r"from a clone of the repository.*python export/build_engine\.py"):
        default_bundle_path()


@pytest.mark.parametrize("word", ["default", "-"])
def test_words_for_the_default_bundle(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "default_bundle_path", lambda: Path("shipped"))

    assert bundle_path(word) == Path("shipped")
    assert bundle_path("./default") == Path("default")
