"""``python -m clickmask_training.ablation``: what each part of the papers' methods is worth, with intervals.

``run-time`` varies Pixel Diffusion on a bundle's weights. ``training`` trains arms of equal budget (a TOML
file names them), stops and goes on as one likes, and sets them side by side. Each writes its own section of
the page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from clickmask.evaluation.datasets import detect, read_dataset
from clickmask.evaluation.methods import Method
from clickmask.evaluation.report import Run
from clickmask.evaluation.work import Objects
from clickmask.whole_files import write_whole
from clickmask_training.ablation_arms import read_ablation
from clickmask_training.ablation_diffusion import published, variants
from clickmask_training.ablation_training import TrainedArm, train_arm
from clickmask_training.arms import Study, data_lines, table
from clickmask_training.checks import number
from clickmask_training.command import add_bundle, check_output, open_bundle, run_command

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
    return run_command(options)


def _run_time(options: argparse.Namespace) -> None:
    bundle, manifest = open_bundle(options)
    arms = variants(bundle)
    study = Study(arms, _benchmarks(options), _CLICKS, _UNTIL)
    for runs in study.run(options.json):
        lines = [
            f"`{manifest.name}`, checkpoint sha256 `{manifest.source.sha256[:16]}`; only the settings of",
            f"Pixel Diffusion differ (CDNet, Tables 6 and 7). At most {_CLICKS} clicks, each object until",
            f"IoU {_UNTIL:.2f}; written by `python -m clickmask_training.ablation run-time`.",
            *_rows(study, runs, published(arms)),
        ]
        _write(options.markdown, _RUN_TIME, lines)
    print("\n".join(lines))


def _training(options: argparse.Namespace) -> None:
    number("--steps", options.steps, "a positive number", 1, whole=True)
    check_output("--markdown", options.markdown)
    ablation = read_ablation(options.config)
    folders = {name: options.output / _folder(name) for name in ablation.arms}
    arms = []
    for name, arm in ablation.arms.items():
        source = arm.weights_of or name
        arms.append(TrainedArm(name, folders[source], arm, ablation.config(source), options.steps))

    def train(method: Method) -> None:
        source = ablation.arms[method.name].weights_of or method.name
        print(f"arm {method.name}: {folders[source]}", flush=True)
        train_arm(ablation, source, folders[source], options.backbone, options.data, options.steps)

    study = Study(arms, _benchmarks(options), _CLICKS, _UNTIL)
    for runs in study.run(options.output / "report.json", train):
        lines = [
            f"Arms of `{options.config.name}`: {options.steps} steps each from the same backbone, with one",
            "seed and the same batches, so that the intervals know of the images and not of the chance of",
            f"training. At most {_CLICKS} clicks, each object until IoU {_UNTIL:.2f}; written by",
            "`python -m clickmask_training.ablation training`.",
            *_rows(study, runs, {name: arm.papers for name, arm in ablation.arms.items()}),
        ]
        _write(options.markdown, _TRAINING, lines)
    print("\n".join(lines))


def _rows(study: Study, runs: Sequence[Sequence[Run]], papers: Mapping[str, str]) -> list[str]:
    """What all sections have: how to read it, what is missing, the data and the table."""
    parts = [*_READ_AS, ""], study.missing(runs), [*data_lines(runs), ""], table(runs, _FIGURES, papers)
    return [line for part in parts for line in part]


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
    """Puts a section into the page, in the place of the one with its heading."""
    if path is None:
        return
    section = "\n".join([heading, "", *lines])
    old = path.read_text(encoding="utf-8") if path.exists() else _TITLE
    parts = old.strip().split("\n## ")
    sections = {"## " + part.partition("\n")[0]: "## " + part.strip() for part in parts[1:]}
    sections[heading] = section
    write_whole(path, ("\n\n".join([parts[0].strip(), *sections.values()]) + "\n").encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m clickmask_training.ablation", description=__doc__)
    parts = parser.add_subparsers(required=True, metavar="PART")
    run_time = parts.add_parser("run-time", help="Pixel Diffusion's amplitude and iterations")
    add_bundle(run_time)
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
