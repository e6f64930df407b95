"""Anchors: methods without training, clicked by the same robot, to hold a network's figures against.

They stand for the rows "graph cut" and "random walker" at the head of the CDNet paper's Table 1. Both work on
a reduced image, since at full size one click takes seconds: a long side of 320 px for GrabCut and of 200 px
for the random walker, whose linear equations take five times as long. Their masks are enlarged smoothly.
Clicks become disks of seeds. Where nobody has marked background yet, the border of the image stands for it:
both methods need some.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from clickmask.clicks import Click
from clickmask.errors import InvalidInputError
from clickmask.evaluation.methods import Clickable

_SEED_RADIUS = 1 / 100  # in long sides: the family's 5 px at a long side of 400 to 600, rounded down

_Solve = Callable[[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]], NDArray[Any]]
"""(image, object seeds, background seeds, previous mask) to probabilities (h, w) float32."""


@dataclass(frozen=True)
class GrabCut:
    """OpenCV's GrabCut: graph cuts with colour mixtures, fitted to the seeds and to the mask before."""

    name: ClassVar[str] = "grabcut"
    device: ClassVar[str] = "cpu"
    threads: ClassVar[int] = 1
    _LONG_SIDE: ClassVar[int] = 320
    _ITERATIONS: ClassVar[int] = 3

    def open(self) -> _Anchor:
        """Nothing to load."""
        return _Anchor(self._solve, self._LONG_SIDE)

    def settings(self) -> dict[str, Any]:
        """See `Method`."""
        return {"opencv": cv2.__version__, "long_side": self._LONG_SIDE, "iterations": self._ITERATIONS}

    def _solve(
        self,
        image: NDArray[np.uint8],
        inside: NDArray[np.bool_],
        outside: NDArray[np.bool_],
        previous: NDArray[np.bool_],
    ) -> NDArray[Any]:
        labels = np.where(previous, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        labels[inside], labels[outside] = cv2.GC_FGD, cv2.GC_BGD
        is_object = _is_object(labels)
        if is_object.all() or not is_object.any():  # one of the mixtures would have no colours
            return is_object.astype(np.float32)
        cv2.setRNGSeed(0)  # its mixtures start from k-means, which draws
        cut: Any = cv2.grabCut  # its stubs know no mask without a rectangle
        models = np.zeros((1, 65)), np.zeros((1, 65))
        bgr = np.ascontiguousarray(image[:, :, ::-1])
        cut(bgr, labels, None, *models, self._ITERATIONS, cv2.GC_INIT_WITH_MASK)
        return _is_object(labels).astype(np.float32)


@dataclass(frozen=True)
class RandomWalker:
    """scikit-image's random walker (Grady 2006), solved exactly; the mask before has no effect."""

    name: ClassVar[str] = "random_walker"
    device: ClassVar[str] = "cpu"
    threads: ClassVar[int] = 1
    _LONG_SIDE: ClassVar[int] = 200
    _BETA: ClassVar[float] = 130.0  # scikit-image's default: how strongly a step in colour hinders the walk

    def open(self) -> _Anchor:
        """Imports scikit-image.

        Raises:
            InvalidInputError: it is not installed.
        """
        _skimage()
        return _Anchor(self._solve, self._LONG_SIDE)

    def settings(self) -> dict[str, Any]:
        """See `Method`."""
        return {"scikit-image": _skimage().__version__, "long_side": self._LONG_SIDE, "beta": self._BETA}

    def _solve(
        self,
        image: NDArray[np.uint8],
        inside: NDArray[np.bool_],
        outside: NDArray[np.bool_],
        previous: NDArray[np.bool_],
    ) -> NDArray[Any]:
        if not inside.any() or not outside.any() or (inside | outside).all():
            return (inside if inside.any() else previous).astype(np.float32)
        labels = np.where(inside, 1, np.where(outside, 2, 0)).astype(np.int32)
        walk = _skimage().segmentation.random_walker
        with warnings.catch_warnings():  # flat images and probabilities off by rounding
            warnings.simplefilter("ignore")
            chances = walk(image, labels, self._BETA, mode="bf", return_full_prob=True, channel_axis=-1)
        return np.asarray(chances[0], np.float32)


ANCHORS = {method.name: method for method in (GrabCut(), RandomWalker())}


@dataclass(frozen=True)
class _Anchor:
    """An open anchor."""

    solve: _Solve
    long_side: int

    def session(self, image: NDArray[np.uint8]) -> Clickable:
        return _Seeded(image, self.solve, self.long_side)


class _Seeded:
    """One object: the clicks so far as seeds on the reduced image."""

    def __init__(self, image: NDArray[np.uint8], solve: _Solve, long_side: int) -> None:
        self._height, self._width = image.shape[:2]
        self._scale = min(1.0, long_side / max(image.shape[:2]))
        self._radius = int(long_side * _SEED_RADIUS)
        size = (max(1, round(self._width * self._scale)), max(1, round(self._height * self._scale)))
        self._image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        self._solve = solve
        self._clicks: list[Click] = []
        self._mask = np.zeros(self._image.shape[:2], np.bool_)

    def click(self, x: float, y: float, positive: bool = True) -> NDArray[np.bool_]:
        self._clicks.append(Click(x, y, positive))
        inside, outside = self._seeds()
        chances = self._solve(self._image, inside, outside, self._mask)
        self._mask = chances > 0.5
        full = cv2.resize(chances, (self._width, self._height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(full > 0.5)

    def _seeds(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Object and background, (h, w) bool each and disjoint; a later click wins over an earlier one."""
        labels = np.zeros(self._image.shape[:2], np.uint8)
        if all(click.positive for click in self._clicks):
            labels[[0, -1]] = labels[:, [0, -1]] = 2
        for click in self._clicks:
            centre = int((click.x + 0.5) * self._scale), int((click.y + 0.5) * self._scale)
            cv2.circle(labels, centre, self._radius, 1 if click.positive else 2, cv2.FILLED)
        return labels == 1, labels == 2


def _is_object(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where GrabCut's labels say object, for sure or probably."""
    return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))


def _skimage() -> Any:
    try:
        import skimage
        import skimage.segmentation
    except ImportError as error:
        raise InvalidInputError(
            'the anchor random_walker needs scikit-image: pip install "clickmask[evaluation]"'
        ) from error
    return skimage
