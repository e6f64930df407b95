"""Rules for the network input size: what they choose, that sessions follow them, on which objects."""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from squares import write_set

sys.path.insert(0, str(Path(__file__).parents[1] / "sdk"))  # bundles.py

from bundles import make_bundle

from clickmask.evaluation.methods import BundleMethod
from clickmask.evaluation.run import annotate
from clickmask_training import benchmark_sizes
from clickmask_training.benchmark_sizes import Enlarged, choose_objects, main
from clickmask_training.size_rules import NEAREST, Pick, SizeRule, fixed

SIZES = (256, 384, 512, 608)


@pytest.mark.parametrize(
    ("pick", "chosen"),
    [
        (NEAREST, {100: 256, 320: 256, 321: 384, 448: 384, 481: 512, 560: 512, 2000: 608}),
        (fixed(512), {100: 512, 2000: 512}),
        (Pick(most=384), {100: 256, 481: 384, 2000: 384}),
        (Pick(least=384), {100: 384, 481: 512}),
        (Pick(1.5), {200: 256, 300: 512}),
        (Pick(below=True), {100: 256, 383: 256, 384: 384, 607: 512, 2000: 608}),
    ],
)
def test_sizes_by_native_long_side(pick: Pick, chosen: dict[int, int]) -> None:
    assert {side: pick.size(side, SIZES) for side in chosen} == chosen


@pytest.fixture(scope="module")
def method(tmp_path_factory: pytest.TempPathFactory) -> BundleMethod:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    crop = {"kind": "fbrs", "start_click": 2, "min_size": 32}
    bundle = make_bundle(
        folder, bias=-0.6, crop=crop, input={"previous_mask": False, "sizes": [64, 128, 192]}
    )
    return BundleMethod("tiny", bundle, "onnxruntime", "cpu", threads=1)


def test_first_and_later_views_have_rules_of_their_own(
    method: BundleMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = SizeRule("mixed", method, first=fixed(192), later=fixed(64)).open()
    backend, seen = opened.segmenter.backend, []
    encode = backend.encode
    monkeypatch.setattr(
        backend, "encode", lambda image, local: seen.append(image.shape) or encode(image, local)
    )
    image = np.zeros((100, 160, 3), np.uint8)
    image[40:60, 40:60] = 220
    session = opened.session(image)
    session.click(50, 50)
    session.click(45, 45)
    assert seen == [(1, 3, 192, 192), (1, 3, 64, 64)]


def test_a_fixed_rule_is_the_sessions_fixed_size(method: BundleMethod, tmp_path: Path) -> None:
    write_set(tmp_path / "squares", count=8)
    samples = choose_objects(tmp_path, ["squares"], held_out=False, each=1)
    rule = SizeRule("all at 128", method, fixed(128), fixed(128)).open()
    public = BundleMethod("tiny", method.path, "onnxruntime", "cpu", 1, size=128).open()
    for sample in samples[:2]:
        assert annotate(rule, sample, 4).ious == annotate(public, sample, 4).ious


def test_objects_are_those_of_held_out_images_and_large_enough(tmp_path: Path) -> None:
    write_set(tmp_path / "squares", count=200)
    path = tmp_path / "squares/instances.json"
    instances = json.loads(path.read_text())
    held_out = [name for name in instances if zlib.crc32(name.encode()) % 32 == 0]
    assert len(held_out) > 1
    instances[held_out[0]]["masks"][held_out[0]]["1"]["area"] = 20  # of 120 x 160
    path.write_text(json.dumps(instances))
    chosen = choose_objects(tmp_path, ["squares"], held_out=True, each=2)
    assert [sample.image_path.name for sample in chosen] == held_out[1:]
    truth, ignored = chosen[0].truth()
    assert truth.sum() == 40 * 50
    assert not ignored.any()
    assert len(choose_objects(tmp_path, ["squares"], held_out=False, each=2)) == 200 - len(held_out)


def test_an_enlarged_photo_keeps_its_object(tmp_path: Path) -> None:
    write_set(tmp_path / "squares", count=1)
    (sample,) = choose_objects(tmp_path, ["squares"], held_out=False, each=1)
    large = Enlarged(sample.name, sample.image_path, sample.source, sample.group)
    image, (truth, ignored) = large.image(), large.truth()
    assert image.shape[:2] == truth.shape == ignored.shape == (640, 854)
    assert truth.mean() == pytest.approx(sample.truth()[0].mean(), rel=0.02)
    inside = image[truth].mean(), image[~truth].mean()
    assert inside == pytest.approx((220, 60), abs=2)
    assert not ignored.any()


def test_the_command_writes_a_page(
    method: BundleMethod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "squares", count=200)
    monkeypatch.setattr(benchmark_sizes, "_SETS", ("squares",))
    monkeypatch.setattr(benchmark_sizes, "_LARGE_SET", "squares")
    page, report = tmp_path / "sizes.md", tmp_path / "sizes.json"
    words = [str(method.path), "--data", str(tmp_path), "--objects", "2", "--markdown", str(page)]
    assert main([*words, "--json", str(report)]) == 0
    text = page.read_text()
    assert "held out: 2 objects in 2 images" in text
    rows = [line for line in text.splitlines() if line.startswith("| all at ")]
    assert [row.split(" | ")[0] for row in rows] == [f"| all at {size}" for size in (64, 128, 192)]
    finished = report.read_bytes()
    assert main([*words, "--json", str(report)]) == 0
    assert report.read_bytes() == finished
    assert main([str(tmp_path), "--data", str(tmp_path)]) == 1
    assert "not a bundle" in capsys.readouterr().err
