"""Click: what is a point, and where pixels begin and end."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from clickmask.clicks import Click, as_clicks, check_inside
from clickmask.errors import InvalidInputError


def test_numbers_of_any_real_type_become_floats() -> None:
    click = Click(np.int32(3), Fraction(1, 2), np.bool_(False))
    assert (click.x, click.y, click.positive) == (3.0, 0.5, False)
    assert type(click.x) is float
    assert type(click.y) is float
    assert type(click.positive) is bool
    assert Click(np.float32(1.5), 2) == Click(1.5, 2.0, True)


@pytest.mark.parametrize("value", [True, np.True_, "1", None, 1j, [1], np.array([1.0])])
def test_a_coordinate_must_be_a_real_number(value) -> None:
    with pytest.raises(InvalidInputError, match="x must be a real number"):
        Click(value, 0)
    with pytest.raises(InvalidInputError, match="y must be a real number"):
        Click(0, value)


@pytest.mark.parametrize("value", [10**400, float("nan"), float("inf"), -float("inf"), np.float32("nan")])
def test_a_coordinate_must_be_finite(value) -> None:
    with pytest.raises(InvalidInputError, match="y must be finite"):
        Click(0, value)


@pytest.mark.parametrize("value", [1, 0, -1, None, "positive", 1.0])
def test_the_label_must_be_a_bool(value) -> None:
    with pytest.raises(InvalidInputError, match="positive must be True"):
        Click(0, 0, value)


@pytest.mark.parametrize(
    ("x", "y", "pixel"),
    [
        (0, 0, (0, 0)),
        (-0.5, 0.49, (0, 0)),
        (0.5, 1.5, (1, 2)),
        (6.25, 6.75, (6, 7)),
        (math.nextafter(0.5, 0), math.nextafter(-0.5, -1), (0, -1)),
        (-1e-300, 2**52 + 1, (0, 2**52 + 1)),
    ],
)
def test_pixel_holds_half_a_pixel_to_each_side_of_its_centre(x, y, pixel) -> None:
    assert Click(x, y).pixel == pixel


@pytest.mark.parametrize(("x", "y"), [(-0.5, -0.5), (6.4999, 4.4999), (0, 4), (6, 0)])
def test_points_of_the_image_are_inside(x, y) -> None:
    check_inside(Click(x, y), (7, 5))


@pytest.mark.parametrize(("x", "y"), [(-0.5001, 0), (6.5, 0), (0, -0.6), (0, 4.5), (1e300, 0)])
def test_points_beyond_are_not(x, y) -> None:
    with pytest.raises(InvalidInputError, match=r"outside the image.* 7 wide and 5 high"):
        check_inside(Click(x, y), (7, 5))


def test_the_last_number_below_the_edge_is_inside_and_the_edge_is_not() -> None:
    check_inside(Click(math.nextafter(0.5, 0), math.nextafter(0.5, 0)), (1, 1))
    for x, y in ((0.5, 0), (0, 0.5), (math.nextafter(-0.5, -1), 0)):
        with pytest.raises(InvalidInputError, match="outside the image"):
            check_inside(Click(x, y), (1, 1))


def test_as_clicks_takes_clicks_and_triples() -> None:
    assert as_clicks(iter([Click(1, 2), (3, 4, False), [5, 6, True]])) == (
        Click(1, 2),
        Click(3, 4, False),
        Click(5, 6),
    )


@pytest.mark.parametrize(
    ("clicks", "words"),
    [
        (7, "iterable of Click"),
        ([(1, 2)], r"clicks\[0\] must be"),
        ([Click(0, 0), (1, 2, 3)], r"clicks\[1\]: positive"),
        ([(1, float("nan"), True)], r"clicks\[0\]: y must be finite"),
        (["abc"], r"clicks\[0\] must be"),
    ],
)
def test_as_clicks_names_the_bad_one(clicks, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        as_clicks(clicks)
