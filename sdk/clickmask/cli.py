"""The ``clickmask`` command: segment a picture, look at a bundle, find out why it does not run, evaluate it.

What a user can put right ends in one line on stderr and exit status 1; a wrong command line in status 2.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from . import __version__
from .backends.diffusion import choose
from .bundle import bundle_path, read_manifest_file
from .clicks import Click
from .crop import CropKind, CropPolicy
from .doctor import examine
from .errors import ClickmaskError, InvalidInputError
from .manifest import Checkpoint, Manifest
from .picture_files import LOSSLESS, check_target, overlay, read_mask, read_picture, write_picture
from .segmenter import Segmenter
from .whole_files import check_targets

# What writing to standard output ends with:
_OF_STREAMS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
_BUNDLE_HELP = "a bundle's folder; 'default' or '-' for the one that ships with clickmask"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The words after ``clickmask``; None takes them from the command line.

    Returns:
        The exit status: 0 done, 1 an error that was reported.

    Raises:
        SystemExit: A wrong command line (status 2), ``--help`` or ``--version`` (0).
    """
    for stream in (sys.stdout, sys.stderr):
        # Names that a console cannot show end no command; what escapes them already, as in C's locale, stays.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser(words).parse_args(words)
    try:
        status: int = options.run(options)
        if sys.stdout is not None:  # None where it was closed before the start
            sys.stdout.flush()
    except ClickmaskError as exc:
        print(f"clickmask: error: {' '.join(str(exc).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("clickmask: stopped", file=sys.stderr)
        return 130
    except OSError as exc:
        if exc.filename is not None or exc.errno not in _OF_STREAMS:
            raise
        return _unheard(exc)
    return status


def _unheard(error: OSError) -> int:
    """What to do when standard output cannot be written; gives the exit status."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it once more
    if not isinstance(error, BrokenPipeError):  # as `| head` leaves it, who has read enough
        print(f"clickmask: error: standard output: {error.strerror}", file=sys.stderr)
    return 1


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("clickmask", description="Click on an object, get its mask.")
    parser.add_argument("--version", action="version", version=f"clickmask {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    segment = commands.add_parser("segment", help="the mask of some clicks on a picture")
    _add_segment_arguments(segment)
    segment.set_defaults(run=_segment, parser=segment)

    info = commands.add_parser("info", help="what a bundle holds")
    info.add_argument("bundle", metavar="BUNDLE", help=_BUNDLE_HELP)
    info.add_argument("--json", action="store_true", help="the manifest as JSON")
    info.set_defaults(run=_info)

    doctor = commands.add_parser("doctor", help="whether a bundle runs here and, if not, what to do")
    doctor.add_argument("bundle", metavar="BUNDLE", help=_BUNDLE_HELP)
    _add_trust(doctor)
    doctor.set_defaults(run=_doctor)

    evaluate = commands.add_parser("evaluate", help="clicks to reach an IoU, on a benchmark set")
    if "evaluate" in words:  # the other commands need not import it
        from .evaluation import command

        command.add_arguments(evaluate)
        _add_trust(evaluate)
        evaluate.set_defaults(run=command.run)

    compare = commands.add_parser(
        "compare", help="whether two reports of evaluate differ by more than chance"
    )
    if "compare" in words:
        from .evaluation import compare as comparison

        comparison.add_arguments(compare)
        compare.set_defaults(run=comparison.run)
    return parser


def _add_segment_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help=_BUNDLE_HELP)
    parser.add_argument("image", metavar="IMAGE", help="a picture file; its EXIF orientation is applied")
    parser.add_argument(
        "--click",
        dest="clicks",
        metavar="X,Y[,-]",
        type=_click,
        action="append",
        required=True,
        help="column,row in pixels from the top left, repeated in order; ',-' marks background; a negative "
        "coordinate is written --click=-0.4,1",
    )
    parser.add_argument(
        "--mask", metavar="FILE", help="a mask of the picture to begin from, 0 and 255 or 0 and 1"
    )
    parser.add_argument("--out", metavar="FILE", help=f"the mask, 0 and 255 ({', '.join(LOSSLESS)})")
    parser.add_argument("--overlay", metavar="FILE", help="the picture with mask and clicks drawn over it")
    parser.add_argument("--backend", default="auto", help="auto, onnxruntime, torchscript or tensorrt")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--crop-policy", choices=get_args(CropKind), help="instead of the bundle's own")
    parser.add_argument("--size", type=int, help="one of the bundle's input sizes, for every click")
    _add_trust(parser)


def _add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust-host-code",
        action="store_true",
        help="also open TensorRT plans that carry code, and run it: only if you trust the bundle's maker",
    )


def _click(text: str) -> Click:
    words = text.split(",")
    sign = words.pop() if len(words) == 3 else "+"
    try:
        if len(words) != 2 or sign.strip() not in ("+", "-"):
            raise ValueError
        return Click(float(words[0]), float(words[1]), positive=sign.strip() == "+")
    except ValueError as exc:  # InvalidInputError of Click included
        raise argparse.ArgumentTypeError(f"expected X,Y or X,Y,- with numbers, got {text!r}") from exc


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuse what could not be written in the end before a picture or a network is loaded."""
    if not options.out and not options.overlay:
        options.parser.error("expected --out, --overlay or both, got neither")
    if options.out and Path(options.out).suffix.lower() not in LOSSLESS:
        raise InvalidInputError(f"--out: expected an ending of {', '.join(LOSSLESS)}, got {options.out!r}.")
    for name in ("out", "overlay"):
        if target := getattr(options, name):
            try:
                check_target(target, colour=name == "overlay")
            except InvalidInputError as exc:
                raise InvalidInputError(f"--{name}: {exc}") from exc
    inputs = [options.image, *([] if options.mask is None else [options.mask])]
    check_targets([("--out", options.out), ("--overlay", options.overlay)], inputs)


def _segment(options: argparse.Namespace) -> int:
    _check_outputs(options)
    image = read_picture(options.image)
    size = (image.shape[1], image.shape[0])
    start = None if options.mask is None else read_mask(options.mask, size, "--mask")
    with Segmenter.load(
        bundle_path(options.bundle),
        options.backend,
        options.device,
        prefetch=False,  # the clicks are all there: nobody thinks meanwhile
        trust_host_code=options.trust_host_code,
    ) as segmenter:
        session = segmenter.session(image, crop_policy=options.crop_policy, size=options.size)
        if start is not None:
            session.set_mask(start)
        mask = session.replay(options.clicks)
        where = f"{segmenter.backend.name} on {segmenter.backend.device}"
    if options.out:
        write_picture(options.out, np.where(mask, 255, 0).astype(np.uint8))
    if options.overlay:
        write_picture(options.overlay, overlay(image, mask, options.clicks))
    print(f"{mask.sum()} of {mask.size} pixels after {len(options.clicks)} click(s), {where}")
    return 0


def _info(options: argparse.Namespace) -> int:
    manifest = read_manifest_file(bundle_path(options.bundle))
    print(manifest.to_json() if options.json else _table(manifest), end="")
    return 0


def _crop(policy: CropPolicy) -> str:
    words = "none" if policy.kind == "none" else f"{policy.kind} from click {policy.start_click}"
    if policy.close_above is None:
        return words
    return f"{words}; closely above {policy.close_above:g} times the largest input size"


def _table(manifest: Manifest) -> str:
    crop, spec = manifest.crop, manifest.input
    rows = [
        ("name", manifest.name),
        ("network", f"{manifest.family}, preset {manifest.preset}"),
        ("pipeline", " -> ".join(manifest.graphs)),
        ("checkpoint", _checkpoint(manifest.source)),
        *([("local network", _checkpoint(manifest.source.local))] if manifest.source.local else []),
        ("created", manifest.created),
        ("input sizes", ", ".join(map(str, spec.sizes)) + f", {spec.fit}, coordinates {spec.coordinates}"),
        ("clicks", f"at most {spec.max_clicks}, {manifest.click_maps.kind} {manifest.click_maps.radius:g}"),
        ("previous mask", "yes" if spec.previous_mask else "no"),
        ("crop", _crop(crop)),
        ("flip averaging", "yes" if manifest.flip_averaging else "no"),
        ("threshold", f"{manifest.threshold:g}"),
        ("momentum", f"{manifest.momentum:g}"),
        ("pixel diffusion", _pixel_diffusion(manifest)),
    ]
    for number, artefact in enumerate(manifest.artefacts, 1):
        size = sum(file.bytes for file in artefact.files.values()) / 1e6
        names = ", ".join(file.path for file in artefact.files.values())
        iou = min(parity.iou for parity in artefact.parity.values())
        where = artefact.engine.gpu_name if artefact.engine else artefact.device
        kind = f"{artefact.backend} {artefact.precision} for {where}"
        rows.append((f"artefact {number}", f"{kind}: {names}, {size:.1f} MB, parity IoU >= {iou:.4f}"))
    width = max(len(label) for label, _ in rows) + 2
    return "".join(f"{label:<{width}}{text}\n" for label, text in rows)


def _checkpoint(source: Checkpoint) -> str:
    return f"{source.checkpoint} (sha256 {source.sha256[:12]}...)"


def _pixel_diffusion(manifest: Manifest) -> str:
    spec = manifest.pixel_diffusion
    if spec is None:
        return "no"
    return f"{spec.iterations} iterations; on a CPU of this machine: {choose(manifest, 'auto', 'cpu')}"


def _doctor(options: argparse.Namespace) -> int:
    report = examine(bundle_path(options.bundle), options.trust_host_code)
    width = max(len(finding.subject) for finding in report.findings)
    for finding in report.findings:
        print(f"{finding.status:<8} {finding.subject:<{width}}  {' '.join(finding.text.split())}")
    print(
        "This bundle runs here."
        if report.usable
        else "This bundle does not run here; see the problems above."
    )
    return 0 if report.usable else 1
