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
    except (ClickmaskError, CheckpointError, ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from what was saved", file=sys.stderr)
        return 130
    return 0


def check_output(option: str, path: Path | None, suffix: str = "") -> None:
    """Refuses, before the work, a file that could not be written after it.

    Args:
        option: such as "--output", for the message.
        path: what was given; None where nothing was.
        suffix: what the name has to end in, lest weights take the place of somebody's photo.

    Raises:
        ConfigError: a folder, a place in a folder that does not exist, or another name.
    """
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"{option}: expected a file in an existing folder, got {path}")
    if not path.name.endswith(suffix):
        raise ConfigError(f"{option}: expected a name that ends in {suffix}, got {path}")


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a study of one bundle."""
    bundle = "a bundle's folder; 'default' for the one that ships with clickmask"
    parser.add_argument("bundle", metavar="BUNDLE", help=bundle)
    parser.add_argument(
        "--json", type=Path, help="the report, with every curve; an unfinished one is gone on with"
    )


def open_bundle(options: argparse.Namespace) -> tuple[BundleMethod, Manifest]:
    """The bundle on one thread of the backend that opens here, and its manifest.

    Raises:
        ConfigError: reports that could not be written.
    """
    check_output("--json", options.json)
    check_output("--markdown", options.markdown)
    path = bundle_path(options.bundle)
    with Segmenter.load(path, device="cpu", threads=1) as segmenter:
        manifest, backend = segmenter.bundle.manifest, segmenter.backend.name
    return BundleMethod(manifest.name, path, backend, "cpu", threads=1), manifest
