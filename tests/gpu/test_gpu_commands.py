"""The commands of the READMEs and documents on this GPU; where it costs little, on the processor as well."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from gpu_commands import BATCHING, BUILD, PROFILE, interrupted, rates, run
from gpu_scenes import KINDS
from gpu_wants import missing

from clickmask.backends.host_facts import host_facts

KIND = pytest.mark.parametrize(("backend", "precision"), KINDS, ids=lambda value: value)
Open = Callable[[str, str], Any]


def wanted(module: str, package: str) -> None:
    """Skip, or fail, where a package of the application is missing."""
    try:
        __import__(module)
    except ImportError as exc:
        missing(f"needs {package}: {exc}; run: pip install {package}")


# clickmask doctor


@pytest.mark.gpu
@KIND
def test_doctor_opens_every_artefact_on_the_gpu(backend: str, precision: str, built: Open) -> None:
    printed = run("clickmask", "doctor", built(backend, precision).path)
    assert "This bundle runs here." in printed
    assert re.search(rf"^ok +{backend}.*cuda", printed, flags=re.MULTILINE), printed


# profile_latency.py

QUICK = ("--quick", "--device")
ROWS = {"count", "min", "p50", "p90", "p95", "p99", "max", "jitter", "mad", "samples", "stages"}


def check_report(report: dict[str, Any], plot: Path, printed: str) -> None:
    """All that a report must have."""
    (bundle,) = report["bundles"]
    for size, kinds in bundle["clicks"].items():
        assert {"first click", "moved crop", "undo"} <= set(kinds), size
        for row in kinds.values():
            assert set(row) >= ROWS
            assert row["min"] <= row["p50"] <= row["p90"] <= row["p99"] <= row["max"]
        stages = kinds["first click"]["stages"]
        assert {"prepare", "copy in", "encoder", "decoder", "copy out", "paste"} <= set(stages)
    cold = bundle["cold_start"]
    assert cold["first_mask_ms"]["p50"] > cold["click_ms"]["p50"] > 0
    assert [row["sessions"] for row in bundle["sessions"]] == [1, 2]
    assert all(row["sessions_per_second"] > 0 for row in bundle["sessions"])
    assert bundle["paced"]
    assert cv2.imread(str(plot)) is not None
    for heading in ("a click, ms", "its stages, median ms", "cold start, ms", "sessions at once"):
        assert heading in printed


def profiled(bundle: str | Path, tmp_path: Path, *given: str) -> tuple[dict[str, Any], Path, str]:
    output = (tmp_path / "profile.json", tmp_path / "profile.png")
    printed = run(PROFILE, bundle, *given, "--json", output[0], "--plot", output[1])
    return json.loads(output[0].read_text()), output[1], printed


@pytest.mark.gpu
@KIND
def test_profile_measures_everything_on_the_gpu(
    backend: str, precision: str, built: Open, tmp_path: Path
) -> None:
    folder = built(backend, precision).path
    report, plot, printed = profiled(folder, tmp_path, *QUICK, "cuda", "--backend", backend)

    check_report(report, plot, printed)
    (bundle,) = report["bundles"]
    assert (bundle["backend"], bundle["device"][:4]) == (backend, "cuda")
    memory = report["machine"]["gpu_mb"]
    assert memory["before"] is not None, "nvidia-smi tells no memory.used"
    assert memory["most"] > memory["before"] >= 0
    for graphs in bundle["layers"].values():
        if backend == "torchscript":
            assert "unavailable" in graphs
            continue
        for graph in ("encoder", "decoder"):
            named = sum(row["share"] for row in graphs[graph] if row["module"].startswith("network."))
            assert named > 0.5, (graph, graphs[graph][:5])


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["torchscript", "onnxruntime", "tensorrt"])
def test_profile_ends_with_3_where_it_is_slower(backend: str, built: Open, tmp_path: Path) -> None:
    folder, earlier = built(backend, "fp16").path, tmp_path / "earlier.json"
    given = ("--device", "cuda", "--backend", backend, "--only", "clicks", "--rounds", "6")
    run(PROFILE, folder, *given, "--json", earlier)
    compare = (*given, "--baseline", earlier)
    assert "SLOWER" in run(PROFILE, folder, *compare, "--fail-above", "0.01", status=3)
    assert "SLOWER" not in run(PROFILE, folder, *compare, "--fail-above", "100")


def test_the_checks_of_a_profile_hold_on_the_processor(tmp_path: Path) -> None:
    small = ("--sizes", "384", "--threads", "1")
    report, plot, printed = profiled("default", tmp_path, *QUICK, "cpu", *small)
    check_report(report, plot, printed)
    broken = json.loads(json.dumps(report))
    del broken["bundles"][0]["clicks"]["384"]["undo"]
    with pytest.raises(AssertionError):
        check_report(broken, plot, printed)


# benchmark_batching.py


@pytest.mark.parametrize(
    ("device", "backend"),
    [
        ("cpu", "onnxruntime"),
        *(pytest.param("cuda", b, marks=pytest.mark.gpu) for b in ("torchscript", "onnxruntime", "tensorrt")),
    ],
)
def test_batching_is_measured(device: str, backend: str, request: pytest.FixtureRequest) -> None:
    bundle = () if device == "cpu" else ("--bundle", request.getfixturevalue("built")(backend, "fp16").path)
    few = ("--sessions", "1", "2", "--rounds", "1", "--clicks", "3", "--max-batch", "2")
    printed = run(BATCHING, "--device", device, "--backend", backend, *bundle, *few)
    assert f"{backend} on {device}" in printed
    found = rates(printed)
    assert set(found) == {(count, way) for count in (1, 2) for way in ("alone", "batched")}
    assert all(rate > 0 for rate in found.values())


# Ctrl-C


@pytest.mark.parametrize(
    ("target", "after", "number"),
    [
        ("onnxruntime", "export the", signal.SIGINT),
        pytest.param("tensorrt", "build the TensorRT plan", signal.SIGINT, marks=pytest.mark.gpu),
        pytest.param("tensorrt", "build the TensorRT plan", signal.SIGTERM, marks=pytest.mark.gpu),
    ],
    ids=["cpu_ctrl_c", "ctrl_c", "sigterm"],
)
def test_a_build_that_is_interrupted_ends_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, target: str, after: str, number: signal.Signals
) -> None:
    if target == "tensorrt" and host_facts().tensorrt is None:
        missing("needs TensorRT: pip install tensorrt==11.4.0.106")
    place, cache = tmp_path / "place", tmp_path / "cache"
    long = ("--optimization-level", "5", "--timing-cache", cache) if target == "tensorrt" else ()
    words = ("--checkpoint", checkpoint, "--output", place / "bundle", "--target", target, *long)

    status, said = interrupted(after, number, BUILD, *words)

    assert status == (1 if number == signal.SIGINT else 143), said
    assert ("interrupted; nothing was written" in said) == (number == signal.SIGINT)
    assert not place.exists() or list(place.iterdir()) == []
    assert not cache.exists()


# The examples


@pytest.mark.gpu
def test_zero_copies_with_pycuda(tmp_path: Path, root: Path) -> None:
    from skimage import data

    from clickmask import Segmenter

    wanted("pycuda", "pycuda==2026.1")
    script = "examples/05_gpu_zero_copy/zero_copy.py"
    assert "this machine can run it" in run(script, "--check")
    printed = run(script, "--output", tmp_path)
    (pixels,) = map(int, re.findall(r"(\d+) object pixels", printed))

    clicks = [(220, 120, True), (230, 330, True), (60, 250, False)]  # the example's
    assert str(clicks) in (root / script).read_text()
    with Segmenter.load(device="cpu") as segmenter:
        expected = segmenter.session(data.astronaut()).replay(clicks)
    assert abs(pixels - expected.sum()) <= 0.02 * expected.sum()
    cutout = cv2.imread(str(tmp_path / "cutout.png"))[..., ::-1]
    kept = (cutout == data.astronaut()).all(axis=2)
    assert np.mean(kept[expected]) > 0.97


@pytest.mark.gpu
@pytest.mark.parametrize("graph", ["encoder", "decoder", "pixel_diffusion"])
def test_polygraphy_finds_the_masks_of_onnx_runtime_in_tensorrt(
    graph: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wanted("polygraphy", "polygraphy==0.53.6")
    wanted("tensorrt", "tensorrt==11.4.0.106")
    folder = tmp_path_factory.getbasetemp() / "polygraphy"
    if not folder.exists():
        run("examples/06_debug_with_polygraphy/compare.py", "--size", "128", "--output", folder)
    printed = run(folder / f"{graph}_in_tensorrt.py")
    assert "finite: True" in printed
    assert ("IoU of the masks" in printed) == (graph != "encoder")
