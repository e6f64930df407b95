"""Photographs that INT8 is measured on and judged by."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
from export_stand_ins import EarlyFusion
from test_build import recipe

from clickmask_export.calibration import clicks_in, held_cases, load_calibration
from clickmask_export.errors import RecipeError

SPEC = recipe(EarlyFusion(), False, None).input


def photos(count, seed=0):
    """Smooth colour fields of differing sizes, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 5, 7, 3), np.uint8)
    return tuple(
        cv2.resize(image, (90 + i, 60), interpolation=cv2.INTER_CUBIC) for i, image in enumerate(coarse)
    )


def write(folder, count):
    folder.mkdir()
    for number, photo in enumerate(photos(count)):
        cv2.imwrite(str(folder / f"{number:03}.png"), photo[..., ::-1])
    return folder


def test_every_fourth_photograph_is_held_back(tmp_path):
    (write(tmp_path / "photos", 16) / "notes.txt").write_text("no photograph")
    found = load_calibration(tmp_path / "photos")
    assert (len(found.measured), len(found.held)) == (12, 4)
    everything = photos(16)
    np.testing.assert_array_equal(found.held[0], everything[3])
    np.testing.assert_array_equal(found.measured[3], everything[4])


def test_a_folder_that_will_not_do(tmp_path):
    with pytest.raises(RecipeError, match=r"expected at least 16 photographs in .*, got 3"):
        load_calibration(write(tmp_path / "few", 3))
    with pytest.raises(RecipeError, match="expected a folder"):
        load_calibration(tmp_path / "none")
    folder = write(tmp_path / "broken", 16)
    (folder / "zzz.jpg").write_bytes(b"no picture")
    with pytest.raises(RecipeError, match=r"remove zzz\.jpg"):
        load_calibration(folder)


@pytest.mark.parametrize(("count", "calls"), [(4, 64), (6, 66), (64, 64), (70, 70)])
def test_few_photographs_judge_often(count, calls):
    """Each as often as any other, at every size and with one, two and three clicks."""
    held = photos(count)
    cases = held_cases(held, SPEC)
    assert len(cases) == calls
    assert len({case.label for case in cases}) == calls
    assert len({case.clicks.tobytes() for case in cases}) == calls
    first = [case for case in cases if case.label.startswith("held photograph 1,")]
    assert len(first) == calls // count
    if count < 64:
        assert {case.image.shape[-1] for case in first} == set(SPEC.sizes)
        assert {int((case.clicks[..., 2] >= 0).sum()) for case in first} == {1, 2, 3}


@pytest.mark.parametrize("count", [4, 12, 25, 70])
@pytest.mark.parametrize("sizes", [(64, 96), (64, 96, 128), (64, 96, 128, 160)])
def test_every_size_is_judged_with_every_number_of_clicks(count, sizes):
    cases = held_cases(photos(count), replace(SPEC, sizes=sizes))
    pairs = Counter((case.image.shape[-1], int((case.clicks[..., 2] >= 0).sum())) for case in cases)
    assert set(pairs) == {(size, clicks) for size in sizes for clicks in (1, 2, 3)}
    assert max(pairs.values()) <= 2 * min(pairs.values())


@pytest.mark.parametrize("count", range(4, 40))
def test_every_size_of_many_is_judged(count):
    sizes = tuple(range(64, 64 + 8 * 32, 32))
    cases = held_cases(photos(count), replace(SPEC, sizes=sizes))
    times = Counter(case.image.shape[-1] for case in cases)
    assert set(times) == set(sizes)
    assert min(times.values()) >= 3


def test_clicks_are_inside_and_absent_rows_are_marked():
    for count in (1, 2, 3):
        rows = clicks_in(64, count, 7)
        assert rows.shape == (1, 4, 3)
        assert list(rows[0, :, 2]) == [1, 0, 1][:count] + [-1] * (4 - count)
        assert ((rows[0, :count, :2] > 0) & (rows[0, :count, :2] < 64)).all()
