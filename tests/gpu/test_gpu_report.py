"""Times on this GPU, against eager torch in the same run; writes docs/benchmarks/gpu-<device>.md."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_around import around, blob, device_steps, host_steps, padded
from gpu_commands import BATCHING, PROFILE, rates, run
from gpu_eager import eager_backend
from gpu_memory import HighWater, measure_memory, memory_table
from gpu_scenes import KINDS, Scene, free_bytes, iou, make_scene
from gpu_timing import BASELINE, Times, measure, measure_steps, step_table, table
from gpu_wants import missing

from clickmask.backends import Backend, host, open_artefact
from clickmask.backends.fake import FakeBackend
from clickmask.bundle import Bundle, load_bundle
from clickmask.errors import ClickmaskError
from clickmask.pixels import HostPixels
from clickmask.view import Box, View
from clickmask_export.errors import BuildError

ROUNDS = int(os.environ.get("CLICKMASK_GPU_ROUNDS", "100"))
COMMAND = "CLICKMASK_REQUIRE_GPU=1 python -m pytest tests/gpu"
FAILED = "The command failed:"
PACKAGES = ("torch", "onnxruntime-gpu", "tensorrt", "cuda-bindings", "numpy")
CLICKS = ("--only", "clicks", "cold_start", "--rounds", "10", "--starts", "2")
CROWDS = ("--sessions", "1", "4", "16", "32", "--rounds", "3")


def slug(name: str) -> str:
    """A device's name as a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def memory(bundles: Mapping[str, Bundle], scenes: Sequence[Scene]) -> str:
    """Most memory that each backend takes, opened by itself, as Markdown."""
    import torch

    found = {}
    for name, bundle in bundles.items():
        gc.collect()
        free_bytes()  # what torch keeps idle would be used first

        def open_one(bundle: Bundle = bundle) -> Backend:
            return open_artefact(bundle, bundle.manifest.artefacts[0], "cuda")

        found[name] = measure_memory(open_one, scenes, lambda: int(torch.cuda.mem_get_info()[0]))
    return (
        "Memory of the GPU that a backend takes at most, MB: until it is open, then with all sizes warm, "
        "then with clicks at every size. It is looked at every 2 ms; the process has its context and "
        f"libraries already.\n\n{memory_table(found)}"
    )


def commands(bundles: Mapping[str, Bundle], title: str, script: str, *words: str) -> str:
    """What a command prints of each bundle on the GPU, as Markdown."""
    texts = []
    for name, bundle in bundles.items():
        given = ("--bundle", bundle.path) if script == BATCHING else (bundle.path,)
        try:
            printed = run(script, *given, "--device", "cuda", "--backend", name.split()[0], *words)
        except (AssertionError, subprocess.TimeoutExpired) as exc:
            printed = f"{FAILED} {exc}"
        texts.append(f"{name}:\n\n```\n{printed.strip()}\n```\n")
    return f"{title}, `{script} {' '.join(words)}`:\n\n" + "\n".join(texts)


@pytest.mark.gpu
def test_report(
    root: Path,
    checkpoint: Path,
    photo: np.ndarray,
    eager: Callable[[str], Any],
    built: Callable[[str, str], Any],
    opened: Callable[[str, str], Any],
) -> None:
    import torch

    from clickmask.backends.host_facts import host_facts

    backends = {BASELINE: eager("fp32"), "eager torch fp16": eager("fp16")}
    bundles, absent = {}, []
    for backend, precision in KINDS:
        name = f"{backend} {precision}"
        try:
            backends[name], bundles[name] = opened(backend, precision), built(backend, precision)
        except (pytest.skip.Exception, pytest.fail.Exception, ClickmaskError, BuildError) as exc:
            absent.append(f"- {name}: {' '.join(str(exc).split())}")
    for one in backends.values():
        one.warmup()
    manifest = backends[BASELINE].manifest
    scenes = [make_scene(manifest, photo, size) for size in manifest.input.sizes]

    found = measure(backends, scenes, manifest.threshold, ROUNDS)

    gpu, cuda = torch.cuda.get_device_name(0), host_facts().cuda
    versions = ", ".join(f"{name} {version}" for name in PACKAGES if (version := host.installed(name)))
    halves = {name: bundle for name, bundle in bundles.items() if name.endswith("fp16")}
    parts = (
        f"# Clicks on an {gpu}\n\n"
        f"Written by `{COMMAND}`, {ROUNDS} rounds, all backends in turns in one process; batch 1. Network: "
        f"{checkpoint.name} ({manifest.family}, {manifest.preset}). A first click encodes the crop and "
        "decodes, a next click decodes; both from host arrays to logits on the host. x: times as fast as "
        "eager torch in float32 (TF32 off everywhere), by medians. IoU: with its mask.",
        f"Driver for CUDA {'.'.join(map(str, cuda or ()))}; {versions}.\n\n{table(found)}",
        around(backends, photo, ROUNDS),
        memory(bundles, scenes),
        commands(halves, "Sessions", PROFILE, *CLICKS),
        commands(halves, "Many sessions", BATCHING, *CROWDS),
        *(["Not measured:\n\n" + "\n".join(absent)] if absent else []),
    )
    page = root / "docs/benchmarks" / f"gpu-{slug(gpu)}.md"
    page.write_text("\n\n".join(part.rstrip() for part in parts) + "\n")
    for times in found.values():
        for name, own in times.items():
            assert own.iou >= 0.98, name
    assert FAILED not in page.read_text()
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


