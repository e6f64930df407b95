"""The real runtimes: what they refuse, and what is said where one is missing, hollow or shadowed."""

from __future__ import annotations

import dataclasses
import gc
import sys
import tempfile
import threading
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import (
    artefact,
    change_manifest,
    expected_logits,
    file_entry,
    make_bundle,
    prompt,
    read_manifest,
    write_manifest,
)
from runtimes import CPU, CUDA, fake_onnxruntime, hollow
from tensorrt_double import HOST

from clickmask.backends import cuda_device, host, open_backend
from clickmask.backends.onnxruntime import OnnxRuntimeBackend
from clickmask.bundle import load_bundle
from clickmask.errors import BackendError, BackendUnavailableError


def test_onnxruntime_threads_spin_within_a_call_only_and_no_shape_keeps_its_memory(
    one_runtime: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    seen: list[Any] = []
    real = onnxruntime.InferenceSession

    def spy(model: bytes, options: Any, **rest: Any) -> Any:
        stops = options.get_session_config_entry("session.force_spinning_stop")
        seen.append((stops, options.intra_op_num_threads, options.enable_mem_pattern))
        return real(model, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    bundle = one_runtime("onnxruntime")

    OnnxRuntimeBackend.open(bundle, bundle.manifest.artefacts[0], threads=3)
    OnnxRuntimeBackend.open(bundle, bundle.manifest.artefacts[0])

    assert seen == [("1", 3, False), ("1", host.physical_cores(), False)]


@pytest.mark.parametrize("name", ["onnxruntime", "torchscript"])
def test_file_that_is_no_graph_is_a_backend_error(tmp_path: Path, name: str) -> None:
    if name == "torchscript":
        pytest.importorskip("torch", reason="TorchScript needs torch")
    folder = make_bundle(tmp_path, backends=(name,))
    path = folder / ("network.onnx" if name == "onnxruntime" else "network.ts")
    path.write_bytes(b"not a graph")
    change_manifest(folder, artefacts=[artefact(name, {"network": file_entry(path)})])

    with pytest.raises(BackendError, match=f"does not load '{path.name}'") as caught:
        open_backend(load_bundle(folder), name, "cpu")

    assert not isinstance(caught.value, BackendUnavailableError)
    assert caught.value.__cause__ is not None


def test_onnx_graph_with_other_names_than_the_manifest_is_refused(tmp_path: Path) -> None:
    make_bundle(tmp_path / "with", input={"previous_mask": True})
    folder = make_bundle(tmp_path / "without", input={"previous_mask": False})
    document = read_manifest(folder)
    foreign = folder / "network.onnx"
    foreign.write_bytes((tmp_path / "with" / "network.onnx").read_bytes())
    document["artefacts"][0]["files"]["network"] = file_entry(foreign)
    write_manifest(folder, document)

    with pytest.raises(BackendError, match="graph 'network': expected the inputs"):
        open_backend(load_bundle(folder), "onnxruntime", "cpu")


@pytest.mark.parametrize("where", ["beside", "working_directory"])
def test_onnx_graph_cannot_read_weights_from_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from onnx import TensorProto, load, save

    folder = make_bundle(tmp_path / "bundle")
    path = folder / "network.onnx"
    model = load(path)
    weight = next(t for t in model.graph.initializer if t.name == "bias")
    weight.ClearField("float_data")
    weight.dims[:] = [1, 1, 64, 64]  # large enough that no optimiser pass reads (and fails on) it first
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    weight.external_data.add(key="length", value=str(4 * 64 * 64))
    save(model, path)
    change_manifest(folder, artefacts=[artefact("onnxruntime", {"network": file_entry(path)})])
    readable = folder if where == "beside" else tmp_path
    (readable / "weights.bin").write_bytes(bytes(4 * 64 * 64))
    monkeypatch.chdir(readable)

    with pytest.raises(BackendError, match=r"does not load 'network\.onnx'"):
        open_backend(load_bundle(folder), "onnxruntime", "cpu")


def test_no_place_for_temporary_files_is_a_backend_error(
    one_runtime: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = one_runtime("onnxruntime")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))

    with pytest.raises(
        BackendError, match=r"expected to make a temporary folder, got: .*nowhere.*; set TMPDIR"
    ):
        open_backend(bundle, "onnxruntime", "cpu")


def test_torchscript_fp16_needs_cuda(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, backends=("torchscript",))
    half = {**read_manifest(folder)["artefacts"][0], "precision": "fp16"}
    change_manifest(folder, artefacts=[half])

    with pytest.raises(BackendUnavailableError, match="expected CUDA for an fp16 TorchScript"):
        open_backend(load_bundle(folder), "torchscript", "cpu")


def test_torchscript_loads_without_a_deprecation_warning(
    one_runtime: Callable[[str], Any], recwarn: pytest.WarningsRecorder
) -> None:
    pytest.importorskip("torch", reason="TorchScript needs torch")
    bundle = one_runtime("torchscript")
    recwarn.clear()

    open_backend(bundle, "torchscript", "cpu")

    assert not [w for w in recwarn if issubclass(w.category, DeprecationWarning)]


def test_onnxruntime_sessions_close_while_others_run(one_runtime: Callable[[str], Any]) -> None:
    bundle = one_runtime("onnxruntime")
    image, clicks, previous_mask = prompt(1, 64)
    first, second = open_backend(bundle, threads=1), open_backend(bundle, threads=1)
    results: list[np.ndarray] = []

    worker = threading.Thread(
        target=lambda: results.extend(
            second.decode(second.encode(image), clicks, previous_mask) for _ in range(20)
        )
    )
    worker.start()
    first.close()
    worker.join()

    assert len(results) == 20


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every session that ONNX Runtime opens from now on."""
    import onnxruntime

    sessions: list[Any] = []
    real = onnxruntime.InferenceSession

    def spy(*arguments: Any, **rest: Any) -> Any:
        sessions.append(real(*arguments, **rest))
        return sessions[-1]

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    return sessions


@pytest.mark.parametrize("encodes_once", [False, True])
def test_a_decoder_has_a_session_for_one_image_of_each_size_and_one_for_all_batches(
    tmp_path: Path, opened: list[Any], encodes_once: bool
) -> None:
    backend = open_backend(load_bundle(make_bundle(tmp_path, encodes_once=encodes_once)))
    sizes = backend.manifest.input.sizes
    assert len(sizes) > 1

    for batch, size in [(1, size) for size in sizes] * 2 + [(2, sizes[0]), (3, sizes[1])]:
        image, clicks, previous_mask = prompt(batch, size)
        expected = expected_logits(image, clicks, previous_mask, encodes_once)
        logits = backend.decode(backend.encode(image), clicks, previous_mask)
        np.testing.assert_allclose(logits, expected, atol=1e-5)

    shapes = [{tensor.name: tensor.shape for tensor in session.get_inputs()} for session in opened]
    masks = [shape["previous_mask"] for shape in shapes if "previous_mask" in shape]
    encoders = [shape["image"] for shape in shapes if "clicks" not in shape]
    fixed = [[1, 1, size, size] for size in sizes] if encodes_once else []
    assert sorted(masks, key=str) == sorted([*fixed, ["B", 1, "S", "S"]], key=str)
    assert encoders == [["B", 3, "S", "S"]] * encodes_once


def test_a_click_waits_for_no_other_sizes_opening_and_no_size_is_opened_twice(
    tmp_path: Path, opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    backend = open_backend(load_bundle(make_bundle(tmp_path, encodes_once=True)), threads=1)
    small, *_, large = backend.manifest.input.sizes
    begun, go = threading.Event(), threading.Event()
    spy = onnxruntime.InferenceSession

    def held(*arguments: Any, **rest: Any) -> Any:
        begun.set()
        assert go.wait(10)
        return spy(*arguments, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", held)
    before = len(opened)
    encoders = [threading.Thread(target=backend.encode, args=(prompt(1, small)[0],)) for _ in range(2)]
    for encoder in encoders:
        encoder.start()
    assert begun.wait(10)
    image, clicks, previous_mask = prompt(1, large)
    backend.decode(backend.encode(image), clicks, previous_mask)
    assert len(opened) == before
    go.set()
    for encoder in encoders:
        encoder.join(10)

    assert len(opened) == before + 1


@pytest.mark.parametrize("closer", ["own thread", "another"])
def test_a_backend_closed_while_a_size_is_opened_keeps_nothing_and_says_that_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closer: str
) -> None:
    import onnxruntime

    backend = open_backend(load_bundle(make_bundle(tmp_path, encodes_once=True)), threads=1)
    image, clicks, previous_mask = prompt(1, backend.manifest.input.sizes[0])
    real, kept = onnxruntime.InferenceSession, []
    other = threading.Thread(target=backend.close)

    def closing(*arguments: Any, **rest: Any) -> Any:
        session = real(*arguments, **rest)
        kept.append(weakref.ref(session))
        if closer == "another":
            other.start()
        else:  # as a finaliser does
            backend.close()
        return session

    monkeypatch.setattr(onnxruntime, "InferenceSession", closing)
    features = backend.encode(image)  # the encoder ran before
    if closer == "another":
        other.join(10)

    with pytest.raises(BackendError, match="got a call after close"):
        backend.decode(features, clicks, previous_mask)
    gc.collect()
    assert [session() for session in kept] == [None]


def test_what_stands_in_the_way_of_opening_another_size_is_a_backend_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_backend(load_bundle(make_bundle(tmp_path / "bundle", encodes_once=True)), threads=1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no_such_folder"))

    with pytest.raises(BackendError, match="no_such_folder"):
        backend.encode(prompt(1, backend.manifest.input.sizes[0])[0])


def test_a_decoder_of_one_size_needs_no_size_among_its_inputs(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, encodes_once=True, input={"previous_mask": False, "sizes": [64]})
    expected = decoded(folder)
    document = read_manifest(folder)
    for graph, side in (("encoder", "outputs"), ("decoder", "inputs")):
        for tensor in document["graphs"][graph][side]:
            tensor["shape"] = [16 if extent == "S/4" else extent for extent in tensor["shape"]]
    write_manifest(folder, document)

    np.testing.assert_array_equal(decoded(folder), expected)


def decoded(folder: Path) -> np.ndarray:
    """What a bundle of one size gives for some clicks without a previous mask."""
    backend = open_backend(load_bundle(folder), threads=1)
    image, clicks, _ = prompt(1, backend.manifest.input.sizes[0])
    return backend.decode(backend.encode(image), clicks)


# A host without a runtime, or with half of one


@pytest.mark.parametrize(
    ("backend", "module", "device", "extra"),
    [
        ("onnxruntime", "onnxruntime", "cpu", "cpu"),
        ("onnxruntime", "onnxruntime", "cuda", "gpu"),
        ("torchscript", "torch", "cpu", "torchscript"),
        ("torchscript", "torch", "cuda", "torchscript"),
    ],
)
def test_missing_runtime_names_the_command_that_installs_it(
    one_runtime: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    module: str,
    device: str,
    extra: str,
) -> None:
    bundle = one_runtime(backend)
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(BackendUnavailableError, match=rf'pip install "clickmask\[{extra}\]"'):
        open_backend(bundle, backend, device)


@pytest.mark.parametrize(
    ("backend", "module", "device", "remedy"),
    [
        ("onnxruntime", "onnxruntime", "cpu", r'onnxruntime-gpu && pip install "clickmask\[cpu\]"'),
        ("onnxruntime", "onnxruntime", "cuda", r'onnxruntime-gpu && pip install "clickmask\[gpu\]"'),
        ("torchscript", "torch", "cpu", r"--force-reinstall torch"),
        ("torchscript", "torch", "cuda", r"--force-reinstall torch"),
    ],
)
def test_hollow_runtime_is_named_with_its_place_and_remedy(
    one_runtime: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    module: str,
    device: str,
    remedy: str,
) -> None:
    if backend == "torchscript":
        pytest.importorskip("torch", reason="TorchScript needs torch")
    bundle = one_runtime(backend)
    monkeypatch.setitem(sys.modules, module, hollow(module, "/somewhere"))

    with pytest.raises(BackendUnavailableError, match=rf"from /somewhere: half an installation.*{remedy}"):
        open_backend(bundle, backend, device)


def test_place_of_a_module(tmp_path: Path) -> None:
    with_file = hollow("onnxruntime", str(tmp_path))
    with_file.__file__ = str(tmp_path / "onnxruntime.py")

    assert host.location(with_file) == str(tmp_path / "onnxruntime.py")
    assert host.location(hollow("onnxruntime", "/one", "/two")) == "/one, /two"
    assert host.location(types.ModuleType("onnxruntime")) == "no file"


def test_cuda_asked_of_a_cpu_build_is_an_error(
    one_runtime: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = one_runtime("onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_onnxruntime([CPU], [CPU]))
    monkeypatch.setattr(host, "installed", lambda name: "1" if name == "onnxruntime" else None)

    with pytest.raises(BackendUnavailableError, match=rf'a build with {CPU} only; run: .*"clickmask\[gpu\]"'):
        open_backend(bundle, "onnxruntime", "cuda")


def test_onnxruntime_shadowing_onnxruntime_gpu_is_named(
    one_runtime: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = one_runtime("onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_onnxruntime([CPU], [CPU]))
    monkeypatch.setattr(host, "installed", lambda _: "1.31.1")

    with pytest.raises(
        BackendUnavailableError, match=r"both installed.*pip uninstall -y onnxruntime onnxruntime-gpu"
    ):
        open_backend(bundle, "onnxruntime", "cuda")


def test_cuda_asked_of_a_machine_without_a_gpu_is_an_error(
    one_runtime: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = one_runtime("onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_onnxruntime([CUDA, CPU], [CPU]))
    monkeypatch.setattr(cuda_device, "host_facts", lambda: dataclasses.replace(HOST, gpus=()))

    with pytest.raises(BackendUnavailableError, match=r"cuda with 0 CUDA device\(s\) found; check nvidia"):
        open_backend(bundle, "onnxruntime", "cuda")
