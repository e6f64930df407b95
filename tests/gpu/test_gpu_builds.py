"""``build_engine.py --target tensorrt`` with each of its options, as a user runs it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_commands import BUILD, arguments, calibration_photos, run
from gpu_wants import missing

from clickmask import Segmenter
from clickmask.backends.host_facts import host_facts
from clickmask.bundle import Bundle, load_bundle
from clickmask.errors import BackendUnavailableError

pytestmark = pytest.mark.gpu

SIZE = 256
QUICK = ("--target", "tensorrt", "--size", str(SIZE), "--max-batch", "2", "--optimization-level", "1")
VARIANTS = {
    "plain": (),
    "version_compatible": ("--version-compatible",),
    "without_lean_runtime": ("--version-compatible", "--exclude-lean-runtime"),
    "ampere_plus": ("--hardware-compatible", "ampere_plus"),
    "same_compute_capability": ("--hardware-compatible", "same_compute_capability"),
    "stripped": ("--strip-weights",),
    "stripped_and_compatible": ("--strip-weights", "--version-compatible"),
    "tf32": ("--tf32",),
}
VARIANT = pytest.mark.parametrize("variant", VARIANTS)
LEAST_IOU = 0.98
Build = Callable[[str], Bundle]


@pytest.fixture(scope="module", autouse=True)
def _tensorrt() -> None:
    if host_facts().tensorrt is None:
        missing("needs TensorRT: pip install tensorrt==11.4.0.106")


@pytest.fixture(scope="module")
def build(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The bundle of a variant, in half precision; built once, with one timing cache for all."""
    folder = tmp_path_factory.mktemp("variants")

    @cache
    def make(variant: str) -> Bundle:
        output = folder / variant
        given = ("--precision", "fp16", "--timing-cache", folder / "cache", *VARIANTS[variant])
        run(BUILD, "--checkpoint", checkpoint, "--output", output, *QUICK, *given)
        return load_bundle(output)

    return make


def masks_of(bundle: Bundle, photo: np.ndarray, **options: Any) -> np.ndarray:
    """Masks of three clicks, (3, H, W)."""
    height, width = photo.shape[:2]
    with Segmenter.load(bundle.path, "tensorrt", "cuda", prefetch=False, **options) as segmenter:
        session = segmenter.session(photo, size=SIZE)
        clicks = ((width / 2, height / 2, True), (5, 5, False), (width / 3, height / 2, True))
        return np.stack([session.click(*click) for click in clicks])


@VARIANT
def test_each_variant_gives_the_masks_of_the_plain_one(build: Build, photo: np.ndarray, variant: str) -> None:
    bundle = build(variant)
    engine = bundle.manifest.artefacts[0].engine
    given = VARIANTS[variant]
    assert engine.version_compatible == ("--version-compatible" in given)
    assert engine.lean_runtime_inside == (engine.version_compatible and "--exclude-lean-runtime" not in given)
    assert engine.hardware_compatibility == (given[1] if "--hardware-compatible" in given else "none")
    assert engine.stripped == ("--strip-weights" in given)
    assert engine.half_share > 0  # what it must be at least, the build has proven

    masks = masks_of(bundle, photo, trust_host_code=engine.lean_runtime_inside)

    expected = masks_of(build("plain"), photo)
    assert (masks & expected).sum() / (masks | expected).sum() >= LEAST_IOU


@VARIANT
def test_doctor_says_of_each_variant_what_loading_does(build: Build, photo: np.ndarray, variant: str) -> None:
    bundle = build(variant)
    if not bundle.manifest.artefacts[0].engine.lean_runtime_inside:
        assert "This bundle runs here." in run("clickmask", "doctor", bundle.path)
        return
    refused = run("clickmask", "doctor", bundle.path, status=1)
    assert "--trust-host-code" in refused
    with pytest.raises(BackendUnavailableError, match="trust_host_code"):
        masks_of(bundle, photo)
    assert "This bundle runs here." in run("clickmask", "doctor", bundle.path, "--trust-host-code")


def test_a_stripped_plan_has_no_weights(build: Build) -> None:
    """What it lacks is most of what stands in the ONNX files beside it."""
    plain, stripped = (build(variant).manifest.artefacts[0] for variant in ("plain", "stripped"))
    for graph in ("encoder", "decoder"):
        missing_bytes = plain.files[graph].bytes - stripped.files[graph].bytes
        assert missing_bytes > 0.5 * stripped.weights[graph].bytes, graph


def test_the_lean_runtime_loads_a_version_compatible_plan(build: Build) -> None:
    """In a process of its own: two TensorRT do not share one."""
    if host_facts().tensorrt_lean is None:
        missing("needs the lean runtime: pip install tensorrt-lean==11.4.0.106")
    bundle = build("without_lean_runtime")
    code = (
        "import sys\n"
        "from clickmask.backends.tensorrt_engine import EngineLoader, check_engine, import_tensorrt\n"
        "from clickmask.bundle import load_bundle\n"
        "bundle, trt = load_bundle(sys.argv[1]), import_tensorrt('tensorrt_lean')\n"
        "artefact, loader = bundle.manifest.artefacts[0], EngineLoader(trt, trust_host_code=False)\n"
        "for name, file in artefact.files.items():\n"
        "    engine = loader.load(bundle.read(file))\n"
        "    check_engine(trt, engine, name, bundle.manifest.graphs[name], artefact.engine)\n"
        "print('loaded', len(artefact.files))\n"
    )
    command = [arguments("clickmask")[0], "-c", code, str(bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert f"loaded {len(bundle.manifest.artefacts[0].files)}" in done.stdout


def test_int8_passes_its_gate(checkpoint: Path, tmp_path: Path, photo: np.ndarray) -> None:
    photos = calibration_photos(tmp_path / "photos")
    output = tmp_path / "int8"
    given = ("--precision", "int8", "--calibration", photos)

    printed = run(BUILD, "--checkpoint", checkpoint, "--output", output, *QUICK, *given)

    assert "held photographs" in printed
    bundle = load_bundle(output)
    parity = bundle.manifest.artefacts[0].parity
    assert parity["held photographs, mean"].iou >= 0.95
    assert parity["held photographs"].iou >= 0.75
    assert masks_of(bundle, photo).any()


def test_the_timing_cache_is_used_again(checkpoint: Path, tmp_path: Path) -> None:
    """Measuring kernels is most of a build at the usual level."""
    cache, seconds, printed = tmp_path / "cache", [], []
    words = ("--target", "tensorrt", "--size", str(SIZE), "--precision", "fp16", "--timing-cache", cache)
    for number in range(2):
        start = time.monotonic()
        output = tmp_path / str(number)
        printed.append(run(BUILD, "--checkpoint", checkpoint, "--output", output, *words))
        seconds.append(time.monotonic() - start)
        assert cache.stat().st_size > 1000
    print("builds took", seconds)
    assert "timing cache" not in "".join(printed)  # nothing had to be said of it
    assert seconds[1] < 0.9 * seconds[0]
