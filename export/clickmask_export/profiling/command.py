"""The command line of ``export/profile_latency.py``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from clickmask.bundle import MANIFEST_NAME, bundle_path
from clickmask.errors import ClickmaskError
from clickmask.whole_files import check_targets, write_whole
from clickmask_export.errors import BuildError
from clickmask_export.profiling.compare import COMPARED, Comparison, any_slower, compare
from clickmask_export.profiling.gpu_memory import GpuMemory
from clickmask_export.profiling.plot import draw
from clickmask_export.profiling.report import PARTS, SCHEMA, Settings, add_comparison, measure
from clickmask_export.profiling.subject import How, Subject, open_subject
from clickmask_export.profiling.table import render

SLOWER = 3
"""Exit status where something is slower than the baseline allows."""

_DESCRIPTION = """\
Measure what a person waits for with some bundles, on this machine: cold start, first click, next click in
the same crop, click that moves the crop, undo; at every input size, with the time of each stage and of each
module of the network; clicks at a person's pace; and many sessions at once. Bundles take turns in one
process, so that whatever else the machine does meets all of them."""

_EXAMPLES = """\
examples:
  python export/profile_latency.py default --json out/latency.json --plot out/latency.png
      the bundle that ships, everything: about five minutes on an idle machine of two cores

  python export/profile_latency.py engines/new --baseline engines/old --only clicks --rounds 40
      whether a new bundle is slower; exit status 3 if so

  python export/profile_latency.py default --baseline out/latency.json --only clicks cold_start
      whether this version is slower than the one of an earlier report, on the same idle machine

