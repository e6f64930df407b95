"""Plots: that the ink is where the numbers are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import SIZE, write_indexed
from reports import HOST, SETTINGS, finished
from sessions import make_segmenter

from clickmask.errors import InvalidInputError
from clickmask.evaluation.charts import draw_curves
from clickmask.evaluation.datasets import read_dataset
from clickmask.evaluation.drawing import PALETTE, Canvas
from clickmask.evaluation.report import new_run, summarise
from clickmask.evaluation.run import annotate
from clickmask.evaluation.sheet import draw_sheet
from clickmask.picture_files import read_picture


def inked(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """(H, W) bool: where a colour is, exactly."""
    return (picture == np.array(colour)).all(axis=2)


def test_text_is_where_it_should_be() -> None:
    canvas = Canvas(200, 60)
    canvas.text(100, 30, "0000", 20, (255, 0, 0), "middle")
    rows, columns = np.nonzero((canvas.pixels != 255).any(axis=2))
    assert (rows.min() + rows.max()) / 2 == pytest.approx(30, abs=1.5)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(100, abs=1.5)
    assert np.ptp(columns) == pytest.approx(canvas.text_width("0000", 20), abs=4)


def test_text_beyond_the_edge_is_cut_off() -> None:
    canvas = Canvas(40, 20)
    canvas.text(-10, 2, "wide words", 18)
    canvas.text(10, 500, "below", 18)
    canvas.text(5, 5, "", 18)
    assert canvas.pixels.shape == (20, 40, 3)
    assert (canvas.pixels != 255).any()


def test_a_dashed_line_has_gaps() -> None:
    canvas = Canvas(120, 21)
    canvas.line([(10, 10), (60, 10), (110, 10)], (0, 0, 0), 1, (10, 10))
    row = canvas.pixels[10, :, 0]
    assert [bool(row[x] < 128) for x in range(15, 110, 10)] == [True, False] * 5


def rising(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, 3) + np.zeros((12, 1))


def test_the_chart_draws_a_line_for_each_run(tmp_path: Path) -> None:
    runs = [finished(rising(0.62, 0.97)), finished(rising(0.41, 0.5), dataset="squares")]
    draw_curves(tmp_path / "out.png", runs)
    picture = read_picture(tmp_path / "out.png")
    heights = [np.nonzero(inked(picture[:600, :760], colour))[0].mean() for colour in PALETTE[:2]]
    assert heights[0] < heights[1]  # the better one is higher up
    assert not inked(picture, PALETTE[2]).any()


def test_a_method_is_a_kind_of_line(tmp_path: Path) -> None:
    one, anchor = finished(rising(0.6, 0.9)), finished(rising(0.4, 0.6), method="grabcut")
    draw_curves(tmp_path / "one.png", [one])
    draw_curves(tmp_path / "both.png", [one, anchor])
    pictures = [read_picture(tmp_path / name) for name in ("one.png", "both.png")]
    ink = [inked(picture, PALETTE[0]).sum() for picture in pictures]
    assert ink[0] < ink[1] < 2 * ink[0]


def test_without_mean_iou_the_chart_has_one_panel(tmp_path: Path) -> None:
    run = finished(rising(0.6, 0.9))
    run["figures"]["miou"] = None
    draw_curves(tmp_path / "out.png", [run])
    assert inked(read_picture(tmp_path / "out.png")[:, 1200:], PALETTE[0]).any()


@pytest.fixture
def measured(tmp_path: Path) -> tuple[dict[str, Any], list[Any]]:
    samples = read_dataset(write_indexed(tmp_path / "disks"))
    curves = [annotate(make_segmenter(), sample, 3) for sample in samples]
    run = new_run(dict(SETTINGS), dict(HOST))
    run.update(curves=[c.to_json() for c in curves], figures=summarise(curves, 3), complete=True)
    return run, samples


def test_the_contact_sheet_shows_masks_outlines_and_clicks(
    measured: tuple[dict[str, Any], list[Any]], tmp_path: Path
) -> None:
    run, samples = measured
    draw_sheet(tmp_path / "sheet.png", run, samples)
    picture = read_picture(tmp_path / "sheet.png")[112:]
    cells = [picture[:278, x : x + 370] for x in range(20, 1560, 390)]
    assert len(cells) == 4
    for cell in cells:
        assert inked(cell, (255, 221, 0)).any()  # the outline
        assert inked(cell, (0, 170, 60)).any()  # the first click
        assert (cell[:, :, 2].astype(int) - cell[:, :, 0] > 40).any()  # the mask's tint


def test_the_contact_sheet_begins_with_the_worst(
    measured: tuple[dict[str, Any], list[Any]], tmp_path: Path
) -> None:
    run, samples = measured
    for document in run["curves"]:
        document.update(ious=[0.95, 0.95, 0.95], mask=run["curves"][0]["mask"])
    empty = make_segmenter().session(np.zeros((*SIZE, 3), np.uint8)).rle()["counts"]
    run["curves"][2].update(ious=[0.0, 0.0, 0.0], mask=empty)
    draw_sheet(tmp_path / "sheet.png", run, samples)
    first = read_picture(tmp_path / "sheet.png")[112:390, 20:390].astype(int)
    grey = (first[:, :, 0] == first[:, :, 2]) & (first[:, :, 0] > 0)
    assert grey.mean() > 0.8  # no tint in it: the empty mask


def test_missing_pillow_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InvalidInputError, match=r"needs Pillow: pip install .clickmask\[evaluation\]"):
        Canvas(9, 9).text(1, 1, "a", 9)
