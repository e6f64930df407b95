"""Crop policies compared: that every arm follows its policy, and what is counted of the encoder."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from squares import write_set

sys.path.insert(0, str(Path(__file__).parents[1] / "sdk"))  # bundles.py

from bundles import make_bundle

from clickmask.crop import CropPolicy
from clickmask.encoded_crops import EncodedCrops
from clickmask.evaluation.datasets import read_dataset
from clickmask.evaluation.methods import BundleMethod
from clickmask.evaluation.run import annotate
from clickmask.predictor import Predictor
from clickmask.state import State
from clickmask.view import Box, View
from clickmask_training import crop_arms, size_objects
from clickmask_training.benchmark_crops import main
from clickmask_training.crop_arms import POLICIES, Encodes, annotated, policy_arms

OWN = {"kind": "stable", "start_click": 2, "min_size": 32, "min_fraction": 0.2}


@pytest.fixture(scope="module")
def method(tmp_path_factory: pytest.TempPathFactory) -> BundleMethod:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    inputs = {"previous_mask": False, "sizes": [64, 128]}
    bundle = make_bundle(folder, bias=-0.6, crop=OWN, input=inputs)
    return BundleMethod("tiny", bundle, "onnxruntime", "cpu", threads=1)


def test_policies_differ_in_their_rule_and_not_in_how_small_a_crop_may_be(method: BundleMethod) -> None:
    arms = {arm.name: arm.policy for arm in policy_arms(POLICIES, method, CropPolicy(**OWN))}
    assert list(arms) == list(POLICIES)
    for name in ("paper", "fbrs", "stable"):
        named = CropPolicy.named(name)
        assert (arms[name].min_size, arms[name].min_fraction) == (32, 0.2)
        assert arms[name].kind == named.kind
        assert (arms[name].expansion, arms[name].hysteresis_iou) == (named.expansion, named.hysteresis_iou)
    own = CropPolicy.named("stable").close_above
    assert [arms[name].close_above for name in ("stable_once", "stable", "stable_closely")] == [None, own, 0]
    assert replace(arms["stable_closely"], close_above=own) == arms["stable"]


def test_an_arm_clicks_as_sessions_of_its_policy_do(method: BundleMethod, tmp_path: Path) -> None:
    write_set(tmp_path / "squares", count=3)
    samples = read_dataset(tmp_path / "squares")
    public = BundleMethod("tiny", method.path, "onnxruntime", "cpu", 1, crop_policy="none").open()
    (arm,) = policy_arms(["none"], method, CropPolicy(**OWN))
    encodes: list[list[Encodes]] = []
    curves = list(annotated(arm, samples, 4, encodes))
    assert [curve.clicks for curve in curves] == [annotate(public, s, 4).clicks for s in samples]
    for curve, session in zip(curves, encodes, strict=True):
        # the whole image, encoded once when the session began
        assert [click.moved for click in session] == [True] + [False] * (len(curve.clicks) - 1)
        assert [len(click.ahead) for click in session] == [1] + [0] * (len(curve.clicks) - 1)
        assert not any(click.waited for click in session)


def test_a_crop_that_nobody_foresaw_is_waited_for(
    method: BundleMethod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path / "squares", count=1)
    (sample,) = read_dataset(tmp_path / "squares")
    monkeypatch.setattr("clickmask.predictor.Predictor.look_ahead", lambda *_: None)
    (arm,) = policy_arms(["none"], method, CropPolicy(**OWN))
    encodes: list[list[Encodes]] = []
    list(annotated(arm, [sample], 3, encodes))
    assert [click.waited for click in encodes[0]] == [True] + [False] * (len(encodes[0]) - 1)


def test_a_crop_that_was_dropped_and_encoded_again_is_not_there_at_once(
    method: BundleMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for one crop: after each click another is encoded, and then its own, which it has seen, again."""
    prefetch = Predictor.prefetch

    def also_elsewhere(self: Predictor, state: State) -> None:
        self._crops.features(View(Box(3, 3, 40, 40), 64))
        prefetch(self, state)

    monkeypatch.setattr(Predictor, "prefetch", also_elsewhere)
    monkeypatch.setattr("clickmask.segmenter.EncodedCrops", lambda _: EncodedCrops(0))
    (arm,) = policy_arms(["none"], method, CropPolicy(**OWN))
    with arm.open() as patients:
        patient = patients.session(np.zeros((60, 80, 3), np.uint8))
        for x in (10, 20, 30):
            patient.click(x, 30)
    for number, click in enumerate(patient.clicks):
        assert (click.moved, click.waited, len(click.ahead)) == (number == 0, False, 2)
        assert click.needed == pytest.approx(sum(click.ahead))
        assert not click.ready(0.9 * click.needed)
        assert click.ready(1.1 * click.needed)


