"""``python -m clickmask_training.benchmark_crops``: what crop policies cost, in clicks and in waits.

A policy is chosen on held-out objects of training images (``--data``); what it does on a benchmark
(``--root``, ``--dataset``) is measured afterwards. The robot annotates the same objects by every policy; how
often the encoder runs, and how often a person would wait for it, is counted in the same runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from clickmask.errors import InvalidInputError
from clickmask.evaluation.compare import compare_runs
from clickmask.evaluation.datasets import read_dataset
from clickmask.evaluation.metrics import GOOD, clicks_to
from clickmask.evaluation.pools import Task
from clickmask.evaluation.report import Run, resume
from clickmask.evaluation.work import Objects, finish, planned
from clickmask.manifest import Manifest
from clickmask.whole_files import write_whole
from clickmask_training.arms import data_lines
from clickmask_training.command import add_bundle, open_bundle, run_command
from clickmask_training.crop_arms import POLICIES, Encodes, annotated, policy_arms
from clickmask_training.size_objects import held_out_objects

PAUSES = (0.3, 1.0)
"""Seconds between clicks for which the page tells how many clicks find their crop encoded."""

_CLICKS = 20
_TEXT = f"""\
`paper`, `fbrs` and `stable` have the bundle's least sides of a crop, all else is that of `CropPolicy.named`;
`stable_once` never looks closely at a click, `stable_closely` at each from the second on.
*Difference* is that of NoC@90 from the first row, with its 95 % interval (paired bootstrap over images; bold
where it leaves out 0). *Moves* is the share of clicks that look at a crop not seen before in their session,
the first click included: in all clicks, and in those up to an IoU of {GOOD:.2f}. *Ready* is the share of
clicks that find their crop encoded, where clicks are so many seconds apart. It is simulated: after each
click the background thread gets the time that it wants, of which that until the next click's crop is there
is compared with the pause. *Ahead* is how often that thread runs the encoder for each click, used or not,
*ms* the median of its time.
""".splitlines()


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return run_command(_parser().parse_args(arguments))


def _run(options: argparse.Namespace) -> None:
    bundle, manifest = open_bundle(options)
    arms = policy_arms(options.policy, replace(bundle, threads=options.threads), manifest.crop)
    data = list(_objects(options))
    work = [(objects, arm) for objects in data for arm in arms]
    tasks = [Task(arm, _CLICKS) for _, arm in work]
    runs = [planned(of, task) | {"encodes": []} for (of, _), task in zip(work, tasks, strict=True)]
    if options.json and options.json.exists():
        resume(options.json, runs)
    for run, (objects, arm) in zip(runs, work, strict=True):
        done = len(run["curves"])
        del run["encodes"][done:]  # of an object that was stopped in
        if not run["complete"]:
            curves = annotated(arm, objects.samples[done:], _CLICKS, run["encodes"])
            finish(run, runs, curves, options.json)
        text = _page(runs, manifest)
        if options.markdown:
            write_whole(options.markdown, text.encode())
    print(text, end="")


def _objects(options: argparse.Namespace) -> Iterator[Objects]:
    """What the policies are compared on: held-out objects, and the benchmarks together."""
    if options.data is None and not options.dataset:
        raise InvalidInputError("expected --data, or --root and --dataset: what to compare on; got neither")
    if options.mirrored and options.data is None:
        raise InvalidInputError("--mirrored: expected --data, whose held-out objects are mirrored; got none")
    if options.dataset and options.root is None:
        raise InvalidInputError("--dataset: expected --root, the folder that they lie in; got none")
    if options.data is not None:
        yield held_out_objects(options.data, options.objects, mirrored=options.mirrored)
    if options.dataset:
        samples = [
            replace(sample, name=f"{name}/{sample.name}")
            for name in options.dataset
            for sample in read_dataset(options.root / name)[: options.objects]
        ]
        yield Objects.of(", ".join(options.dataset), "by what lies in them", samples)


def _page(runs: Sequence[Run], manifest: Manifest) -> str:
    hosts = [host for run in runs for host in run["hosts"]]
    where = {f"{host['machine']}, threads: {host['threads'] or 'all'}" for host in hosts}
    lines = [
        "# Crop policies",
        "",
        f"`{manifest.name}`, checkpoint sha256 `{manifest.source.sha256[:16]}`; {'; '.join(sorted(where))}.",
        "Written by `python -m clickmask_training.benchmark_crops`. Robot annotator through the Session API,",
        f"{_CLICKS} clicks for each object.",
        "",
        *_TEXT,
    ]
    left = [f"`{run['settings']['method']}`" for run in runs if not run["complete"]]
    if left:
        lines += ["", f"**Incomplete**: the same command goes on with {', '.join(left)}."]
    for name in dict.fromkeys(run["settings"]["dataset"] for run in runs):
        done = [run for run in runs if run["complete"] and run["settings"]["dataset"] == name]
        if done:
            lines += ["", f"## {name}", "", *data_lines([done[:1]]), "", *_table(done)]
    return "\n".join(lines) + "\n"


def _table(runs: Sequence[Run]) -> Iterator[str]:
    heads = ["policy", "NoC@80", "NoC@85", "NoC@90", "difference", "mIoU@5", "moves", f"until {GOOD:.2f}"]
    heads += [*(f"ready, {pause:g} s" for pause in PAUSES), "ahead", "ms"]
    yield f"| {' | '.join(heads)} |"
    yield f"|---|{'--:|' * (len(heads) - 1)}"
    for run in runs:
        yield f"| `{run['settings']['method']}` | {' | '.join(_cells(run, runs[0]))} |"


def _cells(run: Run, first: Run) -> Iterator[str]:
    figures = compare_runs(first, run)["differences"]
    yield from (f"{figures[f'NoC@{threshold}']['b']:.2f}" for threshold in ("0.80", "0.85", "0.90"))
    low, high = figures["NoC@0.90"]["interval"]
    difference = f"{figures['NoC@0.90']['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"
    yield "" if run is first else f"**{difference}**" if low > 0 or high < 0 else difference
    yield f"{figures['mIoU@5']['b']:.3f}"
    sessions = [[Encodes(*click) for click in session] for session in run["encodes"]]
    needed = [
        click
        for session, curve in zip(sessions, run["curves"], strict=True)
        for click in session[: clicks_to(curve["ious"], GOOD, _CLICKS)]
    ]
    clicks = [click for session in sessions for click in session]
    ahead = [seconds for click in clicks for seconds in click.ahead]
    yield from (f"{np.mean([click.moved for click in some]):.1%}" for some in (clicks, needed))
    yield from (f"{np.mean([click.ready(pause) for click in clicks]):.1%}" for pause in PAUSES)
    yield f"{len(ahead) / len(clicks):.2f}"
    yield f"{1000 * np.median(ahead):.0f}" if ahead else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clickmask_training.benchmark_crops",
        description="Compares the crop policies with the robot annotator, on training objects or benchmarks.",
    )
    add_bundle(parser)
    add = parser.add_argument
    add("--data", type=Path, help="folder of the training data sets, for their held-out objects")
    add("--mirrored", action="store_true", help="--data: each object a second time, left and right exchanged")
    add("--root", type=Path, help="folder of the benchmarks")
    add("--dataset", nargs="+", default=[], metavar="NAME", help="folders below --root, such as berkeley")
    add("--objects", type=int, help="at most this many objects of each data set, for a quick look")
    add("--policy", nargs="+", choices=POLICIES, default=POLICIES, help="which to compare (default: all)")
    add("--threads", type=int, help="threads of the runtime (default: all cores)")
    add("--markdown", type=Path, help="write the page to this file")
    parser.set_defaults(run=_run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
