"""Times on this GPU, against eager torch in the same run; writes docs/benchmarks/gpu-<device>.md."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from gpu_eager import eager_backend
from gpu_scenes import KINDS, iou, make_scene
from gpu_timing import BASELINE, Times, measure, measure_pixels, pixel_table, table
from gpu_wants import missing

from clickmask.backends import Backend, host, open_artefact
from clickmask.backends.fake import FakeBackend
from clickmask.bundle import load_bundle
from clickmask.errors import ClickmaskError
from clickmask.pixels import HostPixels
from clickmask.view import Box, View
from clickmask_export.errors import BuildError

ROUNDS = int(os.environ.get("CLICKMASK_GPU_ROUNDS", "100"))
COMMAND = "CLICKMASK_REQUIRE_GPU=1 python -m pytest tests/gpu"
PACKAGES = ("torch", "onnxruntime-gpu", "tensorrt", "cuda-bindings", "numpy")


def slug(name: str) -> str:
    """A device's name as a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def around(backends: Mapping[str, Backend], photo: np.ndarray) -> str:
    """Crop and mask of a photo of 12 megapixels on the processor and on the GPU, as Markdown."""
    taking = next((backend for backend in backends.values() if backend.takes_device_arrays), None)
    if taking is None:
        return "Crops and masks on the GPU: not measured, as no runtime takes them there."
    spec, image = taking.manifest.input, cv2.resize(photo, (4000, 3000), interpolation=cv2.INTER_CUBIC)
    on_host = HostPixels(image, spec.pad, taking.manifest.threshold)
    on_device = on_host.uploaded(taking)
    if on_device is on_host:
        return "Crops and masks on the GPU: not measured, as the kernels are not built."
    view = View(Box(0, 0, 4000, 3000), spec.sizes[-1], spec.fit, spec.coordinates)
    times = measure_pixels({"processor, ms": on_host, "GPU, ms": on_device}, view, ROUNDS)
    return (
        "What a session does around the network, 4000 x 3000 pixels, the whole image as crop, median (min); "
        "masks end in host memory, from the GPU as bits:\n\n" + pixel_table(times)
    )


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
        except (pytest.skip.Exception, pytest.fail.Exception, ClickmaskError, BuildError) as exc:
            absent.append(f"- {backend} {precision}: {' '.join(str(exc).split())}")
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
        "eager torch in float32 (TF32 off everywhere), by medians. IoU: with its mask.\n\n"
        f"Driver for CUDA {'.'.join(map(str, cuda or ()))}; {versions}.\n\n{table(found)}"
        f"\n{around(backends, photo).rstrip()}\n"
        + (f"\nNot measured:\n\n{chr(10).join(absent)}\n" if absent else "")
    )
    for times in found.values():
        for name, own in times.items():
            assert own.iou >= 0.98, name
    if absent:
        missing("\n".join(absent))  # after what there is was written


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


def test_crops_and_masks_are_timed_wherever_pixels_are() -> None:
    photo = np.zeros((60, 80, 3), np.uint8)
    places = {
        "here": HostPixels(photo, (0.5, 0.5, 0.5), 0.5),
        "there": HostPixels(photo, (0.5, 0.5, 0.5), 0.5),
    }

    times = measure_pixels(places, View(Box(0, 0, 80, 60), 64), rounds=3)

    assert {step: {place: len(ms) for place, ms in found.items()} for step, found in times.items()} == {
        "crop": {"here": 3, "there": 3},
        "mask": {"here": 3, "there": 3},
    }
    lines = pixel_table({"crop": {"a": [1.0, 2.0, 9.0], "b": [0.5, 0.5, 0.5]}}).splitlines()
    assert lines == ["| step | a | b |", "|---|---|---|", "| crop | 2.000 (1.000) | 0.500 (0.500) |"]


def test_what_cannot_be_measured_is_said() -> None:
    assert "no runtime takes them" in around({BASELINE: FakeBackend()}, np.zeros((6, 8, 3), np.uint8))
