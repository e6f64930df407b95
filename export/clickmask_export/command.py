"""The command line of ``export/build_engine.py``."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

from clickmask.errors import ClickmaskError
from clickmask_export.errors import BuildError
from clickmask_export.progress import Progress
from clickmask_export.tensorrt_options import PlanOptions

# What torch says, on any device, in a RuntimeError.
_NO_MEMORY = re.compile("out of memory|can't allocate memory", re.IGNORECASE)

_DESCRIPTION = """\
Build an engine bundle: a folder with everything that clickmask needs to run a network, and nothing else.

The checkpoint's network is exported, the exported graphs are checked, and each artefact is compared with the
network in torch, mask by mask, through the same backend that will run it. Only a bundle that passed is
written; if anything fails, the output is left as it was."""

_EXAMPLES = """\
examples:
  python export/build_engine.py --checkpoint engines/default.safetensors --output engines/mine
      an ONNX bundle that runs on any CPU, with the settings that the network was made for

  python export/build_engine.py --checkpoint cdnet.safetensors --preset official --size 384 \\
      --target onnxruntime --target torchscript --output engines/cdnet
      ONNX and TorchScript side by side, the published code's settings, one input size

  python export/build_engine.py --checkpoint engines/default.safetensors --output engines/gpu \\
      --target tensorrt --target onnxruntime --precision fp16
      TensorRT plans for the GPU of this machine, and ONNX for where they do not load

  python export/build_engine.py --checkpoint coarse.pth --local-checkpoint fine.pth --output engines/csfp
      a public checkpoint as it was downloaded, with the second network that sees the crop

exit status: 0 when a verified bundle was written; 1 with one line that says what to do when not; 143 when
terminated, with nothing written."""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line like every other error: one line, status 1."""

    def error(self, message: str) -> NoReturn:
        raise BuildError(f"{message} (see --help)")


def make_parser() -> argparse.ArgumentParser:
    """The options; their help is the command's documentation."""
    parser = _Parser(
        prog="build_engine.py",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_places(parser)
    _add_artefacts(parser.add_argument_group("what to build"))
    _add_plan(parser.add_argument_group("TensorRT plans (with --target tensorrt; see docs/tensorrt.md)"))
    _add_use(parser.add_argument_group("how the network will be used (default: as its preset says)"))
    parser.add_argument_group("checks").add_argument(
        "--parity-image",
        type=Path,
        metavar="FILE",
        help="photograph to compare on, besides synthetic images (default: scikit-image's astronaut)",
    )
    return parser


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="FILE",
        help="the network: a .safetensors file of clickmask, or a .pth or .pt file of the public ClickSEG "
        "(CDNet), RITM, f-BRS or CSFPN; recognised by its content, see docs/checkpoints.md",
    )
    parser.add_argument(
        "--checkpoint-index",
        type=int,
        metavar="N",
        help="which network of a checkpoint that holds a list of them, from 0",
    )
    parser.add_argument(
        "--local-checkpoint",
        type=Path,
        metavar="FILE",
        help="a second network of the same architecture for the crop of the global-to-local strategy, such "
        "as CSFPN's fine one (default: one network sees both)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="the bundle to write, such as engines/mine",
    )
    parser.add_argument("--force", action="store_true", help="replace a bundle that is already there")


def _add_artefacts(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--target",
        action="append",
        choices=("onnxruntime", "torchscript", "tensorrt"),
        help="runtime to build for; may be repeated. onnxruntime runs on CPUs and GPUs, torchscript needs "
        "torch and runs on the kind of device it was built on, tensorrt needs an NVIDIA GPU here "
        "(default: onnxruntime)",
    )
    group.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="of the network's body; fp16 is for GPUs, and what would break in it stays fp32; int8 needs "
        "--calibration and quantises convolutions, see docs/int8.md (default: fp32)",
    )
    group.add_argument(
        "--calibration",
        type=Path,
        metavar="FOLDER",
        help="photographs like those the network will see, at least 16 and better 100, for --precision int8: "
        "ranges are measured on three quarters of them, and masks compared on the others",
    )
    group.add_argument(
        "--fdm",
        choices=("dense", "sparse"),
        default="dense",
        help="form of CDNet's feature diffusion: every position a key, or those near clicks only, which "
        "gives the same where sources are narrow Gaussians, sooner if clicks are few (default: dense)",
    )


def _add_plan(group: argparse._ArgumentGroup) -> None:
    """Options named as ``PlanOptions``' fields; those not given are None and keep its defaults."""
    _add_builder(group)
    _add_compatibility(group)


