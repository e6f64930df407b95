"""What is watched during training: the robot on held-out images, previews, the log's lines."""

from __future__ import annotations

import io
import sys
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from squares import write_set
from torch import Tensor, nn

from clickmask_models.checkpoints import load_checkpoint, save_checkpoint
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_training.average import average_networks, main
from clickmask_training.checks import ConfigError
from clickmask_training.config import TrainingConfig
from clickmask_training.data import TrainingData
from clickmask_training.held_out import RobotCheck
from clickmask_training.log import clock, line
from clickmask_training.precision import choose_device, scaler
from clickmask_training.preview import Seen, write_preview
from clickmask_training.samples import Batch, batches, make_batch
from clickmask_training.settings import ValidationSettings
from clickmask_training.trainer import Trainer
from clickmask_training.watching import Watch

CONFIG = TrainingConfig(mixture={"squares": 1.0}, steps=5, crop_sizes={64: 1.0}, batch_pixels=2 * 64 * 64)


class Bright(nn.Module):
    """Finds bright pixels from the second click on; before that, nothing."""

    mean = (0.5, 0.5, 0.5)
    takes_previous_mask = True

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(40.0))

    def forward(self, image: Tensor, clicks: Tensor, _: Tensor) -> Tensor:
        many = ((clicks[..., 2] >= 0).sum(dim=1) > 1).float()[:, None, None, None]
        return (image.mean(dim=1, keepdim=True) - 0.55) * self.gain * many - 5 * (1 - many)


def test_the_robot_counts_clicks_on_held_out_objects(tmp_path: Path) -> None:
    write_set(tmp_path / "squares", count=70)
    held_out = TrainingData(tmp_path, {"squares": 1.0}, held_out=True)
    config = replace(CONFIG, validation=ValidationSettings(objects=3, clicks=4), precision="fp32")
    robot = RobotCheck(held_out, config)
    assert robot
    assert robot.run(Bright()) == {"noc90": "2.00", "miou5": "1.0000"}
    assert not RobotCheck(held_out, CONFIG)


def test_a_preview_shows_truth_previous_mask_and_prediction(tmp_path: Path) -> None:
    mask = torch.zeros(10, 1, 64, 96, dtype=torch.uint8)
    mask[..., 20:40, 20:40] = 1
    clicks = torch.tensor([[[30.0, 30.0, 1.0], [-1.0, -1.0, -1.0]]]).expand(10, 2, 3)
    seen = Seen(torch.full((10, 3, 64, 96), 0.5), mask, clicks, torch.zeros(10, 1, 64, 96), mask * 9.0 - 4)
    write_preview(tmp_path / "preview.png", seen)
    sheet = cv2.imread(str(tmp_path / "preview.png"))
    assert sheet.shape == (3 * 128 + 2 * 4, 8 * 192 + 7 * 4, 3)
    truth, previous, prediction = sheet[:128], sheet[132:260], sheet[264:]
    assert (previous[:, :192] == 128).all()
    inside = np.s_[60:64, 46:50]  # of the object, off the click
    for drawn in (truth[inside], prediction[inside]):
        assert (drawn[..., 0] > drawn[..., 2] + 30).all()  # tinted blue


def test_a_line_tells_the_time_left() -> None:
    row = {"step": 20, "loss": "0.5000", "iou": "0.8000", "noc90": "3.20"}
    assert line(row, 100, 3725) == "step 20/100  loss 0.5000  IoU 0.8000  NoC@90 3.20  1:02:05 left"
    assert clock(65) == "1:05"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "file"])
def test_a_terminal_sees_a_bar_between_the_lines(
    stream: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    watch = Watch(tmp_path / "mine", replace(CONFIG, steps=30), None, step=18, seconds=0.0)
    (tmp_path / "mine").mkdir()
    saving = [watch.after(step, (0.5, 0.25), 8 * step, nn.Identity()) for step in range(19, 31)]
    assert saving == [False] * 11 + [True]
    printed = capsys.readouterr().out.splitlines()
    assert [text.split("  ")[0] for text in printed] == ["step 20/30", "step 30/30"]
    assert ("mine  [###################...........] 19/30  " in stream.getvalue()) == stream.isatty()
    assert bool(stream.getvalue()) == stream.isatty()


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_make_the_same_batches_in_the_same_order(workers: int, tmp_path: Path) -> None:
    write_set(tmp_path / "squares")
    data = TrainingData(tmp_path, {"squares": 1.0})
    config = replace(CONFIG, accumulate=2)
    made = list(batches(data, config, 3, rank=1, world=2, workers=workers))
    for number, batch in zip((13, 15, 17, 19), made, strict=True):
        for got, expected in zip(batch, make_batch(data, config, number), strict=True):
            assert torch.equal(got, expected)
    assert made[0].image.is_contiguous(memory_format=torch.channels_last)


def test_batches_that_nobody_wants_any_more_are_not_made(tmp_path: Path) -> None:
    write_set(tmp_path / "squares")
    before = threading.active_count()
    stream = batches(TrainingData(tmp_path, {"squares": 1.0}), replace(CONFIG, steps=10**6), 0)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_a_training_that_fails_makes_no_more_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "squares")
    run = Trainer(EncodeOnceCDNet(), replace(CONFIG, steps=10**6), tmp_path / "run")

    def fail(*batches: Batch) -> tuple[float, float]:
        next(iter(batches))
        raise RuntimeError("no memory")

    monkeypatch.setattr(run, "train_step", fail)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no memory") as held:  # whose traceback holds what `run` held
        run.run(TrainingData(tmp_path, {"squares": 1.0}))
    assert threading.active_count() == before, held


def test_devices_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="CUDA card number 0, but torch sees 0"):
        choose_device("cuda")
    for name in ("tpu9", "meta"):
        with pytest.raises(ConfigError, match="expected auto, cpu, cuda or cuda:N"):
            choose_device(name)
    with pytest.raises(ConfigError, match="on a CPU, got 'fp16'"):
        scaler(torch.device("cpu"), "fp16")


def test_averaged_checkpoints_are_the_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = EncodeOnceConfig(widths=(8, 8, 8, 8), click_widths=(4, 4, 4, 4))
    networks = [EncodeOnceCDNet(config) for _ in range(3)]
    name = "decoder.reduce.0.weight"
    for index, network in enumerate(networks):
        network.state_dict()[name].fill_(index * index)
        save_checkpoint(tmp_path / f"{index}.safetensors", network)
    paths = [str(tmp_path / f"{index}.safetensors") for index in range(3)]
    target = tmp_path / "mean.safetensors"
    assert main([*paths, "--output", str(target)]) == 0
    assert load_checkpoint(target).state_dict()[name].flatten()[0].item() == pytest.approx(5 / 3, rel=1e-3)
    assert main([paths[0], "--output", str(target)]) == 1
    assert "at least two networks" in capsys.readouterr().err
    with pytest.raises(ValueError, match="of one configuration"):
        average_networks([networks[0], EncodeOnceCDNet(replace(config, widths=(8, 8, 8, 16)))])
