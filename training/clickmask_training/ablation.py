"""``python -m clickmask_training.ablation``: what each part of the papers' methods is worth, with intervals.

``run-time`` varies Pixel Diffusion on a bundle's weights. ``training`` trains arms of equal budget (a TOML
file names them), stops and goes on as one likes, and sets them side by side. Each writes its own section of
the page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from clickmask import Segmenter
from clickmask.bundle import bundle_path
from clickmask.errors import ClickmaskError
from clickmask.evaluation.datasets import detect, read_dataset
from clickmask.evaluation.methods import BundleMethod
from clickmask.evaluation.work import Objects
from clickmask.whole_files import write_whole
from clickmask_models.checkpoint_files import CheckpointError
from clickmask_training.ablation_arms import TrainedArm, read_ablation, train_arm
from clickmask_training.ablation_diffusion import published, variants
from clickmask_training.arms import Study, data_lines, table
from clickmask_training.checks import ConfigError, number

_TITLE = "# Ablation"
_CLICKS, _UNTIL = 20, 0.95
_FIGURES = ("NoC@0.90", "NoC@0.95")
_RUN_TIME, _TRAINING = "## Pixel Diffusion at run time", "## Training"
_READ_AS = (
    "Differences to the first row with their 95 % interval (paired bootstrap over images; bold where it",
    "leaves out 0). `papers`: NoC@90 on DAVIS in the papers' own tables, of other networks and data: compare",
    "signs.",
)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = _parser().parse_args(arguments)
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    try:
        options.run(options)
    except (ClickmaskError, CheckpointError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run_time(options: argparse.Namespace) -> None:
    path = bundle_path(options.bundle)
    with Segmenter.load(path, device="cpu", threads=1) as segmenter:
        manifest, backend = segmenter.bundle.manifest, segmenter.backend.name
    arms = variants(BundleMethod(manifest.name, path, backend, "cpu", threads=1))
    runs = Study(arms, _benchmarks(options), _CLICKS, _UNTIL).run(options.json)
    lines = [
        f"`{manifest.name}`, checkpoint sha256 `{manifest.source.sha256[:16]}`; only the settings of Pixel",
        f"Diffusion differ (CDNet, Tables 6 and 7). At most {_CLICKS} clicks, each object until IoU",
        f"{_UNTIL:.2f}; written by `python -m clickmask_training.ablation run-time`.",
        *_READ_AS,
        "",
        *data_lines(runs),
        "",
        *table(runs, _FIGURES, published(arms)),
    ]
    _write(options.markdown, _RUN_TIME, lines)


def _training(options: argparse.Namespace) -> None:
    number("--steps", options.steps, "a positive number", 1, whole=True)
    ablation = read_ablation(options.config)
    folders = {name: options.output / _folder(name) for name in ablation.arms}
    for name, arm in ablation.arms.items():
        if not arm.weights_of:
            print(f"arm {name}: {folders[name]}", flush=True)
            train_arm(ablation, name, folders[name], options.backbone, options.data, options.steps)
    arms = []
    for name, arm in ablation.arms.items():
        source = arm.weights_of or name
        arms.append(TrainedArm(name, folders[source], arm, ablation.config(source), options.steps))
    runs = Study(arms, _benchmarks(options), _CLICKS, _UNTIL).run(options.output / "report.json")
    lines = [
        f"Arms of `{options.config.name}`: {options.steps} steps each from the same backbone, with one seed",
        "and the same batches, so that the intervals know of the images and not of the chance of training.",
        f"At most {_CLICKS} clicks, each object until IoU {_UNTIL:.2f}; written by",
        "`python -m clickmask_training.ablation training`.",
        *_READ_AS,
        "",
        *data_lines(runs),
        "",
        *table(runs, _FIGURES, {name: arm.papers for name, arm in ablation.arms.items()}),
    ]
    _write(options.markdown, _TRAINING, lines)


def _benchmarks(options: argparse.Namespace) -> list[Objects]:
    roots = {name: options.root / name for name in options.dataset}
    return [
        Objects.of(name, detect(root)[0], read_dataset(root)[: options.objects])
        for name, root in roots.items()
    ]


def _folder(name: str) -> str:
    """An arm's name as that of a folder."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _write(path: Path | None, heading: str, lines: Sequence[str]) -> None:
    """Prints a section and puts it into the page, in the place of the one with its heading."""
    section = "\n".join([heading, "", *lines])
    print(section)
    if path is None:
        return
    old = path.read_text(encoding="utf-8") if path.exists() else _TITLE
    parts = old.strip().split("\n## ")
    sections = {"## " + part.partition("\n")[0]: "## " + part.strip() for part in parts[1:]}
    sections[heading] = section
    write_whole(path, ("\n\n".join([parts[0].strip(), *sections.values()]) + "\n").encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m clickmask_training.ablation", description=__doc__)
    parts = parser.add_subparsers(required=True, metavar="PART")
    run_time = parts.add_parser("run-time", help="Pixel Diffusion's amplitude and iterations")
    run_time.add_argument(
        "bundle", metavar="BUNDLE", help="a bundle's folder; 'default' for the one that ships"
    )
    run_time.add_argument("--json", type=Path, help="the report; an unfinished one is gone on with")
    run_time.set_defaults(run=_run_time)
    training = parts.add_parser("training", help="arms of equal budget; the same command goes on")
    add = training.add_argument
    add("--config", type=Path, required=True, help="the arms, such as training/ablation.toml")
    add("--data", type=Path, required=True, help="folder of the training data sets")
    add("--backbone", type=Path, help="pretrained weights of the backbone (default: random ones)")
    add("--output", type=Path, required=True, help="folder of the arms' runs and of the report")
    add("--steps", type=int, required=True, help="of every arm")
    training.set_defaults(run=_training)
    for part in (run_time, training):
        add = part.add_argument
        add("--root", type=Path, required=True, help="folder of the benchmarks")
        add("--dataset", required=True, nargs="+", metavar="NAME", help="folders below --root")
        add("--objects", type=int, help="at most this many of each, for a quick look")
        add("--markdown", type=Path, help="page whose section is written anew")
    return parser


if __name__ == "__main__":
    sys.exit(main())
