"""``clickmask evaluate``: the robot annotator's figures for a bundle."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from clickmask.bundle import bundle_path
from clickmask.errors import InvalidInputError
from clickmask.evaluation.datasets import fingerprint, read_dataset
from clickmask.evaluation.report import markdown, table
from clickmask.evaluation.run import Curve, evaluate, summarise
from clickmask.segmenter import Segmenter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``clickmask evaluate``."""
    parser.add_argument("bundle", help="bundle folder, or 'default' for the shipped one")
    parser.add_argument("--root", type=Path, required=True, help="folder that holds the data-set folders")
    parser.add_argument(
        "--dataset", required=True, nargs="+", help="data-set folders below --root, for example berkeley"
    )
    parser.add_argument("--clicks", type=int, default=20, help="limit of clicks per object (default 20)")
    parser.add_argument("--json", type=Path, help="write the reports, with every curve, to this file")
    parser.add_argument("--markdown", type=Path, help="write the figures as a Markdown table to this file")
    parser.add_argument("--backend", default="auto", help="backend (default: the bundle's best here)")
    parser.add_argument("--device", default="auto", help="device: auto, cpu or cuda")
    parser.add_argument("--threads", type=int, help="threads of the runtime (default: all cores)")


def run(options: argparse.Namespace) -> int:
    """Evaluates on each data set and prints the figures."""
    if options.clicks < 1:
        raise InvalidInputError(f"--clicks: expected at least 1, got {options.clicks}")
    for option, path in (("--json", options.json), ("--markdown", options.markdown)):
        if path is not None and not path.parent.is_dir():  # before the work, not after it
            raise InvalidInputError(f"{option}: expected a file in an existing folder, got {path}")
    datasets = {name: read_dataset(options.root / name) for name in options.dataset}
    segmenter = Segmenter.load(bundle_path(options.bundle), options.backend, options.device, options.threads)
    documents, reports = [], []
    for name, samples in datasets.items():
        curves = evaluate(segmenter, samples, options.clicks, _show_progress)
        report = {
            "dataset": name,
            "data_sha256": fingerprint(samples),
            "bundle": segmenter.bundle.manifest.name,
            "checkpoint_sha256": segmenter.bundle.manifest.source.sha256,
            "backend": segmenter.backend.name,
            "device": segmenter.backend.device,
            **summarise(curves, options.clicks),
        }
        print(table(report), flush=True)
        reports.append(report)
        documents.append({**report, "curves": [_as_json(curve) for curve in curves]})
        if options.json:  # after each set, so that an interrupted run keeps what it has
            options.json.write_text(json.dumps(documents, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(reports))
    return 0


def _as_json(curve: Curve) -> dict[str, Any]:
    return {
        "name": curve.name,
        "ious": [round(value, 5) for value in curve.ious],
        "seconds": [round(value, 5) for value in curve.seconds],
    }


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{total}", end="" if done < total else "\n", file=sys.stderr, flush=True)
