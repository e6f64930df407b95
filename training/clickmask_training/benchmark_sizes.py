"""``python -m clickmask_training.benchmark_sizes``: which network input size suits which view.

A bundle with several input sizes chooses one for each view by the view's native long side
(``clickmask.view.choose_size``). Here the robot annotates the same objects by other rules. The objects are of
training images, most of them held out of training: a rule is not chosen on a benchmark.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clickmask.whole_files import write_whole
from clickmask_training.arms import Study, data_lines, table
from clickmask_training.command import add_bundle, open_bundle, run_command
from clickmask_training.size_objects import study_objects
from clickmask_training.size_rules import rules

_CLICKS = 10  # all of them for every object: what comes after IoU 0.90 tells rules apart too
_FIGURES = ("mIoU@1", "mIoU@5", "F@5", "NoC@0.85", "NoC@0.90")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return run_command(_parser().parse_args(arguments))


def _run(options: argparse.Namespace) -> None:
    bundle, manifest = open_bundle(options)
    sizes = manifest.input.sizes
    study = Study(rules(bundle, sizes), study_objects(options.data, options.objects), _CLICKS)
    for runs in study.run(options.json):
        lines = [
            "# Input size by view",
            "",
            f"`{manifest.name}`, checkpoint sha256 `{manifest.source.sha256[:16]}`, sizes",
            f"{', '.join(map(str, sizes))}. Written by `python -m clickmask_training.benchmark_sizes`. Robot",
            f"annotator through the Session API, {_CLICKS} clicks; differences to the first row, the rule of",
            "decision 0006, with their 95 % interval (paired bootstrap over images; bold where it leaves out",
            "0). Objects of training images, 3 to 60 % of the picture each. No picture is longer than 481",
            "px: of views larger than the network's input this says nothing, and the next smaller size of at",
            "least 384 is 384 for all of them, as the field's protocol has it.",
            "",
            *study.missing(runs),
            *data_lines(runs),
            "",
            *table(runs, _FIGURES),
        ]
        text = "\n".join(lines) + "\n"
        if options.markdown:
            write_whole(options.markdown, text.encode())
    print(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clickmask_training.benchmark_sizes",
        description="Compares rules for the network input size on objects of training images.",
    )
    add_bundle(parser)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of the training data sets")
    add("--markdown", type=Path, help="write the table to this file")
    add("--objects", type=int, help="at most this many objects of each kind, for a quick look")
    parser.set_defaults(run=_run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
