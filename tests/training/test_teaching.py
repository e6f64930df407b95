"""A teacher: its masks and its encoder's features are learnt, and one that does not fit is refused."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from squares import write_set
from torch import nn

from clickmask_models.backbones.mobilenet_v2 import HIDDEN
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_models.presets import build_network, preset
from clickmask_training.checks import ConfigError
from clickmask_training.config import TrainingConfig
from clickmask_training.data import TrainingData
from clickmask_training.samples import make_batch
from clickmask_training.settings import LossSettings
from clickmask_training.trainer import Trainer

FEATURES = LossSettings(features=1.0)


def config(loss: LossSettings) -> TrainingConfig:
    return TrainingConfig(
        mixture={"squares": 1.0},
        steps=30,
        crop_sizes={64: 1.0},
        batch_pixels=4 * 64 * 64,
        warmup=2,
        backbone_from=0.0,
        frozen_blocks=0,
        backbone_rate=1e-2,
        loss=loss,
    )


def test_features_come_nearer_the_teachers(tmp_path: Path) -> None:
    write_set(tmp_path / "squares")
    data = TrainingData(tmp_path, {"squares": 1.0})
    torch.manual_seed(0)
    hidden = tuple(count // 4 for count in HIDDEN)
    teacher = EncodeOnceCDNet()
    run = Trainer(
        EncodeOnceCDNet(EncodeOnceConfig(hidden=hidden)), config(FEATURES), tmp_path / "run", teacher=teacher
    )
    batch = make_batch(data, run.config, 0)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}

    def distance() -> float:
        with torch.no_grad():
            maps = zip(run.network.eval().encode(batch.image), teacher.encode(batch.image), strict=True)
            return sum(float((ours - theirs).square().mean() / theirs.var()) for ours, theirs in maps)

    first = distance()
    for _ in range(20):
        run.train_step(batch)
    assert distance() < 0.5 * first
    torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)


def test_a_teacher_that_gives_masks_answers_as_the_run_time_would(tmp_path: Path) -> None:
    """In training mode its batch norms would follow the student's crops."""
    write_set(tmp_path / "squares")
    data = TrainingData(tmp_path, {"squares": 1.0})
    teacher = EncodeOnceCDNet()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    run = Trainer(
        EncodeOnceCDNet(), config(LossSettings(distillation=1.0)), tmp_path / "run", teacher=teacher
    )
    run.train_step(make_batch(data, run.config, 0))
    assert not any(module.training for module in teacher.modules())
    torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)


def test_an_encoder_learns_features_alone_and_the_decoder_stays(tmp_path: Path) -> None:
    write_set(tmp_path / "squares")
    data = TrainingData(tmp_path, {"squares": 1.0})
    torch.manual_seed(0)
    student = EncodeOnceCDNet(EncodeOnceConfig(hidden=tuple(count // 4 for count in HIDDEN)))
    untouched = nn.ModuleList([student.decoder, *student.lateral[:3]])
    before = {name: value.clone() for name, value in untouched.state_dict().items()}
    alone = config(LossSettings(bce=0.0, dice=0.0, features=1.0))
    run = Trainer(student, alone, tmp_path / "run", teacher=EncodeOnceCDNet())
    batch = make_batch(data, run.config, 0)
    losses = [run.train_step(batch)[0] for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    torch.testing.assert_close(untouched.state_dict(), before, rtol=0, atol=0)


def test_a_run_of_features_alone_logs_no_masks_and_goes_on(tmp_path: Path) -> None:
    write_set(tmp_path / "squares")
    data = TrainingData(tmp_path, {"squares": 1.0})
    alone = replace(config(LossSettings(bce=0.0, dice=0.0, features=1.0)), steps=1)
    torch.manual_seed(0)
    teacher = EncodeOnceCDNet()
    for steps in (1, 2):
        run = Trainer(EncodeOnceCDNet(), replace(alone, steps=steps), tmp_path / "run", teacher=teacher)
        assert run.resume() == (steps == 2)
        run.run(data)
    rows = list(csv.DictReader((tmp_path / "run/log.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert all(float(row["loss"]) > 0 and row["iou"] == "" for row in rows)
    assert not (tmp_path / "run/preview.png").exists()  # no mask was predicted


@pytest.mark.parametrize(
    ("teacher", "loss", "reason"),
    [
        (None, FEATURES, r"expected a teacher \(--teacher FILE\)"),
        (
            "encode_once_mobilenet_v2",
            LossSettings(),
            "expected a weight above 0 of loss.distillation or loss.features",
        ),
        ("official", FEATURES, "expected an encode-once network, got CDNet for the teacher"),
    ],
)
def test_a_teacher_that_no_loss_asks_for_or_that_does_not_fit_is_refused(
    teacher: str | None, loss: LossSettings, reason: str, tmp_path: Path
) -> None:
    given = build_network(preset(teacher)) if teacher else None
    with pytest.raises(ConfigError, match=reason):
        Trainer(EncodeOnceCDNet(), config(loss), tmp_path / "run", teacher=given)


def test_encoders_of_other_widths_are_refused(tmp_path: Path) -> None:
    wide = EncodeOnceCDNet(replace(EncodeOnceConfig(), widths=(16, 32, 96, 192)))
    with pytest.raises(ConfigError, match="128 channels at stride 16 and the teacher's 192"):
        Trainer(EncodeOnceCDNet(), config(FEATURES), tmp_path / "run", teacher=wide)


def test_networks_with_clicks_at_the_stem_have_no_features_to_learn(tmp_path: Path) -> None:
    network: nn.Module = build_network(preset("official"))
    settings = replace(config(FEATURES), network="official", frozen_blocks=0)
    with pytest.raises(ConfigError, match="got CDNet for the network"):
        Trainer(network, settings, tmp_path / "run", teacher=EncodeOnceCDNet())
