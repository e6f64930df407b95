"""Times on this GPU, against eager torch in the same run; writes docs/benchmarks/gpu-<device>.md."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_eager import eager_backend
from gpu_scenes import KINDS, iou, make_scene
from gpu_timing import BASELINE, Times, measure, table

from clickmask.backends import host, open_artefact
from clickmask.backends.fake import FakeBackend
from clickmask.bundle import load_bundle

ROUNDS = int(os.environ.get("CLICKMASK_GPU_ROUNDS", "100"))
COMMAND = "CLICKMASK_REQUIRE_GPU=1 python -m pytest tests/gpu"
PACKAGES = ("torch", "onnxruntime-gpu", "tensorrt", "cuda-bindings", "numpy")


def slug(name: str) -> str:
    """A device's name as a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@pytest.mark.gpu
def test_report(
    root: Path,
    checkpoint: Path,
    photo: np.ndarray,
    eager: Callable[[str], Any],
    opened: Callable[[str, str], Any],
) -> None:
    import torch

    from clickmask.backends.host_facts import host_facts

    backends = {BASELINE: eager("fp32"), "eager torch fp16": eager("fp16")}
    absent = []
    for backend, precision in KINDS:
        try:
            backends[f"{backend} {precision}"] = opened(backend, precision)
        except pytest.skip.Exception as exc:
            absent.append(f"- {backend} {precision}: {exc}")
    for one in backends.values():
        one.warmup()
    manifest = backends[BASELINE].manifest
    scenes = [make_scene(manifest, photo, size) for size in manifest.input.sizes]

    found = measure(backends, scenes, manifest.threshold, ROUNDS)

    gpu, cuda = torch.cuda.get_device_name(0), host_facts().cuda
    versions = ", ".join(f"{name} {version}" for name in PACKAGES if (version := host.installed(name)))
    (root / "docs/benchmarks" / f"gpu-{slug(gpu)}.md").write_text(
        f"# Clicks on an {gpu}\n\n"
        f"Written by `{COMMAND}`, {ROUNDS} rounds, all backends in turns in one process; batch 1. Network: "
        f"{checkpoint.name} ({manifest.family}, {manifest.preset}). A first click encodes the crop and "
        "decodes, a next click decodes; both from host arrays to logits on the host. x: times as fast as "
        "eager torch in float32, by medians. IoU: with its mask.\n\n"
        f"Driver for CUDA {'.'.join(map(str, cuda or ()))}; {versions}.\n\n{table(found)}"
        + (f"\nNot measured:\n\n{chr(10).join(absent)}\n" if absent else "")
    )
    for times in found.values():
        for name, own in times.items():
            assert own.iou >= 0.98, name


def test_table_has_ratios_of_medians() -> None:
    found = {64: {BASELINE: Times([4, 4, 10], [2, 2, 2], 1.0), "fast": Times([2, 1, 9], [4, 4, 4], 0.5)}}

    assert table(found).splitlines()[2:] == [
        "| 64 | eager torch fp32 | 4.00 (4.00) | 1.00 | 2.00 (2.00) | 1.00 | 1.0000 |",
        "| 64 | fast | 2.00 (1.00) | 2.00 | 4.00 (4.00) | 0.50 | 0.5000 |",
    ]


def test_backends_take_turns_and_their_masks_are_compared() -> None:
    fakes = {BASELINE: FakeBackend(radius=12), "smaller": FakeBackend(radius=6)}
    manifest = fakes[BASELINE].manifest
    photo = np.zeros((50, 80, 3), np.uint8)
    scenes = [make_scene(manifest, photo, size, clicks=1) for size in manifest.input.sizes]

    found = measure(fakes, scenes, manifest.threshold, rounds=3)

    assert list(found) == [64, 96, 128]
    assert found[64][BASELINE].iou == 1
    assert found[64]["smaller"].iou == pytest.approx(0.25, abs=0.03)  # areas go with the radius squared
    assert [len(found[96]["smaller"].first), len(found[96]["smaller"].next)] == [3, 3]
    assert (fakes["smaller"].encode_calls, fakes["smaller"].decode_calls) == (3 * 4, 3 * (1 + 2 * 3))


def test_the_baseline_computes_what_the_bundle_does(root: Path, photo: np.ndarray) -> None:
    bundle = load_bundle(root / "engines/default")
    with closing(
        eager_backend(root / "engines/default.safetensors", "fp32", bundle.manifest, "cpu")
    ) as baseline:
        scene = make_scene(bundle.manifest, photo, bundle.manifest.input.sizes[0])
        shipped = open_artefact(bundle, bundle.manifest.artefacts[0], "cpu", pixel_diffusion="graph")

        assert iou(scene.run(baseline), scene.run(shipped), bundle.manifest.threshold) >= 0.999


def test_device_names_become_file_names() -> None:
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
