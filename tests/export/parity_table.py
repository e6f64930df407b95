"""Writes docs/benchmarks/parity.md from the manifest of a bundle of every family (``make parity``).

Nothing is measured here: a bundle exists only if it agreed with torch, and its manifest says how nearly.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from public_families import FAMILIES, Family

from clickmask.bundle import load_bundle
from clickmask.manifest import Manifest, Parity
from clickmask_export.command import main as build
from clickmask_export.verify import worst

_ROOT = Path(__file__).parents[2]
_TARGETS = ("onnxruntime", "torchscript")
SIZES = (256, 512, 1024)
_TEXT = """\
# Parity of the families

How far the artefacts of a bundle are from the checkpoint's network in torch (float32, eager), as their
manifests record it, the worst of each measure. `build_engine.py` writes no bundle beyond its tolerances
(`export/clickmask_export/verify.py`). Written by `make parity` with {tools}.

- **Cases.** At the smallest size seven images (textured, flat, saturated, letterboxed, of a one-pixel object,
  noise, a photograph), one and two in a batch, with 0, 1, 4, 5 and 128 clicks (the most that a manifest
  allows), with a previous mask and without. At each larger size one collage of four of them with 9 clicks,
  four of them at the corners. Presets with flip averaging run every image and its mirror image as one batch.
- **IoU** of the two masks, **flips**: share of the pixels on the other side of the threshold, **error**:
  largest difference of a logit, anywhere. Differences of up to 4 pixels in an image leave the IoU at 1.
- The default's weights are trained. No trained ones of the other networks are at hand: theirs are made from
  the tensors' names by a rule that keeps activations in range (`tests/export/public_families.py`). What is
  compared is arithmetic, for which that is enough; it says nothing of quality.
- Checkpoints are in the layout that the public code writes, those of the papers' networks in ours. CSFP on an
  HRNet has two, coarse and fine, and the worse of both is listed.
- Pixel Diffusion's inverse tanh magnifies rounding where probabilities saturate: errors are largest in the
  families that have it. Where a fused kernel can compute it (decision 0013), the worse of kernel and graph is
  listed.

| family | preset | artefact | input, px | IoU | flips | error |
|---|---|---|--:|--:|--:|--:|
{rows}
"""


def main() -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=_ROOT.parent / "shared", help="the reference data")
    parser.add_argument("--output", type=Path, default=_ROOT / "docs/benchmarks/parity.md")
    options = parser.parse_args()
    rows = []
    for name, family in FAMILIES.items():
        with tempfile.TemporaryDirectory() as folder:
            print(f"== {name}", file=sys.stderr, flush=True)
            rows += rows_of(name, build_family(family, Path(folder), options.shared))
    options.output.write_text(document(rows), encoding="utf-8")
    return 0


def document(rows: Sequence[str]) -> str:
    """The page with these rows of its table."""
    tools = ", ".join(
        f"{tool} {importlib.metadata.version(tool)}" for tool in ("torch", "onnx", "onnxruntime")
    )
    return _TEXT.format(tools=tools, rows="\n".join(rows))


def build_family(family: Family, folder: Path, shared: Path) -> Manifest:
    """Builds a bundle in ``folder``; ends the program if it fails."""
    arguments = family.arguments(family.write(folder, shared), folder / "engine", SIZES)
    for target in _TARGETS:
        arguments += ["--target", target]
    if build(arguments) != 0:
        raise SystemExit("a build failed, see above: the table was left as it was")
    return load_bundle(folder / "engine").manifest


def rows_of(name: str, manifest: Manifest) -> Iterator[str]:
    """A row for each artefact and size."""
    smallest = f"{manifest.input.sizes[0]} px"
    for artefact in manifest.artefacts:
        sizes: dict[str, Parity] = {}
        for kind, parity in artefact.parity.items():
            size = kind.partition(", ")[2] or smallest  # "flat", "collage, 512 px"
            sizes[size] = worst(sizes.get(size, parity), parity)
        for size, parity in sizes.items():
            yield (
                f"| {name} | {manifest.preset} | {artefact.backend} {artefact.precision} "
                f"| {size.removesuffix(' px')} | {parity.iou:.5f} | {parity.sign_flips:.1e} "
                f"| {parity.max_error:.1e} |"
            )


if __name__ == "__main__":
    sys.exit(main())
