"""Times Pixel Diffusion in its three forms: the native library, the ten-stage ONNX graph, and torch eager.

All forms take turns in one process, on the same inputs. Every iteration of the library reads all weights
once; the floor is the time that this takes at the bandwidth that the machine shows in the same run: from
memory (a buffer far beyond the caches) and, below it, for a buffer of the weights' own size.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clickmask import native_diffusion
from clickmask.backends.onnxruntime import session_options
from clickmask.bundle import Bundle
from clickmask_export.profiling.figures import summary
from clickmask_export.profiling.turns import take_turns
from clickmask_models.pixel_diffusion import PixelDiffusion
from clickmask_models.presets import DEFAULT, preset

EAGER, GRAPH, WEIGH, CLICK = "torch eager", "ONNX graph", "native, weights", "native, iterations"
_CLICKS = 6
_BEYOND_CACHES = 512.0  # MB

_Calls = dict[str, Callable[[], Any]]


def measure_diffusion(
    bundle: Bundle, sizes: Sequence[int], threads: int, rounds: int, bandwidth: Path | None
) -> list[dict[str, Any]]:
    """One row for each size.

    Args:
        bundle: the default one, whose graph is timed.
        sizes: sides of the square, pixels.
        threads: of every form.
        rounds: of turns, after one that is not counted.
        bandwidth: the ``read_bandwidth`` program of the native build; None leaves the floor out.

    Returns:
        ``size``, ``ms`` (form to ``summary``), ``cached`` and ``uncached`` (how many times as fast as the
        graph a click is, by medians, with the crop's weights there and without), ``floor_ms``, ``over_floor``
        (least time of the iterations over it), ``bandwidth_gb_s``, and ``difference``, the largest between
        graph and library as confidences.

    Raises:
        BackendUnavailableError: there is no native library.
    """
    session = _open_graph(bundle, threads)
    torch.set_num_threads(threads)
    with torch.inference_mode():
        return [_row(size, threads, rounds, session, bandwidth, bundle) for size in sizes]


def _open_graph(bundle: Bundle, threads: int) -> Any:
    """The bundle's graph in ONNX Runtime, with the run time's settings."""
    import onnxruntime

    (artefact,) = (a for a in bundle.manifest.artefacts if a.backend == "onnxruntime")
    options = session_options(onnxruntime, threads)
    model = bundle.read(artefact.files["pixel_diffusion"])
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _scene(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(logits (S, S), image (3, S, S), clicks (M, 3)): waves, fine texture and a flat padding, in 8 bits."""
    rng = np.random.default_rng(size)
    rows, columns = np.mgrid[:size, :size] / 9
    waves = np.stack([np.sin(rows + c) + np.cos(columns * (c + 1)) for c in range(3)])
    image = np.clip(0.5 + 0.2 * waves + 0.03 * rng.standard_normal(waves.shape), 0, 1)
    image[:, :, int(0.9 * size) :] = 0.5
    logits = 4 * np.sin(rows / 3 + columns / 5) + rng.standard_normal((size, size))
    clicks = np.column_stack([rng.uniform(0, size, (_CLICKS, 2)), np.arange(_CLICKS) % 2])
    image = np.round(255 * image) / 255
    return logits.astype(np.float32), image.astype(np.float32), clicks.astype(np.float32)


def _forms(size: int, threads: int, session: Any, bundle: Bundle) -> _Calls:
    """What is timed, by name; each call does the whole of it."""
    logits, image, clicks = _scene(size)
    options = native_diffusion.DiffusionOptions.from_spec(bundle.manifest.pixel_diffusion)
    affinity = native_diffusion.Affinity(image, options, threads)
    feeds = {"logits": logits[None, None], "image": image[None], "clicks": clicks[None]}
    tensors = [torch.from_numpy(feeds[name]) for name in ("logits", "image", "clicks")]
    module = PixelDiffusion(preset(DEFAULT).pixel_diffusion).eval()
    return {
        EAGER: lambda: module(*tensors)[0, 0].numpy(),
        GRAPH: lambda: session.run(None, feeds)[0][0, 0],
        WEIGH: lambda: native_diffusion.Affinity(image, options, threads),
        CLICK: lambda: affinity.diffuse(logits, clicks, threads),
    }


def _row(
    size: int,
    threads: int,
    rounds: int,
    session: Any,
    bandwidth: Path | None,
    bundle: Bundle,
) -> dict[str, Any]:
    calls, spec = _forms(size, threads, session, bundle), bundle.manifest.pixel_diffusion
    difference = np.abs(np.tanh(calls[CLICK]() / 2) - np.tanh(calls[GRAPH]() / 2)).max()
    megabytes = size * size * 2 * 8 * len(spec.dilations) / 1e6
    before = _bandwidths(bandwidth, megabytes, threads)
    ms = {name: summary(times) for name, times in take_turns(calls, rounds).items()}
    rates = [max(pair) for pair in zip(before, _bandwidths(bandwidth, megabytes, threads), strict=True)]
    floors = [spec.iterations * megabytes / rate for rate in rates]  # MB / (GB/s) = ms
    graph, click = ms[GRAPH]["p50"], ms[CLICK]["p50"]
    return {
        "size": size,
        "ms": ms,
        "cached": graph / click,
        "uncached": graph / (click + ms[WEIGH]["p50"]),
        "bandwidth_gb_s": dict(zip(("memory", "weights"), rates, strict=False)),
        "floor_ms": dict(zip(("memory", "weights"), floors, strict=False)),
        "over_floor": ms[CLICK]["min"] / floors[0] if floors else None,
        "difference": float(difference),
    }


def _bandwidths(program: Path | None, megabytes: float, threads: int) -> list[float]:
    """GB/s of reading a large buffer, and one of that size, again and again; none without the program."""
    if program is None:
        return []
    commands = [[str(program), str(amount), str(threads)] for amount in (_BEYOND_CACHES, megabytes)]
    return [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for command in commands
    ]
