"""Writes docs/benchmarks/parity.md from the manifest of a bundle of every family (``make parity``).

Nothing is measured here: a bundle exists only if it agreed with torch, and its manifest says how nearly.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from public_families import FAMILIES, Family

from clickmask.bundle import load_bundle
from clickmask.manifest import Manifest
from clickmask_export.command import main as build

_ROOT = Path(__file__).parents[2]
_TARGETS = ("onnxruntime", "torchscript")
_TEXT = """\
# Parity of the families

How far the artefacts of a bundle are from the checkpoint's network in torch (float32, eager), as their
manifests record it: of all sizes, clicks, previous masks and batches of one and two images, the worst of each
measure. `build_engine.py` writes no bundle beyond its tolerances (`export/clickmask_export/verify.py`).
Written by `make parity` with {tools}.

- **IoU** of the two masks, **flips**: share of the pixels on the other side of the threshold, **error**:
  largest difference of a logit, anywhere. Differences of up to 4 pixels in an image leave the IoU at 1.
- The default's weights are trained. No trained ones of the other networks are at hand: theirs are made from
  the tensors' names by a rule that keeps activations in range (`tests/export/public_families.py`). What is
  compared is arithmetic, for which that is enough; it says nothing of quality.
- Checkpoints are in the layout that the public code writes, those of the CDNet paper's network in ours. CSFP
  has two, coarse and fine, and the worse of both is listed.
- Pixel Diffusion's inverse tanh magnifies rounding where probabilities saturate: errors are largest in the
  families that have it. Where a fused kernel can compute it (decision 0013), the worse of kernel and graph is
  listed.

| family | preset | input, px | artefact | image | IoU | flips | error |
|---|---|---|---|---|--:|--:|--:|
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
            rows += _rows(name, _build(family, Path(folder), options.shared))
    tools = ", ".join(
        f"{tool} {importlib.metadata.version(tool)}" for tool in ("torch", "onnx", "onnxruntime")
    )
    options.output.write_text(_TEXT.format(tools=tools, rows="\n".join(rows)), encoding="utf-8")
    return 0


def _build(family: Family, folder: Path, shared: Path) -> Manifest:
    arguments = family.arguments(family.write(folder, shared), folder / "engine", family.sizes)
    for target in _TARGETS:
        arguments += ["--target", target]
    if build(arguments) != 0:
        raise SystemExit("a build failed, see above: the table was left as it was")
    return load_bundle(folder / "engine").manifest


def _rows(name: str, manifest: Manifest) -> Iterator[str]:
    sizes = ", ".join(map(str, manifest.input.sizes))
    for artefact in manifest.artefacts:
        for kind, parity in artefact.parity.items():
            yield (
                f"| {name} | {manifest.preset} | {sizes} | {artefact.backend} {artefact.precision} | {kind} "
                f"| {parity.iou:.5f} | {parity.sign_flips:.1e} | {parity.max_error:.1e} |"
            )


if __name__ == "__main__":
    sys.exit(main())