def test_steps_take_turns_after_one_that_is_not_counted() -> None:
    done: list[str] = []
    times = measure_steps({"a": lambda: done.append("a"), "b": lambda: done.append("b")}, rounds=3)

    assert done == ["a", "b"] * 4
    assert {name: len(ms) for name, ms in times.items()} == {"a": 3, "b": 3}
    assert step_table({"a": [1.0, 2.0, 9.0]}).splitlines()[2:] == ["| a | 2.000 | 1.000 | 8.860 |"]


def test_every_way_of_the_processor_gives_what_a_session_has() -> None:
    pixels, view = (
        HostPixels(np.zeros((60, 80, 3), np.uint8), (0.5, 0.5, 0.5), 0.5),
        View(Box(0, 0, 80, 60), 64),
    )
    logits = blob(view)
    made = {name: step() for name, step in host_steps(pixels, view, logits).items()}

    assert [value.shape for value in list(made.values())[:2]] == [(1, 3, 64, 64), (1, 1, 64, 64)]
    painted = made["processor: mask"].mask
    assert painted.shape == (60, 80)
    assert painted[30, 40]  # the disk's middle
    assert not painted[0, 0]
    np.testing.assert_array_equal(padded(logits, 64)[0, 0, : logits.shape[0], : logits.shape[1]], logits)


def test_a_mask_brought_as_bytes_is_the_one_brought_as_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """On torch's memory of the host, which stands for the GPU's."""
    import torch

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, **_: empty(shape, dtype=dtype))

    class There(HostPixels):
        def device_mask(self, logits: Any, view: View, out: Any = None) -> Any:
            out.copy_(torch.from_numpy(self.paint(logits, view).mask))
            return out

    pixels, view = There(np.zeros((60, 80, 3), np.uint8), (0.5, 0.5, 0.5), 0.5), View(Box(0, 0, 80, 60), 64)
    steps = device_steps(pixels, view, blob(view))
    as_bytes = steps["GPU: mask, as bytes"]()
    np.testing.assert_array_equal(as_bytes, steps["GPU: mask, as bits"]().mask)
    assert as_bytes.dtype == np.bool_
    assert as_bytes.any()


def test_the_most_memory_is_found_also_where_it_is_given_back_at_once() -> None:
    free, looked = [100], threading.Event()

    def left() -> int:
        if free[0] == 30:
            looked.set()
        return free[0]

    with HighWater(left) as mark:
        free[0] = 30
        assert looked.wait(10)
        free[0] = 90
    assert mark.look() == 70
    assert memory_table({"x": {"opened": 0, "warmed up": 10**6, "clicked on": 2 * 10**6}}).splitlines()[
        2:
    ] == ["| x | 0 | 1 | 2 |"]


def test_memory_is_measured_step_by_step() -> None:
    """A backend takes one byte as it opens, and one more for each decode."""
    backend = FakeBackend()
    scenes = [make_scene(backend.manifest, np.zeros((50, 80, 3), np.uint8), 64, clicks=1)] * 2
    opened: list[Backend] = []

    def open_backend() -> Backend:
        opened.append(backend)
        return backend

    found = measure_memory(open_backend, scenes, lambda: 100 - len(opened) - backend.decode_calls)

    assert found["opened"] == 1
    assert found["clicked on"] - found["warmed up"] == 2


def test_what_the_batching_command_prints_is_understood() -> None:
    printed = "onnxruntime on cpu, batches to 2\n  1 sessions, alone       62.1 clicks/s   p50   16.0 ms\n"
    assert rates(printed) == {(1, "alone"): 62.1}


def test_what_commands_print_stands_in_the_report(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    asked: list[tuple[Any, ...]] = []

    def fake(*words: Any) -> str:
        asked.append(words)
        if len(asked) == 2:
            raise AssertionError("status 1")
        return "62.1 clicks/s\n"

    monkeypatch.setattr("test_gpu_report.run", fake)
    bundle = load_bundle(root / "engines/default")
    text = commands({"tensorrt fp16": bundle, "torchscript fp16": bundle}, "Many", BATCHING, "--rounds", "3")

    assert asked[0][:3] == (BATCHING, "--bundle", bundle.path)
    assert asked[0][-4:] == ("--backend", "tensorrt", "--rounds", "3")
    assert text.startswith(f"Many, `{BATCHING} --rounds 3`:\n\ntensorrt fp16:\n\n```\n62.1 clicks/s\n```\n")
    assert f"torchscript fp16:\n\n```\n{FAILED} status 1\n```" in text


def test_what_cannot_be_measured_is_said() -> None:
    assert "no runtime takes them" in around({BASELINE: FakeBackend()}, np.zeros((6, 8, 3), np.uint8), 1)
