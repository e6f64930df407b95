"""What the commands of this room have in common."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clickmask import Segmenter
from clickmask.bundle import bundle_path
from clickmask.errors import ClickmaskError
from clickmask.evaluation.methods import BundleMethod
from clickmask.manifest import Manifest
from clickmask_models.checkpoint_files import CheckpointError
from clickmask_training.checks import ConfigError


def run_command(options: argparse.Namespace) -> int:
    """Calls ``options.run`` and returns the command's exit status; what a user can mend becomes a line."""
    try:
        options.run(options)
    except (ClickmaskError, CheckpointError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from what was saved", file=sys.stderr)
        return 130
    return 0


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a study of one bundle."""
    bundle = "a bundle's folder; 'default' for the one that ships with clickmask"
    parser.add_argument("bundle", metavar="BUNDLE", help=bundle)
    parser.add_argument(
        "--json", type=Path, help="the report, with every curve; an unfinished one is gone on with"
    )


def open_bundle(options: argparse.Namespace) -> tuple[BundleMethod, Manifest]:
    """The bundle on one thread of the backend that opens here, and its manifest."""
    path = bundle_path(options.bundle)
    with Segmenter.load(path, device="cpu", threads=1) as segmenter:
        manifest, backend = segmenter.bundle.manifest, segmenter.backend.name
    return BundleMethod(manifest.name, path, backend, "cpu", threads=1), manifest
