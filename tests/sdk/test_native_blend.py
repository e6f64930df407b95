"""The compiled blend beside NumPy's: the same, bit for bit, and no other arrays than it can change."""

from __future__ import annotations

import numpy as np
import pytest

from clickmask import native_library, native_pixels
from clickmask.blend import blend_into
from clickmask.clicks import Click
from clickmask.errors import InvalidInputError
from clickmask.view import Box, View

pytestmark = pytest.mark.skipif(
    not native_library.available(), reason=str(native_library.unavailable_because())
)


def test_logits_are_blended_the_same_bit_for_bit_with_and_without_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(3)
    for case in range(60):
        sides = rng.integers(1, 120, (2, 2))
        corners = rng.integers(0, 150, (2, 2))
        seen, view = (
            View(Box(x, y, x + width, y + height), 64, *options)
            for (x, y), (width, height) in zip(corners.tolist(), sides.tolist(), strict=True)
            for options in [[("letterbox", "half_pixel"), ("squash", "public")][case % 2]]
        )
        seen = view if case % 5 == 0 else seen
        logits, other = (rng.normal(size=one.valid_size[::-1]).astype(np.float32) for one in (view, seen))
        how = [(1.0, None), (0.25, Click(*rng.uniform(0, 200, 2).tolist()))][case % 3 == 0]
        compiled, plain = logits.copy(), logits.copy()
        blend_into(compiled, view, other, seen, *how)
        with monkeypatch.context() as patch:
            patch.setattr(native_library, "available", lambda: False)
            blend_into(plain, view, other, seen, *how)
        np.testing.assert_array_equal(compiled, plain)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_instruction_set_blends_as_the_formula_says(dtype: type, mirrored: bool) -> None:
    rng = np.random.default_rng(6)
    values, other = (rng.normal(size=(37, 61)).astype(np.float32) for _ in range(2))
    other = other.astype(dtype)[:, :: -1 if mirrored else 1]
    shares, away = (tuple(rng.random(count, np.float32) for count in values.shape) for _ in range(2))
    weight = np.minimum.outer(*shares) * np.maximum.outer(*away)
    expected = values + weight * (other.astype(np.float32) - values)
    for name in native_library.instruction_sets():
        room = np.full((39, 64), np.nan, np.float32)
        room[1:-1, 2:-1] = values
        native_pixels.blend(room[1:-1, 2:-1], other, shares, away, name)
        np.testing.assert_array_equal(room[1:-1, 2:-1], expected)
        room[1:-1, 2:-1] = np.nan
        assert np.isnan(room).all()


@pytest.mark.parametrize("wrong", ["read-only", "float64", "in columns"])
def test_values_that_it_cannot_change_are_refused(wrong: str) -> None:
    values = np.zeros((5, 4), np.float64 if wrong == "float64" else np.float32)
    values = np.asfortranarray(values) if wrong == "in columns" else values
    values.setflags(write=wrong != "read-only")
    ones = np.ones(5, np.float32), np.ones(4, np.float32)
    with pytest.raises(InvalidInputError, match="values: expected writeable float32, contiguous along rows"):
        native_pixels.blend(values, np.ones((5, 4), np.float32), ones, ones)