def _add_builder(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max-batch", type=int, metavar="N", help="most images of one call, 1 to 1024 (default: 8)"
    )
    group.add_argument(
        "--workspace",
        dest="workspace_mib",
        type=int,
        metavar="MIB",
        help="most scratch memory that a kernel may use (default: 2048)",
    )
    group.add_argument(
        "--optimization-level",
        dest="optimisation_level",
        type=int,
        metavar="0-5",
        help="how long the builder looks for faster kernels (default: 3)",
    )
    group.add_argument(
        "--tf32",
        action="store_true",
        default=None,
        help="let float32 parts compute in TF32, which has the mantissa of half precision (default: no)",
    )
    group.add_argument(
        "--timing-cache",
        type=Path,
        metavar="FILE",
        help="where measured kernel times are kept for the next build (default: a file for this version and "
        "GPU below ~/.cache/clickmask)",
    )


def _add_compatibility(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--version-compatible",
        action="store_true",
        default=None,
        help="plans that later versions of TensorRT load, and the lean runtime, somewhat slower",
    )
    group.add_argument(
        "--exclude-lean-runtime",
        dest="lean_runtime",
        action="store_false",
        default=None,
        help="leave the code that later versions run them with out of version-compatible plans: they then "
        "need that version's runtime, and no trust in code inside a plan",
    )
    group.add_argument(
        "--hardware-compatible",
        dest="hardware_compatibility",
        choices=("none", "ampere_plus", "same_compute_capability"),
        help="other GPUs that the plans load on, somewhat slower (default: none)",
    )
    group.add_argument(
        "--strip-weights",
        action="store_true",
        default=None,
        help="plans without weights, which are read from ONNX files beside them when they are loaded",
    )


def _add_use(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--preset",
        metavar="NAME",
        help="crop policy, input sizes, coordinates, flips, threshold and momentum by name: "
        "encode_once_mobilenet_v2; CDNet: paper, paper_resnet34, paper_resnet101, official; DeepLabV3+ of "
        "others: ritm_resnet34, fbrs_resnet34, fbrs_resnet50, fbrs_resnet101; ritm_hrnet18s, ritm_hrnet18, "
        "ritm_hrnet32; csfp_official, csfp_paper, csfp_paper_resnet50, csfp_paper_resnet101; "
        "encode_once_csfp (default: the one whose network the checkpoint has, or the only one of its family)",
    )
    group.add_argument(
        "--size",
        type=int,
        nargs="+",
        action="extend",
        metavar="PX",
        help="sides of the square network input, multiples of 32; a crop is run at the one nearest to its "
        "long side",
    )
    group.add_argument(
        "--pdm",
        choices=("graph", "none"),
        help="pixel diffusion after the network's logits: as a graph of its own, or left out "
        "(default: as the network's own configuration says)",
    )
    group.add_argument("--iterations", type=int, metavar="N", help="steps of pixel diffusion")
    group.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="average with the mirrored image, at twice the time",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    try:
        options = make_parser().parse_args(arguments)
        with _terminable():
            _run(options)
    except (BuildError, ClickmaskError, OSError) as exc:
        return _fail(str(exc))
    except ModuleNotFoundError as exc:
        return _fail(f'building needs the package {exc.name}: pip install "clickmask[cpu,export]"')
    except (MemoryError, RuntimeError) as exc:
        if isinstance(exc, RuntimeError) and not _NO_MEMORY.search(str(exc)):
            raise
        return _fail("out of memory: build fewer or smaller sizes with --size")
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written")
    return 0


@contextmanager
def _terminable() -> Iterator[None]:
    """Turns SIGTERM into an exception, so that what was begun is removed."""

    def leave(*_: object) -> NoReturn:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(options: argparse.Namespace) -> None:
    # Here, so that --help and a wrong command line answer without torch.
    from clickmask_export.build import Request, build
    from clickmask_export.recipes import Overrides
    from clickmask_export.verify import table

    targets = options.target or ("onnxruntime",)
    overrides = Overrides(
        preset=options.preset,
        sizes=options.size,
        diffuse=None if options.pdm is None else options.pdm == "graph",
        iterations=options.iterations,
        flip=options.flip,
    )
    request = Request(
        checkpoint=options.checkpoint,
        output=options.output,
        checkpoint_index=options.checkpoint_index,
        local_checkpoint=options.local_checkpoint,
        targets=targets,
        precision=options.precision,
        calibration=options.calibration,
        plan=_plan(options, targets),
        fdm=options.fdm,
        overrides=overrides,
        force=options.force,
        parity_image=options.parity_image,
    )
    parities = build(request, Progress())
    print(f"Difference from torch, worst of all sizes, clicks and masks:\n{table(parities)}")
    print(f"Wrote {options.output}")


def _plan(options: argparse.Namespace, targets: Sequence[str]) -> PlanOptions:
    names = [field.name for field in fields(PlanOptions)]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if given and "tensorrt" not in targets:
        raise BuildError(
            "options of TensorRT plans are given, and no plan is to be built: add --target tensorrt"
        )
    return PlanOptions(**given)


def _fail(message: str) -> int:
    print(f"build_engine.py: error: {message}", file=sys.stderr)
    return 1
