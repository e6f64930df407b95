"""Measures the default bundle on this CPU: ``python export/benchmark_cpu.py --help``.

Writes docs/benchmarks/cpu.md and everything measured as JSON. Ten minutes, on a machine with nothing else
to do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
for _room in ("export", "models", "sdk"):  # a clone works without being installed
    sys.path.insert(0, str(_ROOT / _room))

import torch  # noqa: E402

from clickmask.whole_files import write_whole  # noqa: E402
from clickmask_export.profiling import cpu_page, scenes  # noqa: E402
from clickmask_export.profiling.around import measure_around  # noqa: E402
from clickmask_export.profiling.clicks import measure_clicks  # noqa: E402
from clickmask_export.profiling.cold_start import measure_cold_start  # noqa: E402
from clickmask_export.profiling.control import Control  # noqa: E402
from clickmask_export.profiling.diffusion_forms import measure_diffusion  # noqa: E402
from clickmask_export.profiling.eager import EagerBackend  # noqa: E402
from clickmask_export.profiling.machine import load, machine_facts  # noqa: E402
from clickmask_export.profiling.paced import measure_paced  # noqa: E402
from clickmask_export.profiling.subject import How, Subject, open_subject, subject_of  # noqa: E402
from clickmask_export.progress import Progress  # noqa: E402

_CHECKPOINT = _ROOT / "engines/default.safetensors"
_SIZE, _CONTROL_MS = 384, 10.0  # what the goals for a person's clicks are for


def main() -> int:
    """Runs the command; returns its exit status."""
    options = _options()
    progress, machine = Progress(), machine_facts()
    torch.set_num_threads(options.threads)
    how = How("onnxruntime", "cpu", options.threads, "native")
    default = open_subject("default", how, cpu_page.NATIVE, warm=not options.quick)
    report: dict[str, Any] = {
        "command": "make bench" if not options.quick else "python export/benchmark_cpu.py --quick",
        "quick": options.quick,
        "threads": options.threads,
        "machine": machine,
        "clicks_of_a_session": len(scenes.script(scenes.photograph(None))),
    }
    # Before torch has run, whose memory and threads the others would meet.
    with progress.stage("fresh processes"):
        report["cold_start"] = _cold_start(default, options)
    with progress.stage("around the network"):
        report["around"] = _around(default, options)
    with progress.stage("at a person's pace"):
        report["paced"] = _paced(default, options)
    with progress.stage("Pixel Diffusion"):
        sizes = default.sizes[:1] if options.quick else default.sizes
        rounds = 1 if options.quick else 15
        bundle = default.segmenter.bundle
        report["diffusion"] = measure_diffusion(bundle, sizes, options.threads, rounds, options.bandwidth)
    with progress.stage("clicks"):
        report["clicks"] = _clicks(default, options, progress)
    with progress.stage("build the default bundle"):
        report["build_s"] = None if options.quick else _build()
    machine["load_average_after"] = load()
    _write(report, options)
    print("\n".join(cpu_page.lines_of_goals(report)))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=_ROOT / "docs/benchmarks/cpu.md")
    parser.add_argument("--json", type=Path, default=_ROOT / "out/bench/cpu.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bandwidth", type=Path, help="the read_bandwidth program of the native build")
    parser.add_argument("--quick", action="store_true", help="a few runs of everything, to see that it works")
    return parser.parse_args()


def _cold_start(default: Subject, options: argparse.Namespace) -> dict[str, Any]:
    photo = scenes.photograph(None)
    # As an application that sets nothing: the runtime's own threads, and encoding ahead.
    usual = Subject(default.name, default.segmenter, default.recording, How())
    return measure_cold_start([usual], photo, scenes.script(photo), 1 if options.quick else 9)[0]


def _around(default: Subject, options: argparse.Namespace) -> dict[str, Any]:
    photo = scenes.photograph(None, megapixels=1 if options.quick else 12)
    return measure_around(default, photo, scenes.script(photo), 1 if options.quick else 15)


def _paced(default: Subject, options: argparse.Namespace) -> list[dict[str, Any]]:
    """At one size, for which the goals are, and at those that the bundle chooses."""
    objects, clicks = (scenes.scenes()[:1], 2) if options.quick else (scenes.scenes(), 10)
    some = objects[:8]
    second, third = (0.1, 0.1) if options.quick else (1.0, 0.3)
    with Control(options.threads, _CONTROL_MS) as control:
        for_goals = {"size": _SIZE, "control": control.run, "pointers": (False, True)}
        runs = measure_paced(default, objects, second, clicks, **for_goals)
    runs += measure_paced(default, some, second, clicks)
    runs += measure_paced(default, some, third, clicks)
    return runs + measure_paced(default, some, third, clicks, prefetch=False)


def _clicks(default: Subject, options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    bundle = default.segmenter.bundle
    how = How("onnxruntime", "cpu", options.threads, "graph")
    in_graph = open_subject("default", how, cpu_page.IN_GRAPH, warm=False)
    in_torch = subject_of(bundle, EagerBackend(bundle.manifest, _CHECKPOINT, progress), cpu_page.IN_TORCH)
    subjects, photo = [default, in_graph, in_torch], scenes.photograph(None)
    clicks = scenes.script(photo)
    sizes = default.sizes[:1] if options.quick else ()
    found = measure_clicks(subjects, photo, clicks, 1 if options.quick else 7, sizes)
    return {subject.name: kinds for subject, kinds in zip(subjects, found, strict=True)}


def _build() -> float:
    """Seconds that ``build_engine.py`` takes for the default."""
    with tempfile.TemporaryDirectory(prefix="clickmask-") as folder:
        command = [sys.executable, str(_ROOT / "export/build_engine.py"), "--checkpoint", str(_CHECKPOINT)]
        start = time.monotonic()
        subprocess.run([*command, "--output", f"{folder}/bundle"], check=True, capture_output=True)
        return time.monotonic() - start


def _write(report: dict[str, Any], options: argparse.Namespace) -> None:
    for path, text in (
        (options.json, json.dumps(report, indent=1) + "\n"),
        (options.output, cpu_page.page(report)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())


if __name__ == "__main__":
    sys.exit(main())
