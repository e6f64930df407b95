"""``clickmask evaluate``: the robot annotator's figures for a bundle."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from clickmask import Segmenter
from clickmask.bundle import MANIFEST_NAME, bundle_path, read_manifest_file
from clickmask.crop import CropKind
from clickmask.errors import InvalidInputError
from clickmask.evaluation.anchors import ANCHORS
from clickmask.evaluation.datasets import LAYOUTS, detect, read_dataset
from clickmask.evaluation.methods import BundleMethod, Method
from clickmask.evaluation.metrics import GOOD
from clickmask.evaluation.pools import Task, here, in_processes, on_ray
from clickmask.evaluation.report import Run, resume
from clickmask.evaluation.run import Curve
from clickmask.evaluation.samples import Sample, check_truths
from clickmask.evaluation.tables import markdown, table
from clickmask.evaluation.work import Objects, finish, planned
from clickmask.picture_files import check_target
from clickmask.whole_files import check_targets, write_whole

_PUBLIC_SIZE, _PUBLIC_SIZE_DAVIS = 400, 600  # long side of a crop in the code of f-BRS and RITM


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``clickmask evaluate``."""
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", help="a bundle's folder; 'default' for the one that ships with clickmask")
    add("--root", type=Path, required=True, help="folder that holds the data-set folders")
    add("--dataset", required=True, nargs="+", metavar="NAME", help="folders below --root, such as berkeley")
    add("--layout", choices=LAYOUTS, help="how they are laid out (default: by what lies in them)")
    add("--split", help="SBD, VOC: which list (default val); COCO: which file (default val2017)")
    add("--clicks", type=int, default=20, help="limit of clicks per object, such as 20 (default) or 100")
    add(
        "--until", type=float, metavar="IOU", help="stop an object at this IoU, 0.90 to 1: quicker, no mIoU@k"
    )
    add("--anchor", nargs="+", default=[], choices=sorted(ANCHORS), help="also run these classical methods")
    add("--json", type=Path, help="the report, with every curve; an unfinished one is gone on with")
    add("--markdown", type=Path, help="write the figures as a Markdown table to this file")
    add("--plot", type=Path, metavar="OUT.png", help="draw the curves, and the hardest objects of each set")
    add("--anchor-on", nargs="+", metavar="NAME", help="run those on these data sets only")
    add(
        "--protocol-size",
        action="store_true",
        help="also run the bundle with one size for every click, the nearest to the public code's: 400, and "
        "600 on DAVIS",
    )
    add("--backend", default="auto", help="backend (default: the bundle's best here)")
    add("--device", default="auto", help="device: auto, cpu or cuda")
    add("--threads", type=int, help="threads of the runtime (default: all cores, shared by the workers)")
    add("--crop-policy", choices=get_args(CropKind), help="instead of the bundle's own")
    add("--size", type=int, help="one of the bundle's input sizes, for every click")
    add("--workers", type=int, help="processes on this machine (default 1), or actors of --ray")
    add("--ray", nargs="?", const="", metavar="ADDRESS", help="work on a Ray cluster, by default a local one")


def run(options: argparse.Namespace) -> int:
    """Evaluates on each data set and prints the figures."""
    _check(options)
    datasets = [_read_dataset(name, options) for name in options.dataset]
    bundle = _bundle_method(options)
    check_targets(_targets(options), _inputs(datasets, bundle))
    work = [
        (dataset, Task(method, options.clicks, options.until))
        for dataset in datasets
        for method in _methods(bundle, dataset.name, options)
    ]
    # None: as many as the cluster has room for
    workers = options.workers or (1 if options.ray is None else None)
    runs = [planned(dataset, task, workers) for dataset, task in work]
    if options.json and options.json.exists():
        resume(options.json, runs)
    for current, (dataset, task) in zip(runs, work, strict=True):
        if not current["complete"]:
            left = dataset.samples[len(current["curves"]) :]
            finish(current, runs, _curves(task, left, options), options.json)
        print(table(current), flush=True)
    if options.markdown:
        write_whole(options.markdown, markdown(runs).encode())
    if options.plot:
        _plot(options.plot, runs, datasets, bundle.name)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuses what could not work or be written in the end, before the work."""
    for name in ("clicks", "workers", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InvalidInputError(f"--{name}: expected at least 1, got {value}")
    if options.until is not None and not GOOD <= options.until <= 1:
        raise InvalidInputError(f"--until: expected an IoU of {GOOD:.2f} to 1, got {options.until}")
    if len({os.path.normpath(name) for name in options.dataset}) < len(options.dataset):
        raise InvalidInputError(f"--dataset: expected each name once, got {' '.join(options.dataset)}")
    for name in options.anchor_on or ():
        if name not in options.dataset:
            raise InvalidInputError(f"--anchor-on: expected one of {' '.join(options.dataset)}, got {name}")
    if options.protocol_size and options.size is not None:
        raise InvalidInputError("--protocol-size: expected no --size beside it, got both")
    if options.plot is not None:
        try:
            check_target(options.plot, colour=True)
        except InvalidInputError as error:
            raise InvalidInputError(f"--plot: {error}") from error
    check_targets(_targets(options))


def _targets(options: argparse.Namespace) -> list[tuple[str, Path | None]]:
    """Every file that the command writes, with its option."""
    targets = [(f"--{name}", getattr(options, name)) for name in ("json", "markdown", "plot")]
    if options.plot is not None:
        targets += [("--plot", _sheet(options.plot, name)) for name in options.dataset]
    return targets


def _sheet(plot: Path, dataset: str) -> Path:
    """Where a data set's hardest objects are drawn."""
    return plot.with_name(f"{plot.stem}-hardest-{dataset.replace('/', '-')}{plot.suffix}")


