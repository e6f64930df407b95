"""Times Pixel Diffusion: the native library, the ten-stage ONNX graph, torch eager, and memory bandwidth.

    python sdk/native/bench/pixel_diffusion.py --json out/pixel_diffusion.json \\
        --bandwidth build/native/sdk/native/tests/read_bandwidth

All forms take turns in one process, on the same inputs. Medians and minima in milliseconds. Every iteration
reads all weights once; the floor is the time that takes at the bandwidth that this machine shows in the same
run: from memory (a buffer far beyond the caches) and, below it, for a buffer of the weights' own size.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from clickmask import native_diffusion
from clickmask_export.recipes import describe_diffusion
from clickmask_models.pixel_diffusion import PixelDiffusion
from clickmask_models.presets import DEFAULT, preset

CONFIG = preset(DEFAULT).pixel_diffusion
CLICKS = 6
BEYOND_CACHES = 512.0  # MB

Calls = dict[str, Callable[[], np.ndarray]]


def scene(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(logits (S, S), image (3, S, S), clicks (M, 3)): waves, fine texture and a flat padding, in 8 bits."""
    rng = np.random.default_rng(size)
    rows, columns = np.mgrid[:size, :size] / 9
    waves = np.stack([np.sin(rows + c) + np.cos(columns * (c + 1)) for c in range(3)])
    image = np.clip(0.5 + 0.2 * waves + 0.03 * rng.standard_normal(waves.shape), 0, 1)
    image[:, :, int(0.9 * size) :] = 0.5
    logits = 4 * np.sin(rows / 3 + columns / 5) + rng.standard_normal((size, size))
    spots = rng.uniform(0, size, (CLICKS, 2))
    clicks = np.column_stack([spots, np.arange(CLICKS) % 2])
    image = np.round(255 * image) / 255
    return logits.astype(np.float32), image.astype(np.float32), clicks.astype(np.float32)


def graph_bytes() -> bytes:
    """The ten-stage form as ONNX, any size."""
    size = {2: torch.export.Dim("H", min=32, max=4096), 3: torch.export.Dim("W", min=32, max=4096)}
    example = (torch.zeros(1, 1, 64, 96), torch.zeros(1, 3, 64, 96), torch.zeros(1, CLICKS, 3))
    module = PixelDiffusion(CONFIG).eval()
    program = torch.export.export(module, example, dynamic_shapes=(size, size, {}), strict=False)
    names = {"input_names": ["logits", "image", "clicks"], "output_names": ["result"]}
    exported = torch.onnx.export(program, dynamo=True, external_data=False, verbose=False, **names)
    return exported.model_proto.SerializeToString()


def open_graph(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """A CPU session as the product opens it, without spinning threads that would disturb the others."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def forms(
    size: int, threads: int, session: onnxruntime.InferenceSession
) -> dict[str, Callable[[], np.ndarray]]:
    """What is timed, by name; each call does the whole of it."""
    logits, image, clicks = scene(size)
    options = native_diffusion.DiffusionOptions.from_spec(describe_diffusion(CONFIG))
    affinity = native_diffusion.Affinity(image, options, threads)
    feeds = {"logits": logits[None, None], "image": image[None], "clicks": clicks[None]}
    tensors = [torch.from_numpy(feeds[name]) for name in ("logits", "image", "clicks")]
    module = PixelDiffusion(CONFIG).eval()

    def weigh() -> np.ndarray:
        native_diffusion.Affinity(image, options, threads)
        return logits

    return {
        "torch eager": lambda: module(*tensors)[0, 0].numpy(),
        "onnx graph": lambda: session.run(None, feeds)[0][0, 0],
        "native, affinity": weigh,
        "native, click": lambda: affinity.diffuse(logits, clicks, threads),
    }


def timed(call: Callable[[], np.ndarray]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def take_turns(calls: Calls, runs: int) -> dict[str, list[float]]:
    """Milliseconds of each form, round by round, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in range(runs + 1):
        for name, call in calls.items():
            spent = timed(call)
            if round_number:
                times[name].append(spent)
    return times


def bandwidth(program: Path, megabytes: float, threads: int) -> float:
    """GB/s of reading a buffer of that size again and again."""
    command = [str(program), str(megabytes), str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(size: int, threads: int, runs: int, session: onnxruntime.InferenceSession, program: Path) -> dict:
    """One row: the times, the ratios and the floors."""
    calls = forms(size, threads, session)
    difference = np.abs(np.tanh(calls["native, click"]() / 2) - np.tanh(calls["onnx graph"]() / 2)).max()
    megabytes = size * size * 2 * 8 * len(CONFIG.dilations) / 1e6
    rates = [bandwidth(program, amount, threads) for amount in (BEYOND_CACHES, megabytes)]
    times = take_turns(calls, runs)
    again = [bandwidth(program, amount, threads) for amount in (BEYOND_CACHES, megabytes)]
    rates = [max(pair) for pair in zip(rates, again, strict=True)]
    floors = [CONFIG.iterations * megabytes / rate for rate in rates]  # MB / (GB/s) = ms
    row = {name: {"median": statistics.median(spent), "min": min(spent)} for name, spent in times.items()}
    graph, click = row["onnx graph"]["median"], row["native, click"]["median"]
    return {
        "size": size,
        "ms": row,
        "graph_over_cached_click": graph / click,
        "graph_over_first_click": graph / (click + row["native, affinity"]["median"]),
        "bandwidth_gb_s": {"memory": rates[0], "weights": rates[1]},
        "floor_ms": {"memory": floors[0], "weights": floors[1]},
        "click_over_floor": row["native, click"]["min"] / floors[0],
        "max_confidence_difference": float(difference),
    }


def show(row: dict) -> None:
    """Prints a row."""
    cells = [f"{name} {ms['median']:.2f} ({ms['min']:.2f})" for name, ms in row["ms"].items()]
    print(f"{row['size']:5d}: " + ", ".join(cells) + " ms")
    print(
        f"       graph : native {row['graph_over_cached_click']:.1f} cached, "
        f"{row['graph_over_first_click']:.1f} first click; iterations : floor "
        f"{row['click_over_floor']:.2f} ({row['floor_ms']['memory']:.2f} ms; "
        f"{row['floor_ms']['weights']:.2f} ms from cache); "
        f"difference {row['max_confidence_difference']:.1e}"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 384, 512, 1024], metavar="S")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument(
        "--bandwidth", type=Path, required=True, help="the read_bandwidth program of the build"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load = os.getloadavg()[0]
    rows = []
    with torch.inference_mode():
        session = open_graph(graph_bytes(), arguments.threads)
        for size in arguments.sizes:
            rows.append(measure(size, arguments.threads, arguments.runs, session, arguments.bandwidth))
            show(rows[-1])
    result = {
        "machine": platform.platform(),
        "instruction_set": native_diffusion.instruction_sets()[0],
        "load_before": load,
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
        "threads": arguments.threads,
        "runs": arguments.runs,
        "rows": rows,
    }
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