exit status: 0 done; 1 with one line that says what to do when not; 2 for a wrong command line; 3 where
something is slower than --fail-above allows, with 99 % confidence"""

_QUICK = {"rounds": 2, "starts": 1, "paces": (0.0,), "paced_objects": 1, "paced_clicks": 3, "layer_runs": 1}
_QUICK |= {"sessions": (1, 2), "seconds": 0.2}


def make_parser() -> argparse.ArgumentParser:
    """The options; their help is the command's documentation."""
    usual = Settings()
    parser = argparse.ArgumentParser(
        prog="profile_latency.py",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("bundles", nargs="+", metavar="BUNDLE", help="a bundle's folder; 'default' for the one that ships")
    add("--baseline", metavar="B", help="a bundle to compare with, or the JSON of an earlier run")
    add("--fail-above", type=float, default=1.10, metavar="R", help="ratio of medians allowed (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="where to write everything, samples too")
    add("--plot", type=Path, metavar="FILE", help="where to draw the clicks (.png)")
    add("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    add("--quick", action="store_true", help="a few runs of everything, to see that it works")
    opened = parser.add_argument_group("how bundles are opened (as by Segmenter.load)")
    opened.add_argument("--backend", default="auto")
    opened.add_argument("--device", default="auto")
    opened.add_argument("--threads", type=int, metavar="N")
    opened.add_argument("--pixel-diffusion", default="auto", choices=("auto", "native", "graph"))
    opened.add_argument(
        "--trust-host-code", action="store_true", help="load plans that carry code, too, which runs it"
    )
    counts = parser.add_argument_group("what is measured")
    add = counts.add_argument
    add("--photo", type=Path, metavar="FILE", help="what is clicked on (scikit-image's astronaut)")
    add("--sizes", type=_count, nargs="+", metavar="S", help="input sizes (all of the bundle's)")
    add("--rounds", type=_count, metavar="N", help=f"sessions of six clicks at each size ({usual.rounds})")
    add("--starts", type=_count, metavar="N", help=f"fresh processes ({usual.starts})")
    add("--pace", type=float, nargs="+", metavar="S", help="seconds between a person's clicks (1.0 0.3)")
    add("--paced-objects", type=_count, metavar="N", help=f"that a person cuts out ({usual.paced_objects})")
    add("--sessions", type=_count, nargs="+", metavar="N", help="sessions at once (1 2 4 8 16 32)")
    add("--seconds", type=_duration, metavar="T", help=f"for each number of sessions ({usual.seconds:g})")
    return parser


def _count(text: str) -> int:
    """A number of something to measure: at least one."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = make_parser().parse_args(words)
    try:
        _check(options)
        return _run(options)
    except (BuildError, ClickmaskError, OSError) as exc:
        print(f"profile_latency.py: error: {' '.join(str(exc).split())}", file=sys.stderr)
    except KeyboardInterrupt:
        print("profile_latency.py: stopped", file=sys.stderr)
        return 130
    return 1


def _duration(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError(f"expected seconds above 0 and below 3600, got {text!r}")
    return value


def _check(options: argparse.Namespace) -> None:
    """What would come to nothing after minutes of measuring."""
    parts = options.only or PARTS
    if options.plot and "clicks" not in parts:
        raise BuildError("--plot draws the part 'clicks': name it in --only, or leave --plot out")
    if options.baseline and not set(COMPARED) & set(parts):
        raise BuildError(f"--baseline compares {', '.join(COMPARED)}: name one in --only, or leave it out")
    if options.plot and importlib.util.find_spec("PIL") is None:
        raise BuildError('--plot draws with Pillow: pip install "clickmask[examples]", or leave --plot out')
    for path in (options.json, options.plot):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(path.parent, os.W_OK):
                raise BuildError(f"expected a folder to write in, got {path.parent}: choose another")
    manifests = [bundle_path(name) / MANIFEST_NAME for name in options.bundles]
    check_targets([("--json", options.json), ("--plot", options.plot)], manifests)


def _run(options: argparse.Namespace) -> int:
    earlier = _earlier(options.baseline)
    paths = list(options.bundles)
    if options.baseline and earlier is None:
        paths.append(options.baseline)
    how = How(
        options.backend, options.device, options.threads, options.pixel_diffusion, options.trust_host_code
    )
    with ExitStack() as stack:
        memory = stack.enter_context(GpuMemory())
        subjects: list[Subject] = []
        for path, name in zip(paths, _names(paths), strict=True):
            subjects.append(open_subject(path, how, name, warm=not options.quick))
            stack.enter_context(subjects[-1].segmenter)
        _check_sizes(options, subjects)
        report = measure(subjects, _settings(options), lambda part: print(f"{part} ...", file=sys.stderr))
        report["machine"]["gpu_mb"] = {"before": memory.before, "most": memory.most}
    rows = _compared(report, earlier, options) if options.baseline else []
    if options.baseline:
        add_comparison(report, rows, options.fail_above)
    try:
        if options.json:
            write_whole(options.json, (json.dumps(report, indent=1) + "\n").encode())
    finally:  # a full disk takes no report, a closed pipe no table
        print(render(report))
    if options.plot:
        draw(options.plot, report)
    return SLOWER if any_slower(rows) else 0


def _check_sizes(options: argparse.Namespace, subjects: Sequence[Subject]) -> None:
    known = {size for subject in subjects for size in subject.sizes}
    if unknown := set(options.sizes or ()) - known:
        raise BuildError(f"--sizes: expected some of {sorted(known)}, got {sorted(unknown)} too")
    for subject in subjects:
        if options.sizes and not set(options.sizes) & set(subject.sizes):
            raise BuildError(f"--sizes: expected some of {subject.name}'s {list(subject.sizes)}, got none")


def _settings(options: argparse.Namespace) -> Settings:
    given = {
        "parts": options.only,
        "sizes": options.sizes,
        "photo": options.photo,
        "rounds": options.rounds,
        "starts": options.starts,
        "paces": options.pace,
        "paced_objects": options.paced_objects,
        "sessions": options.sessions,
        "seconds": options.seconds,
    }
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items() if v is not None}
    return Settings(**((_QUICK if options.quick else {}) | given))


def _earlier(baseline: str | None) -> Mapping[str, Any] | None:
    """The report of an earlier run, where the baseline is one."""
    if baseline is None or not baseline.endswith(".json"):
        return None
    try:
        report = json.loads(Path(baseline).read_text())
        schema = report["schema"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise BuildError(f"expected the JSON of an earlier run at {baseline}, got {exc!r}") from exc
    if schema != SCHEMA:
        raise BuildError(f"expected a report of schema {SCHEMA} at {baseline}, got {schema!r}: run it again")
    return report


def _compared(
    report: Mapping[str, Any], earlier: Mapping[str, Any] | None, options: argparse.Namespace
) -> list[Comparison]:
    if earlier is None:
        *bundles, baseline = report["bundles"]
        rows = [
            row
            for bundle in bundles
            for row in compare(bundle, baseline, options.fail_above, interleaved=True)
        ]
        if not rows:
            raise BuildError(f"{options.baseline} has nothing in common with what was measured")
        return rows
    for what, key in (("processor", "cpu"), ("graphics card", "gpus")):
        if earlier["machine"][key] != report["machine"][key]:
            print(f"warning: the earlier run is of another {what}", file=sys.stderr)
    before = {bundle["name"]: bundle for bundle in earlier["bundles"]}
    if len(report["bundles"]) == len(before) == 1:  # whatever it was called
        before = {report["bundles"][0]["name"]: earlier["bundles"][0]}
    rows = []
    for bundle in report["bundles"]:
        if bundle["name"] in before:
            old = before[bundle["name"]]
            rows += compare(bundle, old, options.fail_above, interleaved=False)
    if not rows:
        raise BuildError(f"{options.baseline} has nothing that was measured now: expected the same bundles")
    return rows


def _names(paths: Sequence[str]) -> list[str]:
    """Folders' names, with their places where two have the same."""
    short = [Path(path).name for path in paths]
    return [name if short.count(name) == 1 else f"{name} #{place + 1}" for place, name in enumerate(short)]