def _inputs(datasets: Sequence[Objects], bundle: BundleMethod) -> set[Path]:
    """The files of the objects and of the bundle."""
    samples = [sample for dataset in datasets for sample in dataset.samples]
    files = {file.path for item in read_manifest_file(bundle.path).artefacts for file in item.all_files}
    masks = {path for sample in samples if (path := getattr(sample.source, "path", None))}
    return masks | {s.image_path for s in samples} | {bundle.path / name for name in (MANIFEST_NAME, *files)}


def _read_dataset(name: str, options: argparse.Namespace) -> Objects:
    root = options.root / name
    samples = read_dataset(root, options.layout, options.split)
    check_truths(samples, root)
    layout = options.layout or detect(root)[0]
    return Objects.of(name, f"{layout} {options.split}" if options.split else layout, samples)


def _bundle_method(options: argparse.Namespace) -> BundleMethod:
    """The bundle on the backend that opens here, once it is known to take the options."""
    path, threads, trust = bundle_path(options.bundle), _threads(options), options.trust_host_code
    with Segmenter.load(path, options.backend, options.device, threads, trust_host_code=trust) as segmenter:
        manifest, backend = segmenter.bundle.manifest, segmenter.backend
        if options.clicks > manifest.input.max_clicks:
            raise InvalidInputError(
                f"--clicks: expected at most the {manifest.input.max_clicks} that the bundle takes, got "
                f"{options.clicks}; export it again with room for more"
            )
        how = (options.crop_policy, options.size)
        segmenter.session(np.zeros((8, 8, 3), np.uint8), *how)  # refuses what the bundle does not offer
        where = (segmenter.bundle.path, backend.name, backend.device, threads)
        return BundleMethod(manifest.name, *where, *how, trust_host_code=trust)


def _methods(bundle: BundleMethod, dataset: str, options: argparse.Namespace) -> list[Method]:
    """What is run on a data set, the bundle first."""
    methods: list[Method] = [bundle]
    if options.protocol_size:
        methods.append(_at_protocol_size(bundle, dataset))
    if options.anchor_on is None or dataset in options.anchor_on:
        methods += [ANCHORS[name] for name in dict.fromkeys(options.anchor)]
    return methods


def _at_protocol_size(bundle: BundleMethod, dataset: str) -> BundleMethod:
    """The bundle with the one of its sizes that is nearest to the public code's."""
    public = _PUBLIC_SIZE_DAVIS if "davis" in dataset.lower() else _PUBLIC_SIZE
    sizes = read_manifest_file(bundle.path).input.sizes
    size = min(sizes, key=lambda size: (abs(size - public), size))
    return replace(bundle, name=f"{bundle.name}, all at {size}", size=size)


def _threads(options: argparse.Namespace) -> int | None:
    """Threads of one worker's runtime; None for all."""
    if options.threads is not None:
        return int(options.threads)
    if options.ray is not None:
        return 1  # an actor's share, by Ray's own default
    workers = options.workers or 1
    return max(1, (os.cpu_count() or 1) // workers) if workers > 1 else None


def _curves(task: Task, samples: Sequence[Sample], options: argparse.Namespace) -> Iterator[Curve]:
    """The curves of samples, in their order, from where the options say."""
    if options.ray is not None:
        return on_ray(task, samples, options.workers, options.ray or None)
    if (options.workers or 1) > 1:
        return in_processes(task, samples, options.workers)
    return here(task, samples)


def _plot(target: Path, runs: Sequence[Run], datasets: Sequence[Objects], name: str) -> None:
    from clickmask.evaluation.charts import draw_curves
    from clickmask.evaluation.sheet import draw_sheet

    draw_curves(target, runs)
    samples = {dataset.name: dataset.samples for dataset in datasets}
    for current in runs:
        dataset = current["settings"]["dataset"]
        if current["settings"]["method"] == name:  # an anchor's hardest objects teach nothing
            draw_sheet(_sheet(target, dataset), current, samples[dataset])
