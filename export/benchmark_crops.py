"""Compares the crop policies with the robot annotator: ``python export/benchmark_crops.py --help``.

Every policy gets the same objects. How often the encoder runs, and how often a person would wait for it, is
counted in the same runs.
"""

from __future__ import annotations

import argparse
import platform
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "sdk"))  # a clone works without being installed

from clickmask import Segmenter  # noqa: E402
from clickmask.bundle import bundle_path  # noqa: E402
from clickmask.crop import CropPolicy  # noqa: E402
from clickmask.evaluation.datasets import LAYOUTS, read_dataset  # noqa: E402
from clickmask.evaluation.metrics import GOOD, clicks_to, mean_iou_at, noc  # noqa: E402
from clickmask.evaluation.run import annotate  # noqa: E402
from clickmask.evaluation.samples import Sample  # noqa: E402
from clickmask.session import Session  # noqa: E402
from clickmask.view import Box  # noqa: E402
from clickmask.whole_files import write_whole  # noqa: E402

POLICIES = ("none", "paper", "fbrs", "stable", "global_to_local")
PAUSES = (0.3, 1.0)
"""Seconds between clicks for which the page tells how many clicks find their crop encoded."""

_REFERENCE = "fbrs"
_TEXT = """\
# Crop policies

{objects} objects ({datasets}), robot annotator, {clicks} clicks each; bundle `{bundle}` on
{backend}, {threads} thread(s), {machine}. Written by
`{command}`.

`paper` and `fbrs` have the bundle's numbers for the crop, the others those of `CropPolicy.named`.
*Difference* is that of NoC@90 from `{reference}`, with its standard error over the objects. *Moves* is the
share of clicks that look at a crop not seen before in their session, the first click included: in all clicks,
and in those up to an IoU of {good}. *Ready* is the share of clicks that find their crop encoded, where clicks
are so many seconds apart. It is simulated: after each click the background thread gets the time that it
wants, and that time is compared with the pause. *Ahead* is how often that thread runs the encoder for each
click, used or not, *ms* the median of its time.

| policy | NoC@80 | NoC@85 | NoC@90 | difference | mIoU@5 | moves | until {good} | {pauses} | ahead | ms |
|---|--:|--:|--:|--:|--:|--:|--:|{rules}--:|--:|
{rows}
"""


class _Click(NamedTuple):
    """moved: to a crop not seen before; waited: it encoded; ahead: seconds of each encode before it."""

    moved: bool
    waited: bool
    ahead: list[float]

    def ready(self, pause: float) -> bool:
        """Whether the crop is encoded so many seconds after the click before."""
        return not self.waited and not (self.moved and sum(self.ahead) > pause)


@dataclass
class _Stopwatch:
    """In the place of a backend's ``encode``: seconds of each call, by the thread that made it."""

    encode: Any
    clicking: list[float] = field(default_factory=list)
    ahead: list[float] = field(default_factory=list)

    def __call__(self, image: NDArray[np.float32], local: bool = False) -> Any:
        began = time.perf_counter()
        features = self.encode(image, local=local)
        mine = threading.current_thread() is threading.main_thread()
        (self.clicking if mine else self.ahead).append(time.perf_counter() - began)
        return features

    def read(self) -> tuple[list[float], list[float]]:
        """What it has, from the clicking thread and from the other; it starts anew."""
        seconds, self.clicking, self.ahead = (self.clicking, self.ahead), [], []
        return seconds


@dataclass
class _Patient:
    """A session whose clicks come when everything that can be encoded ahead is."""

    session: Session
    segmenter: Segmenter
    watch: _Stopwatch
    seen: set[Box | None] = field(default_factory=set)
    clicks: list[_Click] = field(default_factory=list)

    def click(self, x: float, y: float, positive: bool = True) -> NDArray[np.bool_]:
        self.segmenter.prefetcher.settle()
        _, ahead = self.watch.read()
        mask = self.session.click(x, y, positive)
        self.clicks.append(_Click(self.session.crop not in self.seen, bool(self.watch.clicking), ahead))
        self.seen.add(self.session.crop)
        return mask


@dataclass
class _Patients:
    """Begins sessions under one policy, and keeps them."""

    segmenter: Segmenter
    watch: _Stopwatch
    policy: CropPolicy
    sessions: list[list[_Click]] = field(default_factory=list)

    def session(self, image: NDArray[np.uint8]) -> _Patient:
        self.segmenter.prefetcher.settle()
        self.watch.read()  # what the session before had encoded in vain
        patient = _Patient(self.segmenter.session(image, self.policy), self.segmenter, self.watch)
        self.sessions.append(patient.clicks)
        return patient


