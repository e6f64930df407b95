"""Rules for the network input size: what they choose, that sessions follow them, on which objects."""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import pytest
from squares import write_set

sys.path.insert(0, str(Path(__file__).parents[1] / "sdk"))  # bundles.py

from bundles import make_bundle

from clickmask.evaluation.methods import BundleMethod
from clickmask.evaluation.run import annotate
from clickmask.view import Box, choose_size
from clickmask_training import size_objects
from clickmask_training.benchmark_sizes import main
from clickmask_training.size_objects import large_objects
from clickmask_training.size_rules import Pick, PickedSizes, rules

SIZES = (256, 384, 512, 608)


@pytest.mark.parametrize(
    ("pick", "chosen"),
    [
        (Pick(), {100: 256, 320: 256, 321: 384, 448: 384, 481: 512, 560: 512, 2000: 608}),
        (Pick(least=512, most=512), {100: 512, 2000: 512}),
        (Pick(least=384), {100: 384, 481: 512}),
        (Pick("larger"), {100: 256, 256: 256, 257: 384, 513: 608, 2000: 608}),
        (Pick("larger", least=384), {100: 384, 385: 512}),
        (Pick("smaller"), {100: 256, 383: 256, 384: 384, 607: 512, 2000: 608}),
    ],
)
def test_sizes_by_native_long_side(pick: Pick, chosen: dict[int, int]) -> None:
    assert {side: pick(Box(5, 0, 5 + side, 9), SIZES) for side in chosen} == chosen
    assert {side: pick(Box(0, 5, 9, 5 + side), SIZES) for side in chosen} == chosen


def test_the_first_rule_is_the_run_times() -> None:
    first = rules(BundleMethod("any", Path(), "onnxruntime", "cpu"), SIZES)[0]
    assert all(
        first.pick(box, SIZES) == choose_size(box, SIZES)
        for box in (Box(0, 0, w, 40) for w in range(50, 900))
    )


@pytest.fixture(scope="module")
def method(tmp_path_factory: pytest.TempPathFactory) -> BundleMethod:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    crop = {"kind": "fbrs", "start_click": 2, "min_size": 32}
    bundle = make_bundle(
        folder, bias=-0.6, crop=crop, input={"previous_mask": False, "sizes": [64, 128, 192]}
    )
    return BundleMethod("tiny", bundle, "onnxruntime", "cpu", threads=1)


def test_a_fixed_rule_is_the_sessions_fixed_size(method: BundleMethod, tmp_path: Path) -> None:
    write_set(tmp_path / "squares", count=8)
    samples = large_objects(tmp_path, ["squares"], held_out=False, each=1)
    rule = PickedSizes("all at 128", method, Pick(least=128, most=128)).open()
    public = BundleMethod("tiny", method.path, "onnxruntime", "cpu", 1, size=128).open()
    for sample in samples[:2]:
        assert annotate(rule, sample, 4).ious == annotate(public, sample, 4).ious


def test_objects_are_those_of_held_out_images_and_large_in_them(tmp_path: Path) -> None:
    write_set(tmp_path / "squares", count=320)
    path = tmp_path / "squares/instances.json"
    instances = json.loads(path.read_text())
    held_out = [name for name in instances if zlib.crc32(name.encode()) % 32 == 0]
    assert len(held_out) > 4
    changes = (
        {"area": 20},
        {"area": 19000},
        {"bbox": [0, 0, 160, 40]},
        {"thing": False},
    )  # of 160 x 120 pixels
    for name, change in zip(held_out, changes, strict=False):
        instances[name]["masks"][name]["1"].update(change)
    path.write_text(json.dumps(instances))
    chosen = large_objects(tmp_path, ["squares"], held_out=True, each=2)
    assert [sample.image_path.name for sample in chosen] == held_out[4:]
    truth, ignored = chosen[0].truth()
    assert truth.sum() == 40 * 50
    assert not ignored.any()
    assert len(large_objects(tmp_path, ["squares"], held_out=False, each=2)) == 320 - len(held_out)


def test_the_command_writes_a_page(
    method: BundleMethod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "squares", count=200)
    monkeypatch.setattr(size_objects, "_SETS", ("squares",))
    monkeypatch.setattr(size_objects, "_SEEN_SET", "squares")
    page, report = tmp_path / "sizes.md", tmp_path / "sizes.json"
    words = [str(method.path), "--data", str(tmp_path), "--objects", "2", "--markdown", str(page)]
    assert main([*words, "--json", str(report)]) == 0
    text = page.read_text()
    assert "held out: 2 objects in 2 images" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows][:2] == ["| nearest", "| nearest, at least 192"]
    assert "trained on: mIoU@5" in text
    finished = report.read_bytes()
    assert main([*words, "--json", str(report)]) == 0
    assert report.read_bytes() == finished
    assert main([str(tmp_path), "--data", str(tmp_path)]) == 1
    assert "not a bundle" in capsys.readouterr().err
