"""Samples: the objects of a benchmark, and the hash that says which data was measured."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clickmask.errors import InvalidInputError
from clickmask.evaluation.truths import Masks, Truth, read_bytes
from clickmask.picture_files import read_picture


@dataclass(frozen=True)
class Sample:
    """One object of one image; pixels are read when asked for.

    Attributes:
        name: unique within its data set.
        image_path: the photo.
        source: the object's ground truth.
        group: what samples that are not independent share: their video if it is known, else their image.
    """

    name: str
    image_path: Path
    source: Truth
    group: str

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return read_picture(self.image_path)

    def truth(self) -> Masks:
        """(object, ignored), both (H, W) bool.

        Raises:
            InvalidInputError: no pixel is object.
        """
        truth, ignored = self.source.read()
        if not truth.any():
            raise InvalidInputError(f"{self.name}: expected an object in the ground truth, got no pixel")
        return truth, ignored


def check_samples(samples: Sequence[Sample], where: Path) -> None:
    """Refuse what would not be the benchmark.

    Raises:
        InvalidInputError: no sample, two of one name, or images that are missing; the first few are named.
    """
    if not samples:
        raise InvalidInputError(f"{where}: expected at least one object, got none")
    repeated = [name for name, count in Counter(s.name for s in samples).items() if count > 1]
    if repeated:
        raise InvalidInputError(
            f"{where}: expected each object once, got these names again: {few(repeated)}; remove the copies"
        )
    paths = sorted({sample.image_path for sample in samples})
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InvalidInputError(
            f"{where}: expected {len(paths)} images, got {len(missing)} of them missing: "
            f"{few([_shown(path, where) for path in missing])}; "
            "complete the folder, since a part of it is another benchmark"
        )


def fitting_truth(sample: Sample, shape: tuple[int, ...]) -> Masks:
    """A sample's truth, which an image of (height, width) ``shape`` has the size of.

    Raises:
        InvalidInputError: it has not, or no pixel is object.
    """
    truth, ignored = sample.truth()
    if truth.shape != shape:
        raise InvalidInputError(
            f"{sample.name}: expected image and mask of one size, got {shape} and {truth.shape}"
        )
    return truth, ignored


def check_truths(samples: Sequence[Sample], where: Path) -> None:
    """Refuse what could not be measured: reads every image and truth, so that no hour's work meets it later.

    Raises:
        InvalidInputError: an image that cannot be read, a truth without an object or of another size than its
            image; the first few are named.
    """
    wrong: list[str] = []
    last: Path | None = None
    shape: tuple[int, ...] | None = None
    for sample in samples:
        try:
            if sample.image_path != last:  # the objects of an image follow each other
                last, shape = sample.image_path, None
                shape = sample.image().shape[:2]
            if shape is not None:  # else told already
                fitting_truth(sample, shape)
        except InvalidInputError as error:
            wrong.append(str(error))
    if wrong:
        raise InvalidInputError(
            f"{where}: {few(wrong, '; ')}; mend these or take image and mask out of the folder"
        )


def _shown(path: Path, where: Path) -> str:
    inside = path.is_relative_to(where)  # a list may name an image anywhere
    return (path.relative_to(where) if inside else path).as_posix()


def few(names: Sequence[str], between: str = ", ") -> str:
    """The first three of some names, and how many more there are."""
    return between.join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def fingerprint(samples: Sequence[Sample]) -> str:
    """sha256 over name, image bytes and ground truth of every sample, in order.

    A report that carries it names the data it measured.
    """
    digest = hashlib.sha256()
    last: tuple[Path, bytes] | None = None
    for sample in samples:
        if last is None or last[0] != sample.image_path:  # the objects of an image follow each other
            last = (sample.image_path, read_bytes(sample.image_path))
        digest.update(sample.name.encode())
        digest.update(last[1])
        digest.update(sample.source.content())
    return digest.hexdigest()
