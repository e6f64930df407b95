"""Boxes, the part of the network's input that shows them, and the choice of its size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from sessions import make_image, make_segmenter

from clickmask import Segmenter
from clickmask.errors import InvalidInputError
from clickmask.view import Box, View, choose_size, resolve_coordinates, resolve_size


def test_size_nearest_to_the_long_side_smaller_of_two() -> None:
    sizes = (256, 384, 512, 608)
    for long_side, size in (
        (1, 256),
        (320, 256),
        (321, 384),
        (448, 384),
        (449, 512),
        (600, 608),
        (9000, 608),
    ):
        assert choose_size(Box(0, 0, long_side, 1), sizes) == size
        assert choose_size(Box(5, 5, 6, 5 + long_side), sizes) == size


def test_a_segmenter_takes_another_rule_and_a_sessions_own_size_goes_first() -> None:
    plain = make_segmenter(input={"sizes": [64, 96, 128]})
    seen: list[Box] = []

    def largest(box: Box, sizes: Sequence[int]) -> int:
        seen.append(box)
        return max(sizes)

    segmenter = Segmenter(plain.bundle, plain.backend, size_rule=largest)
    image = make_image(60, 40)
    for size, expected in ((None, 128), (96, 96)):
        segmenter.session(image, size=size).click(30, 20)
        assert plain.backend.images[-1].shape[-2:] == (expected, expected)
    assert set(seen) == {Box(0, 0, 60, 40)}


@pytest.mark.parametrize(
    ("wanted", "allowed"),
    [(100, (64, 128)), (True, (1, 2)), (64.0, (64,)), ("64", (64,)), (np.array([64, 128]), (64, 128))],
)
def test_size_of_a_session(wanted: object, allowed: tuple[int, ...]) -> None:
    assert resolve_size(None, (64, 128)) is None
    assert resolve_size(128, (64, 128)) == 128
    assert type(resolve_size(np.int64(128), (64, 128))) is int  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="must be"):
        resolve_size(wanted, allowed)  # type: ignore[arg-type]


def test_coordinates_of_a_session() -> None:
    assert resolve_coordinates(None, "public") == "public"
    assert resolve_coordinates("half_pixel", "public") == "half_pixel"
    with pytest.raises(InvalidInputError, match="must be"):
        resolve_coordinates("corner", "public")  # type: ignore[arg-type]


def test_empty_box_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="x0 < x1"):
        Box(3, 0, 3, 5)


@pytest.mark.parametrize(
    ("box", "fit", "valid"),
    [
        (Box(0, 0, 200, 100), "letterbox", (64, 32)),
        (Box(0, 0, 200, 100), "squash", (64, 64)),
        (Box(0, 0, 1, 1), "letterbox", (64, 64)),
        (Box(0, 0, 8000, 1), "letterbox", (64, 1)),
        (Box(0, 0, 128, 3), "letterbox", (64, 2)),  # 1.5 rounds up
        (Box(0, 0, 128, 5), "letterbox", (64, 3)),  # 2.5 rounds up too: not to even
    ],
)
def test_valid_part(box, fit, valid) -> None:
    assert View(box, 64, fit).valid_size == valid