@pytest.mark.parametrize(
    ("click", "ready"),
    [
        (Encodes(moved=True, waited=False, ahead=[0.2], needed=0.2), {0.3: True, 0.1: False}),
        (Encodes(moved=False, waited=False, ahead=[0.2, 0.2], needed=0.4), {0.3: False, 1.0: True}),
        (Encodes(moved=True, waited=True, ahead=[], needed=0.0), {1.0: False}),
        (Encodes(moved=False, waited=False, ahead=[5.0], needed=0.0), {0.3: True}),  # a crop it does not need
    ],
)
def test_a_crop_is_ready_when_the_pause_is_long_enough(click: Encodes, ready: dict[float, bool]) -> None:
    assert {pause: click.ready(pause) for pause in ready} == ready


def test_the_command_goes_on_where_it_was_stopped(
    method: BundleMethod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "squares", count=200)
    monkeypatch.setattr(size_objects, "_SETS", ("squares",))
    page, report = tmp_path / "crops.md", tmp_path / "crops.json"
    words = [str(method.path), "--data", str(tmp_path), "--root", str(tmp_path), "--dataset", "squares"]
    words += ["--objects", "2", "--policy", "fbrs", "none", "--threads", "1"]
    words += ["--json", str(report), "--markdown", str(page)]
    done = []

    def stopped(*arguments: object) -> object:
        done.append(arguments)
        if len(done) == 4:  # the second object of the second policy
            raise KeyboardInterrupt
        return annotate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(crop_arms, "annotate", stopped)
    assert main(words) == 130
    assert "goes on" in capsys.readouterr().err
    assert "**Incomplete**" in page.read_text()
    assert main(words) == 0
    assert len(done) == 9  # 2 policies, 2 sets of 2 objects, and the one that was stopped in
    text = page.read_text()
    assert "**Incomplete**" not in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## held out", "## squares"]
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    assert rows == ["| `fbrs`", "| `none`"] * 2
    for run in json.loads(report.read_text())["runs"]:
        assert [len(clicks) for clicks in run["encodes"]] == [len(curve["ious"]) for curve in run["curves"]]


def test_mirrored_objects_come_beside_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "squares", count=200)
    monkeypatch.setattr(size_objects, "_SETS", ("squares",))
    plain = size_objects.held_out_objects(tmp_path, 2).samples
    both = size_objects.held_out_objects(tmp_path, 2, mirrored=True)
    assert both.samples[:2] == plain
    assert len({sample.name for sample in both.samples}) == len(both.samples) == 4
    for sample, twin in zip(plain, both.samples[2:], strict=True):
        assert twin.group == sample.group  # they are no independent ones
        np.testing.assert_array_equal(twin.image(), np.fliplr(sample.image()))
        for ours, theirs in zip(twin.truth(), sample.truth(), strict=True):
            np.testing.assert_array_equal(ours, np.fliplr(theirs))
            assert ours.flags.c_contiguous


def test_the_command_annotates_mirrored_objects_too(
    method: BundleMethod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "squares", count=200)
    monkeypatch.setattr(size_objects, "_SETS", ("squares",))
    words = [str(method.path), f"--data={tmp_path}", "--objects=2", "--mirrored", "--policy=none"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "## held out, and mirrored" in printed
    assert "4 objects in 2 images" in printed


def test_what_to_compare_on_has_to_be_said(method: BundleMethod, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(method.path), "--mirrored", "--root=x", "--dataset=y"]) == 1
    assert "--mirrored: expected --data" in capsys.readouterr().err
    assert main([str(method.path)]) == 1
    assert "--data" in capsys.readouterr().err
    assert main([str(method.path), "--dataset", "berkeley"]) == 1
    assert "--root" in capsys.readouterr().err
