"""The robot annotator and the field's figures."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sessions import make_segmenter

from clickmask.cli import main
from clickmask.clicks import Click
from clickmask.errors import InvalidInputError
from clickmask.evaluation import metrics
from clickmask.evaluation.datasets import Sample, fingerprint, read_dataset
from clickmask.evaluation.report import markdown, table
from clickmask.evaluation.robot import depth, next_click
from clickmask.evaluation.run import Curve, annotate, evaluate, summarise


def brute_force_depth(region: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the nearest pixel outside, the frame around the image included."""
    padded = np.pad(region, 1)
    outside = np.argwhere(~padded)
    result = np.zeros(padded.shape)
    for row, column in np.argwhere(padded):
        result[row, column] = np.sqrt(((outside - (row, column)) ** 2).sum(axis=1).min())
    return result[1:-1, 1:-1]


@settings(deadline=None, max_examples=40)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_depth_is_the_exact_distance_to_the_outside(region: np.ndarray) -> None:
    np.testing.assert_allclose(depth(region), brute_force_depth(region), atol=1e-5)


def blank(shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.zeros(shape, bool)


def test_the_first_click_is_positive_at_the_objects_deepest_pixel() -> None:
    truth = blank()
    truth[4:11, 10:17] = True
    assert next_click(blank(), truth, blank(), blank()) == Click(13, 7, True)


def test_the_deeper_error_wins() -> None:
    truth, prediction = blank(), blank()
    truth[2:5, 2:5] = True  # 3 x 3 missed
    prediction[10:15, 20:25] = True  # 5 x 5 surplus
    assert next_click(prediction, truth, blank(), blank()) == Click(22, 12, False)


def test_a_tie_is_a_negative_click_and_the_first_pixel_in_raster_order() -> None:
    truth, prediction = blank(), blank()
    truth[2:5, 2:5] = True
    prediction[10:13, 4:7] = True
    prediction[10:13, 20:23] = True
    assert next_click(prediction, truth, blank(), blank()) == Click(5, 11, False)


def test_the_image_border_counts_as_outside() -> None:
    truth = blank()
    truth[:, :5] = True  # its deepest column is the middle one, not the border
    click = next_click(blank(), truth, blank(), blank())
    assert click is not None
    assert click.x == 2


def test_ignored_and_clicked_pixels_are_never_clicked() -> None:
    truth, ignored, clicked = blank(), blank(), blank()
    truth[4:11, 10:17] = True
    ignored[4:11, 10:12] = True
    seen = set()
    for _ in range(35):
        click = next_click(blank(), truth, ignored, clicked)
        assert click is not None
        position = int(click.y), int(click.x)
        assert not ignored[position]
        assert position not in seen
        seen.add(position)
        clicked[position] = True
    assert next_click(blank(), truth, ignored, clicked) is None


def test_a_perfect_mask_needs_no_click() -> None:
    truth = blank()
    truth[4:11, 10:17] = True
    assert next_click(truth, truth, blank(), blank()) is None


def test_iou_skips_ignored_pixels() -> None:
    truth, prediction, ignored = blank(), blank(), blank()
    truth[:4, :10] = True  # 40 pixels
    prediction[:2, :10] = True  # 20 of them
    ignored[2, :10] = True  # 10 of the missed ones do not count
    assert metrics.iou(prediction, truth, ignored) == pytest.approx(20 / 30)
    assert metrics.iou(blank(), blank(), blank()) == 1.0


CURVES = [[0.5, 0.86, 0.91], [0.95, 0.95, 0.95], [0.2, 0.3, 0.4], [0.5, 0.6, 0.9]]


def test_number_of_clicks_counts_a_failure_as_the_limit() -> None:
    assert metrics.noc(CURVES, 0.85, 3) == (2 + 1 + 3 + 3) / 4
    assert metrics.noc(CURVES, 0.90, 3) == (3 + 1 + 3 + 3) / 4


def test_a_success_at_the_last_click_is_a_failure_of_the_public_count_only() -> None:
    assert metrics.nof(CURVES, 0.90, 3) == 3
    assert metrics.failures(CURVES, 0.90, 3) == 1


def test_mean_iou_keeps_the_last_value_of_a_short_curve() -> None:
    assert metrics.mean_iou_at([[0.5, 1.0], [0.2, 0.4, 0.6]], 3) == pytest.approx(0.8)


def test_the_summary_holds_the_fields_figures() -> None:
    curves = [Curve(str(i), tuple(ious), (0.01, 0.02, 0.03)) for i, ious in enumerate(CURVES)]
    report = summarise(curves, 3)
    assert report["objects"] == 4
    assert report["noc"]["0.90"] == 2.5
    assert report["nof"]["0.90"] == 3
    assert report["miou"] == [round(float(np.mean(column)), 4) for column in zip(*CURVES, strict=True)]
    assert report["seconds_per_click"]["median"] == 0.02
    json.dumps(report)


def test_reports_show_the_figures_in_text_and_markdown() -> None:
    curves = [Curve(str(i), tuple(ious), (0.01, 0.02, 0.03)) for i, ious in enumerate(CURVES)]
    identity = {"dataset": "disks", "data_sha256": "0" * 64, "checkpoint_sha256": "1" * 64}
    report = {**identity, "bundle": "b", "backend": "fake", "device": "cpu", **summarise(curves, 3)}
    assert "NoC     @0.80 2.25  @0.85 2.25  @0.90 2.50" in table(report)
    (row,) = [line for line in markdown([report]).splitlines() if line.startswith("| disks")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:6] == ["disks", "4", "2.25", "2.25", "2.50", "3"]
    assert [float(cell) for cell in cells[6:8]] == pytest.approx([0.5375, 0.79], abs=0.0006)
    assert cells[8:10] == ["", ""]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two pictures with one disk each; the second has an ignored band."""
    from PIL import Image

    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    instances = {}
    for name, x in (("b", 60), ("a", 90)):
        mask = np.zeros((120, 160), np.uint8)
        cv2.circle(mask, (x, 60), 20, 7, -1)
        if name == "a":
            mask[:10] = 255
        image = np.dstack([mask * 20] * 3)
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), image)
        palette = Image.fromarray(mask).convert("P")
        palette.putpalette([255 - i // 3 for i in range(768)])  # colours unlike the indices
        palette.save(tmp_path / f"masks/{name}.png")
        instances[f"{name}.png"] = {"size": [160, 120], "masks": {f"{name}.png": {}}}
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    return tmp_path


def test_masks_are_read_as_indices_not_colours(dataset: Path) -> None:
    first, second = read_dataset(dataset)
    assert (first.name, second.name) == ("a.png", "b.png")
    truth, ignored = first.truth()
    assert truth[60, 90]
    assert truth.sum() == pytest.approx(np.pi * 20**2, rel=0.05)
    assert ignored.sum() == 10 * 160
    assert not (truth & ignored).any()


def test_the_robot_works_through_a_session(dataset: Path) -> None:
    # FakeBackend draws disks around clicks, so more clicks on a disk-shaped object help.
    segmenter = make_segmenter()
    for curve in evaluate(segmenter, read_dataset(dataset), 8):
        assert 1 <= len(curve.ious) <= 8
        assert len(curve.seconds) == len(curve.ious)
        assert max(curve.ious) > curve.ious[0]
    sample = read_dataset(dataset)[0]
    assert annotate(segmenter, sample, 8).ious == annotate(segmenter, sample, 8).ious


def test_the_fingerprint_changes_with_any_byte(dataset: Path) -> None:
    before = fingerprint(read_dataset(dataset))
    assert before == fingerprint(read_dataset(dataset))
    path = dataset / "images/a.png"
    path.write_bytes(path.read_bytes() + b"\0")
    assert fingerprint(read_dataset(dataset)) != before


def test_a_folder_that_is_no_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"instances\.json does not exist"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"a.png": {}}', '{"a.png": {"masks": {}}}'])
def test_a_broken_list_of_instances_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(InvalidInputError, match=r"instances\.json: expected"):
        read_dataset(tmp_path)


def test_a_mask_of_another_size_than_its_image_is_refused(dataset: Path) -> None:
    cv2.imwrite(str(dataset / "images/a.png"), np.zeros((160, 120, 3), np.uint8))
    with pytest.raises(InvalidInputError, match="of one size"):
        annotate(make_segmenter(), read_dataset(dataset)[0], 3)


def test_a_mask_without_an_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), np.zeros((4, 4), np.uint8))
    with pytest.raises(InvalidInputError, match="expected an object"):
        Sample("m", path, path).truth()


def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "nowhere", "--root", str(dataset.parent), "--dataset", dataset.name]
    assert main([*command, "--markdown", str(tmp_path / "missing/page.md")]) == 1
    assert "--markdown: expected a file in an existing folder" in capsys.readouterr().err


def test_a_true_colour_mask_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InvalidInputError, match="8-bit indexed PNG, got mode RGB"):
        Sample("m", path, path).truth()


def test_the_shared_benchmarks_have_the_objects_their_readme_says(shared: Path) -> None:
    counts = {
        name: len(read_dataset(shared / "data/eval" / name)) for name in ("grabcut", "berkeley", "davis")
    }
    assert counts == {"grabcut": 35, "berkeley": 66, "davis": 242}