class _Result(NamedTuple):
    """Of each object: IoU after each click, and the clicks."""

    curves: list[tuple[float, ...]]
    sessions: list[list[_Click]]


def main() -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args()
    samples = [s for name in options.dataset for s in _samples(options, name)]
    with Segmenter.load(bundle_path(options.bundle), threads=options.threads) as segmenter:
        watch = _Stopwatch(segmenter.backend.encode)
        segmenter.backend.encode = watch  # type: ignore[method-assign]
        results = {}
        for name in dict.fromkeys((_REFERENCE, *options.policy)):
            policy = _policy(name, segmenter.bundle.manifest.crop)
            results[name] = _measure(_Patients(segmenter, watch, policy), samples, options.clicks)
            print(_row(name, results[name], results[_REFERENCE], options.clicks), flush=True)
        page = _page(results, segmenter, options, len(samples))
    if options.markdown:
        write_whole(options.markdown, page.encode())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compare the crop policies with the robot annotator.")
    add = parser.add_argument
    add("--bundle", default="default", help="a bundle's folder (default: the one that ships)")
    add("--root", type=Path, required=True, help="folder that holds the data-set folders")
    add("--dataset", required=True, nargs="+", metavar="NAME", help="folders below --root, such as berkeley")
    add("--layout", choices=LAYOUTS, help="how they are laid out (default: by what lies in them)")
    add("--objects", type=int, help="so many of each data set, drawn with a fixed seed (default: all)")
    add("--policy", nargs="+", choices=POLICIES, default=POLICIES, help="which to compare (default: all)")
    add("--clicks", type=int, default=20, help="clicks for each object (default 20)")
    add("--threads", type=int, help="threads of the runtime (default: all cores)")
    add("--markdown", type=Path, help="write the page to this file")
    return parser


def _samples(options: argparse.Namespace, name: str) -> list[Sample]:
    samples = read_dataset(options.root / name, options.layout)
    if options.objects is None:
        return samples
    drawn = np.random.default_rng(0).permutation(len(samples))[: options.objects]
    return [samples[index] for index in sorted(drawn)]


def _policy(name: str, own: CropPolicy) -> CropPolicy:
    return replace(own, kind=name) if name in ("paper", "fbrs") else CropPolicy.named(name)


def _measure(patients: _Patients, samples: Sequence[Sample], clicks: int) -> _Result:
    curves = [annotate(patients, sample, clicks).ious for sample in samples]
    return _Result(curves, patients.sessions)


def _page(
    results: dict[str, _Result], segmenter: Segmenter, options: argparse.Namespace, objects: int
) -> str:
    rows = [_row(name, result, results[_REFERENCE], options.clicks) for name, result in results.items()]
    some = "" if options.objects is None else f", {options.objects} of each"
    return _TEXT.format(
        objects=objects,
        datasets=", ".join(options.dataset) + some,
        clicks=options.clicks,
        bundle=segmenter.bundle.manifest.name,
        backend=f"{segmenter.backend.name} ({segmenter.backend.device})",
        threads=options.threads or "all",
        machine=platform.machine(),
        command=" ".join(["python export/benchmark_crops.py", *sys.argv[1:]]),
        reference=_REFERENCE,
        good=f"{GOOD:.2f}",
        pauses=" | ".join(f"ready, {pause:g} s" for pause in PAUSES),
        rules="--:|" * len(PAUSES),
        rows="\n".join(rows),
    )


def _row(name: str, result: _Result, reference: _Result, limit: int) -> str:
    found, others = ([clicks_to(c, GOOD, limit) for c in r.curves] for r in (result, reference))
    difference = np.subtract(found, others)
    error = difference.std() / len(difference) ** 0.5
    everything = [click for session in result.sessions for click in session]
    needed = [click for session, n in zip(result.sessions, found, strict=True) for click in session[:n]]
    ahead = [seconds for click in everything for seconds in click.ahead]
    cells = [
        f"`{name}`",
        *(f"{noc(result.curves, threshold, limit):.2f}" for threshold in (0.80, 0.85, 0.90)),
        "" if result is reference else f"{difference.mean():+.2f} ± {error:.2f}",
        f"{mean_iou_at(result.curves, 5):.3f}",
        *(f"{np.mean([click.moved for click in clicks]):.1%}" for clicks in (everything, needed)),
        *(f"{np.mean([click.ready(pause) for click in everything]):.1%}" for pause in PAUSES),
        f"{len(ahead) / len(everything):.2f}",
        f"{1000 * np.median(ahead):.0f}" if ahead else "",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
