"""``python -m clickmask_training.benchmark_sizes``: which network input size suits which view.

A bundle with several input sizes chooses one for each view by the view's native long side
(``clickmask.crop``). Here the robot annotates the same objects with fixed sizes and with other rules. The
objects are of training images, most of them held out of training: a rule is not chosen on a benchmark.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clickmask import Segmenter
from clickmask.bundle import bundle_path
from clickmask.errors import ClickmaskError
from clickmask.evaluation.datasets import read_instances
from clickmask.evaluation.methods import BundleMethod
from clickmask.evaluation.samples import Sample
from clickmask.evaluation.truths import IndexedTruth, Masks
from clickmask.evaluation.work import Objects
from clickmask.whole_files import write_whole
from clickmask_training.arms import Study, data_lines, table
from clickmask_training.size_rules import rules
from clickmask_training.sources import is_held_out

_SETS = ("bsds_regions", "ccp", "coco_mval_train", "coco_panoptic", "coco_tiny", "voc_animals_extra")
_SETS += ("voc_objects",)  # all of natural scenes; the others are a thirtieth of the training
_LEAST_SHARE = 0.005  # of its image: smaller objects are hardly any benchmark's
_EACH = 2  # objects of one held-out image at most
_LARGE_SET, _LARGE = "bsds_regions", 40  # the images with the longest sides (481 px), one object each
_ENLARGED, _LONG_SIDE = 80, 854  # held-out objects on photos enlarged to DAVIS's long side, one an image
_CLICKS, _UNTIL = 10, 0.90
_FIGURES = ("mIoU@1", "NoC@0.85", "NoC@0.90")


@dataclass(frozen=True)
class Enlarged(Sample):
    """An object of a photo enlarged to a long side of 854 px, which shows no more than it did."""

    def image(self) -> NDArray[np.uint8]:
        """See `Sample`."""
        return np.asarray(_enlarged(super().image(), cv2.INTER_CUBIC), np.uint8)

    def truth(self) -> Masks:
        """See `Sample`."""
        truth, ignored = (_enlarged(mask.view(np.uint8), cv2.INTER_NEAREST) > 0 for mask in super().truth())
        return truth, ignored


def _enlarged(pixels: NDArray[np.uint8], how: int) -> NDArray[Any]:
    scale = _LONG_SIDE / max(pixels.shape[:2])
    size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
    return cv2.resize(pixels, size, interpolation=how)


def choose_objects(root: Path, names: Sequence[str], held_out: bool, each: int) -> list[Sample]:
    """Some objects of training images, by a hash of their names.

    Args:
        root: folder of the data sets.
        names: of them.
        held_out: those of images that are never trained on, or of the others.
        each: objects of an image at most.
    """
    chosen = []
    for name in names:
        for image, entry in read_instances(root / name).items():
            if is_held_out(image) != held_out:
                continue
            width, height = entry["size"]
            large = [
                (mask, int(index))
                for mask, instances in entry["masks"].items()
                for index, instance in instances.items()
                if instance["area"] >= _LEAST_SHARE * width * height
            ]
            large.sort(key=lambda item: zlib.crc32(f"{item[0]}#{item[1]}".encode()))
            for mask, index in large[:each]:
                truth = IndexedTruth(root / name / "masks" / mask, index)
                photo = root / name / "images" / image
                chosen.append(Sample(f"{name}/{mask}#{index}", photo, truth, f"{name}/{image}"))
    return chosen


def _data(root: Path, limit: int | None) -> list[Objects]:
    held_out = choose_objects(root, _SETS, held_out=True, each=_EACH)
    seen = {sample.group: sample for sample in reversed(held_out)}.values()
    large = choose_objects(root, [_LARGE_SET], held_out=False, each=1)
    columns = {
        "held out": held_out,
        "481 px, trained on": _some(large, _LARGE),
        f"held out, enlarged to {_LONG_SIDE} px": [
            Enlarged(f"{_LONG_SIDE}/{s.name}", s.image_path, s.source, s.group)
            for s in _some(seen, _ENLARGED)
        ],
    }
    return [Objects.of(name, "indexed-instances", samples[:limit]) for name, samples in columns.items()]


def _some(samples: Iterable[Sample], count: int) -> list[Sample]:
    """A fixed choice of so many, whatever their order."""
    return sorted(samples, key=lambda sample: zlib.crc32(sample.name.encode()))[:count]


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except ClickmaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    path = bundle_path(options.bundle)
    with Segmenter.load(path, device="cpu", threads=1) as segmenter:
        manifest, backend = segmenter.bundle.manifest, segmenter.backend.name
    bundle = BundleMethod(manifest.name, path, backend, "cpu", threads=1)
    study = Study(rules(bundle, manifest.input.sizes), _data(options.data, options.objects), _CLICKS, _UNTIL)
    runs = study.run(options.json)
    sizes = ", ".join(map(str, manifest.input.sizes))
    lines = [
        "# Input size by view",
        "",
        f"`{manifest.name}`, checkpoint sha256 `{manifest.source.sha256[:16]}`, sizes {sizes}. Written by",
        "`python -m clickmask_training.benchmark_sizes`. Robot annotator through the Session API, at most",
        f"{_CLICKS} clicks, each object until IoU {_UNTIL:.2f}; differences to the first row with their 95 %",
        "interval (paired bootstrap over images; bold where it leaves out 0). These are objects of training",
        f"images, none of them longer than 481 px. Photos enlarged to {_LONG_SIDE} px stand for larger ones:",
        "an object is then as large as there, but has no more detail, so that later clicks gain less from",
        "large sizes than they would.",
        "",
        *data_lines(runs),
        "",
        *table(runs, _FIGURES),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.markdown:
        write_whole(options.markdown, text.encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clickmask_training.benchmark_sizes",
        description="Compares rules for the network input size on objects of training images.",
    )
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", help="a bundle's folder; 'default' for the one that ships with clickmask")
    add("--data", type=Path, required=True, help="folder of the training data sets")
    add("--json", type=Path, help="the report, with every curve; an unfinished one is gone on with")
    add("--markdown", type=Path, help="write the table to this file")
    add("--objects", type=int, help="at most this many objects of each kind, for a quick look")
    return parser


if __name__ == "__main__":
    sys.exit(main())
