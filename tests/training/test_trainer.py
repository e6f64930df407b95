"""The loop: it learns, it resumes, and what it saves can be loaded."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from squares import write_set
from torch import Tensor, nn

from clickmask.blend import blend_into
from clickmask.clicks import Click
from clickmask.view import Box, View
from clickmask_models.checkpoints import load_checkpoint, save_checkpoint
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_models.outputs import Outputs
from clickmask_training import passes, watching
from clickmask_training import trainer as trainer_module
from clickmask_training.__main__ import main
from clickmask_training.config import TrainingConfig
from clickmask_training.data import TrainingData
from clickmask_training.held_out import held_out_batches, held_out_iou
from clickmask_training.optimization import learning_rate_factor
from clickmask_training.precision import float32_depthwise
from clickmask_training.samples import make_batch
from clickmask_training.settings import ClickSettings
from clickmask_training.trainer import Trainer


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    write_set(tmp_path / "squares")
    return TrainingData(tmp_path, {"squares": 1.0})


@pytest.fixture
def config() -> TrainingConfig:
    return TrainingConfig(
        mixture={"squares": 1.0},
        steps=30,
        crop_sizes={64: 1.0},
        batch_pixels=4 * 64 * 64,
        warmup=2,
        backbone_from=0.0,
    )


def trainer(config: TrainingConfig, folder: Path) -> Trainer:
    torch.manual_seed(0)
    return Trainer(EncodeOnceCDNet(), config, folder)


def test_it_fits_one_batch(data: TrainingData, config: TrainingConfig, tmp_path: Path) -> None:
    config = replace(config, steps=400, iterative_share=0.0)
    torch.manual_seed(0)
    wide = EncodeOnceConfig(widths=(32, 64, 128, 192), click_widths=(16, 24, 32, 64))  # learns in few steps
    run = Trainer(EncodeOnceCDNet(wide), config, tmp_path / "run")
    batch = make_batch(data, config, 0)
    losses, ious = zip(*(run.train_step(batch) for _ in range(30)), strict=True)
    assert losses[-1] < 0.5 * losses[0]
    assert ious[-1] > 0.9


def test_a_resumed_run_takes_the_same_steps(
    data: TrainingData, config: TrainingConfig, tmp_path: Path
) -> None:
    config = replace(config, steps=4)
    whole = trainer(config, tmp_path / "whole")
    whole.run(data)

    part = trainer(config, tmp_path / "part")
    for step in range(2):
        part.train_step(make_batch(data, config, step))
    part.save()
    resumed = trainer(config, tmp_path / "part")
    assert resumed.resume()
    assert resumed.step == 2
    resumed.run(data)

    for kind in ("network", "averaged"):
        state = getattr(resumed, kind).state_dict()
        for name, value in getattr(whole, kind).state_dict().items():
            assert torch.equal(state[name], value), f"{kind}: {name}"
    optimizer, expected = resumed.optimizer.state_dict(), whole.optimizer.state_dict()
    assert optimizer["param_groups"] == expected["param_groups"]
    for index, entries in expected["state"].items():
        for name, value in entries.items():
            assert torch.equal(optimizer["state"][index][name], value), f"{index}: {name}"
    assert resumed.samples == whole.samples == 16


def test_the_configuration_wins_over_the_saved_one(
    data: TrainingData, config: TrainingConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trainer(config, tmp_path / "run")
    run.train_step(make_batch(data, config, 0))
    run.save()
    edited = replace(
        config, learning_rate=3e-3, backbone_rate=5e-5, weight_decay=0.02, optimizer="adam", steps=20
    )
    resumed = trainer(edited, tmp_path / "run")
    assert resumed.resume()
    fresh = trainer(edited, tmp_path / "fresh")
    assert resumed.optimizer.state_dict()["param_groups"] == fresh.optimizer.state_dict()["param_groups"]
    printed = capsys.readouterr().out
    assert "steps: 30 -> 20" in printed
    assert "learning_rate: 0.001 -> 0.003" in printed
    assert printed.count("changed") == 5


def test_a_state_of_the_first_version_resumes(
    data: TrainingData, config: TrainingConfig, tmp_path: Path
) -> None:
    run = trainer(config, tmp_path / "run")
    run.train_step(make_batch(data, config, 0))
    run.save()
    path = tmp_path / "run/state.pt"
    state = torch.load(path, weights_only=True)
    torch.save({key: state[key] for key in ("network", "averaged", "optimizer", "step")}, path)
    (tmp_path / "run/log.csv").write_text("step,loss,iou,seconds\n1,0.5,0.7,7486\n20,0.4,0.7,7529\n")
    resumed = trainer(config, tmp_path / "run")
    assert resumed.resume()
    assert (resumed.step, resumed.samples) == (1, 0)
    assert [row["step"] for row in log_of(tmp_path / "run")] == ["1"]


def log_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_log_has_each_step_once_and_time_and_samples_go_on(
    data: TrainingData, config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_LOG_STEPS", 1)
    config = replace(config, steps=3)
    run = trainer(config, tmp_path / "run")
    run.run(data)
    state = torch.load(tmp_path / "run/state.pt", weights_only=True)
    torch.save({**state, "step": 1, "seconds": 1000.0, "samples": 4}, tmp_path / "run/state.pt")
    resumed = trainer(config, tmp_path / "run")
    assert resumed.resume()
    resumed.run(data)
    rows = log_of(tmp_path / "run")
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert [row["samples"] for row in rows] == ["4", "8", "12"]
    assert float(rows[0]["seconds"]) < 900
    assert 1000 <= float(rows[1]["seconds"]) <= float(rows[2]["seconds"]) < 1900


def test_held_out_iou_of_the_averaged_weights_is_logged_at_saves(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path / "squares", count=70)
    data = TrainingData(tmp_path, {"squares": 1.0})
    held_out = TrainingData(tmp_path, {"squares": 1.0}, held_out=True)
    monkeypatch.setattr(watching, "_LOG_STEPS", 1)
    run = trainer(replace(config, steps=2), tmp_path / "run")
    run.run(data, held_out)
    first, last = log_of(tmp_path / "run")
    assert first["held_out_iou"] == ""
    expected = held_out_iou(run.averaged, held_out_batches(held_out, run.config), run.config)
    assert float(last["held_out_iou"]) == pytest.approx(expected, abs=1e-4)


def test_held_out_iou_is_that_of_the_masks(
    data: TrainingData, config: TrainingConfig, tmp_path: Path
) -> None:
    """A network that says object everywhere has the share of the object in what is seen of the photo."""
    network = trainer(config, tmp_path / "run").averaged
    torch.nn.init.constant_(network.decoder.head.weight, 0.0)
    torch.nn.init.constant_(network.decoder.head.bias, 5.0)
    batches = held_out_batches(data, config)
    shares = [((one == 1).sum() / (one != 255).sum()).item() for batch in batches for one in batch.mask]
    assert held_out_iou(network, batches, config) == pytest.approx(np.mean(shares), abs=1e-5)


def test_norms_freeze_at_the_averaged_statistics(
    data: TrainingData, config: TrainingConfig, tmp_path: Path
) -> None:
    run = trainer(replace(config, steps=4, frozen_norm_share=0.5), tmp_path / "run")
    norm, averaged = run.network.decoder.fuse[3], run.averaged.decoder.fuse[3]
    for step in range(2):
        run.train_step(make_batch(data, config, step))
    assert not torch.equal(norm.running_var, averaged.running_var)
    expected = averaged.running_mean.clone(), averaged.running_var.clone()
    for step in range(2, 4):
        run.train_step(make_batch(data, config, step))
        assert torch.equal(norm.running_mean, expected[0])
        assert torch.equal(norm.running_var, expected[1])


def test_a_fed_back_mask_is_zero_in_the_padding(
    data: TrainingData, config: TrainingConfig, tmp_path: Path
) -> None:
    run = trainer(config, tmp_path / "run")
    batch = make_batch(data, config, 0)
    inside = batch.inside.clone()
    inside[..., 40:] = False
    batch = batch._replace(inside=inside, rounds=torch.ones_like(batch.rounds))
    features = passes.encode(run.network, batch.image)
    previous = passes.correct(run.network, features, batch, config.clicks, np.random.default_rng(0)).previous
    assert (previous[..., 40:] == 0).all()
    assert (previous[..., :40] > 0).any()


def test_corrections_have_the_momentum_of_sessions(
    data: TrainingData, config: TrainingConfig, tmp_path: Path
) -> None:
    run = trainer(config, tmp_path / "run")
    one = type(batch := make_batch(data, config, 0))(*(part[:1] for part in batch))
    features = passes.encode(run.network, one.image)

    def after(rounds: int, momentum: float = 0.25) -> passes.Prompts:
        told = one._replace(rounds=torch.tensor([rounds]), midway=torch.tensor([-1]))
        rng = np.random.default_rng(0)
        return passes.correct(run.network, features, told, config.clicks, rng, momentum)

    first, second = (
        passes.decode(run.network, features, told.clicks, told.previous).logits for told in map(after, (0, 1))
    )
    newest = after(1).clicks[:, config.clicks.positive + config.clicks.negative]
    assert newest[0, 2] >= 0
    expected = torch.sigmoid(passes.steadied(second, first, newest, 0.25)) * one.inside
    torch.testing.assert_close(after(2).previous, expected)
    assert not torch.equal(after(2).previous, after(2, momentum=0.0).previous)


@pytest.mark.parametrize("label", [1, 0, -1])
def test_training_steadies_logits_as_the_run_time_does(label: int) -> None:
    logits, before = (torch.randn(1, 1, 48, 64, generator=torch.manual_seed(seed)) for seed in (0, 1))
    click = torch.tensor([[20.0, 30.0, label]])
    got = passes.steadied(logits, before, click, 0.3)
    view = View(Box(0, 0, 64, 48), 64)
    expected = logits[0, 0].numpy().copy()
    blend_into(expected, view, before[0, 0].numpy(), view, 0.3, Click(20, 30) if label >= 0 else None)
    np.testing.assert_allclose(got[0, 0], expected, atol=1e-6)


def test_a_state_midway_is_what_fewer_rounds_would_have_ended_in(
    data: TrainingData, config: TrainingConfig, tmp_path: Path
) -> None:
    run = trainer(config, tmp_path / "run")
    batch = make_batch(data, config, 0)
    one = type(batch)(*(part[:1] for part in batch))
    features = passes.encode(run.network, one.image)

    def after(rounds: int, midway: int) -> passes.Prompts:
        told = one._replace(rounds=torch.tensor([rounds]), midway=torch.tensor([midway]))
        return passes.correct(run.network, features, told, config.clicks, np.random.default_rng(0))

    longer, shorter = after(3, 1), after(1, -1)
    assert longer.rows.tolist() == [0, 0]
    assert shorter.rows.tolist() == [0]
    assert torch.equal(longer.clicks[1], shorter.clicks[0])
    assert torch.equal(longer.previous[1], shorter.previous[0])
    assert (longer.clicks[0, :, 2] >= 0).sum() > (shorter.clicks[0, :, 2] >= 0).sum()


def test_a_solved_sample_gets_no_more_clicks_and_learns_the_state_that_it_was_solved_from(
    data: TrainingData, config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(data, replace(config, crop_sizes={128: 1.0}), 0)
    truth = torch.ones(1, 1, 128, 128, dtype=torch.bool)
    wrong = [
        truth & (torch.arange(128).view(-1, 1) % parts != 0) for parts in (2, 3, 50)
    ]  # IoU 1/2, 2/3, 0.98
    one = type(batch)(*(part[:1] for part in batch))._replace(
        mask=truth.byte(), rounds=torch.tensor([6]), inside=torch.ones_like(truth)
    )
    answers: list[Tensor] = []

    def answer(*_: object) -> Outputs:
        answers.append(wrong[min(len(answers), 2)])
        return Outputs(20 * answers[-1].float() - 10, None)

    monkeypatch.setattr(passes, "decode", answer)

    def after(midway: int, solved_at: float) -> passes.Prompts:
        answers.clear()
        told, settings = one._replace(midway=torch.tensor([midway])), replace(config.clicks, rounds=6)
        settings = replace(settings, solved_at=(solved_at, solved_at))
        clicks = torch.nn.functional.pad(told.clicks, (0, 0, 0, 6), value=-1.0)
        return passes.correct(
            nn.Identity(), (one.image,), told._replace(clicks=clicks), settings, np.random.default_rng(0)
        )

    begun = int((one.clicks[..., 2] >= 0).sum())
    for midway, earlier in ((0, 0), (1, 1), (4, 1), (-1, None)):
        found = after(midway, 0.9)
        assert len(answers) == 3
        made = ((found.clicks[..., 2] >= 0).sum(1) - begun).tolist()
        assert made == [2, *([] if earlier is None else [earlier])]
        assert torch.equal(found.previous[0] > 0.5, wrong[1][0])
    assert len(after(-1, 0.99).rows) == 1
    assert len(answers) == 6  # never solved
    found = after(
        5, 0.6
    )  # at the second answer: one click made, no state before it that a part may begin with
    assert found.rows.tolist() == [0]
    assert torch.equal(found.previous[0] > 0.5, wrong[0][0])


def test_a_mask_of_another_crop_is_told_as_that_crop_showed_it(
    data: TrainingData, config: TrainingConfig, tmp_path: Path
) -> None:
    run = trainer(config, tmp_path / "run")
    batch = make_batch(data, config, 0)
    batch = batch._replace(rounds=torch.ones_like(batch.rounds), midway=torch.full_like(batch.midway, -1))
    features = passes.encode(run.network, batch.image)

    def told(share: float) -> Tensor:
        settings = replace(config.clicks, moved=share)
        return passes.correct(run.network, features, batch, settings, np.random.default_rng(0)).previous

    plain, moved = map(told, (0.0, 1.0))
    assert (moved != plain).flatten(1).any(1).all()
    assert (moved == 0).sum() > (plain == 0).sum()  # what that crop did not show


def test_states_midway_are_learnt_beside_the_others(
    data: TrainingData, config: TrainingConfig, tmp_path: Path
) -> None:
    clicks = replace(config.clicks, midway=True)
    run = trainer(replace(config, iterative_share=1.0, clicks=clicks), tmp_path / "run")
    batch = make_batch(data, run.config, 0)
    run.train_step(batch)
    learnt = len(batch.image) + int((batch.midway >= 0).sum())
    assert len(run._seen.logits) == len(run._seen.mask) == learnt > len(batch.image)


def test_rows_of_a_batch_are_those_of_an_index_and_so_are_their_gradients() -> None:
    batch = torch.randn(3, 4, 5, 6).contiguous(memory_format=torch.channels_last)
    rows, weight = torch.tensor([0, 1, 2, 1]), torch.randn(4, 4, 5, 6)
    prompts = passes.Prompts(rows, torch.zeros(4, 1, 3), torch.zeros(4, 1, 5, 6))
    gradients = []
    for take in (lambda tensor: passes.told((tensor,), prompts)[0], lambda tensor: tensor[rows]):
        source = batch.clone().requires_grad_()
        taken = take(source)
        assert torch.equal(taken, batch[rows])
        (taken * weight).sum().backward()
        gradients.append(source.grad)
    assert torch.equal(*gradients)


def test_the_error_that_the_newest_click_is_for_is_one_piece() -> None:
    settings = ClickSettings(positive=1, negative=1, rounds=2)
    mask = torch.zeros(2, 1, 6, 9, dtype=torch.uint8)
    mask[:, :, 1:5, 1:3] = 1  # missed
    mask[:, :, 1:5, 6:8] = 1  # missed too, and clicked on
    mask[:, :, 4, 6:8] = 255
    clicks = torch.full((2, 4, 3), -1.0)
    clicks[:, 0] = torch.tensor([1.0, 1.0, 1.0])  # a random one
    clicks[0, 2] = torch.tensor([1.0, 3.0, 1.0])
    clicks[0, 3] = torch.tensor([7.0, 2.0, 1.0])
    prompts = passes.Prompts(torch.arange(2), clicks, torch.zeros(2, 1, 6, 9))
    expected = torch.zeros(2, 1, 6, 9)
    expected[0, :, 1:4, 6:8] = 1
    assert torch.equal(passes.clicked_errors(prompts, mask, settings), expected)


def test_processes_click_differently(
    data: TrainingData, config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def correct(*inputs: object) -> passes.Prompts:
        batch, rng = inputs[2], inputs[4]
        drawn.append(rng.random())
        return passes.Prompts(torch.arange(len(batch.image)), batch.clicks, batch.previous_mask)

    monkeypatch.setattr(passes, "correct", correct)
    for rank in (0, 1):
        run = trainer(config, tmp_path / "run")
        monkeypatch.setattr(trainer_module, "rank_and_world", lambda rank=rank: (rank, 2))
        run.train_step(make_batch(data, config, 0))
    assert drawn[0] != drawn[1]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Arguments of a run of one step on the squares, but for what it starts from."""
    write_set(tmp_path / "squares")
    text = "steps = 1\nbatch_pixels = 8192\nmixture.squares = 1\ncrop_sizes.64 = 1"
    (tmp_path / "run.toml").write_text(text)
    options = {"config": "run.toml", "data": ".", "output": "run"}
    return [f"--{name}={tmp_path / value}" for name, value in options.items()]


def test_a_new_run_needs_weights_to_start_from(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 1
    assert "a new run needs --backbone FILE or --checkpoint FILE" in capsys.readouterr().err
    save_checkpoint(tmp_path / "start.safetensors", EncodeOnceCDNet())
    assert main([*command, f"--checkpoint={tmp_path / 'start.safetensors'}"]) == 0
    capsys.readouterr()
    assert main([*command, "--steps=2"]) == 0
    printed = capsys.readouterr().out
    assert "at step 1\n" in printed
    assert "ignored" not in printed
    assert main([*command, "--steps=3", f"--backbone={tmp_path / 'absent.safetensors'}"]) == 0
    printed = capsys.readouterr().out
    assert "at step 2\n" in printed
    assert "--backbone and --checkpoint are ignored" in printed


def test_what_does_not_fit_together_is_refused(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "start.safetensors"
    save_checkpoint(path, EncodeOnceCDNet())
    assert main([*command, f"--checkpoint={path}", "--network=official"]) == 1
    assert "expected --checkpoint to hold a CDNet network" in capsys.readouterr().err
    assert main([*command, f"--checkpoint={path}", f"--teacher={path}"]) == 1
    assert "expected a weight above 0 of loss.distillation or loss.features" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_no_steps_or_threads_are_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--steps=0"]) == 1
    assert "steps: expected a positive number" in capsys.readouterr().err
    assert main([*command, "--threads=0"]) == 1
    assert "--threads: expected a positive number" in capsys.readouterr().err


def test_the_averaged_weights_are_saved_as_a_checkpoint(
    data: TrainingData, config: TrainingConfig, tmp_path: Path
) -> None:
    run = trainer(replace(config, steps=1), tmp_path / "run")
    run.run(data)
    saved = load_checkpoint(tmp_path / "run/averaged.safetensors")
    for name, value in run.averaged.state_dict().items():
        torch.testing.assert_close(saved.state_dict()[name], value, rtol=1e-3, atol=1e-6, msg=name)


def test_the_backbone_waits_for_its_turn(data: TrainingData, config: TrainingConfig, tmp_path: Path) -> None:
    run = trainer(replace(config, steps=4, backbone_from=0.5), tmp_path / "run")
    block = run.network.backbone.features[10]
    before = block.conv[0][0].weight.clone()
    for step in range(4):
        run.train_step(make_batch(data, config, step))
        moved = not torch.equal(block.conv[0][0].weight, before)
        assert moved == (step >= 2)


def test_learning_rate_rises_then_falls_to_zero() -> None:
    config = TrainingConfig(mixture={"a": 1.0}, steps=1000, warmup=100)
    assert learning_rate_factor(0, config) == pytest.approx(0.01)
    assert learning_rate_factor(99, config) == pytest.approx(1.0)
    assert learning_rate_factor(550, config) == pytest.approx(0.5)
    assert learning_rate_factor(1000, config) == pytest.approx(0.0)
    assert learning_rate_factor(0, replace(config, warmup=0)) == 1
    assert learning_rate_factor(999, replace(config, schedule="constant")) == 1


@pytest.mark.parametrize("options", [{"stride": 2}, {"dilation": 2, "padding": 2}, {"kernel_size": 5}])
def test_float32_depthwise_equals_the_plain_convolution(options: dict[str, int]) -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(8, 8, **{"kernel_size": 3, "groups": 8, **options}))
    x = torch.randn(1, 8, 16, 16).bfloat16()
    expected = layer(x.float())
    float32_depthwise(layer)
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(x)
    assert got.dtype == torch.bfloat16
    # Rounded once, at the output: a bfloat16 convolution would round its weights as well.
    torch.testing.assert_close(got, expected.bfloat16(), rtol=0, atol=0)


def test_two_processes_share_gradients_statistics_and_counts(command: list[str], tmp_path: Path) -> None:
    command = [*command, "--from-scratch", "--steps=2"]
    script = tmp_path / "process.py"
    script.write_text(
        "from pathlib import Path\n"
        "import torch, torch.distributed as dist\n"
        "from torch import nn\n"
        "from clickmask_training.distributed import (\n"
        "    average_gradients, broadcast_buffers, leave, rank_and_world, total\n"
        ")\n"
        "from clickmask_training.__main__ import main\n"
        f"assert main({command!r}) == 0\n"
        "rank, world = rank_and_world()\n"
        "layer, frozen = nn.Linear(3, 2), nn.Linear(3, 2)\n"
        "for index, parameter in enumerate(layer.parameters()):\n"
        "    parameter.grad = torch.full_like(parameter, 10.0 * index + rank)\n"
        "average_gradients([layer, frozen])\n"
        "norm = nn.BatchNorm2d(2)\n"
        "norm.running_mean += 3 + rank\n"
        "norm.num_batches_tracked += 7 + rank\n"
        "broadcast_buffers(norm)\n"
        "statistics = [float(norm.running_mean[1]), int(norm.num_batches_tracked)]\n"
        "gradients = [float(p.grad.mean()) for p in layer.parameters()]\n"
        "print(f'{gradients} {statistics} {total(5 + rank)} {world}\\n', end='', flush=True)\n"
        "leave()\n"
        "threads = [path.read_text() for path in Path('/proc/self/task').glob('*/comm')]\n"
        "print(f'[] {sum(\"gloo\" in name for name in threads)} left\\n', end='', flush=True)\n"
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.count("[0.5, 10.5] [3.0, 7] 11 2") == 2
    # Threads of the group that outlive it can abort the process while Python ends.
    assert lines.count("[] 0 left") == 2
    # The run itself speaks once: what it reads, and its last step, which both processes took.
    assert [text.split()[0] for text in lines if "[" not in text] == ["6", "step"]
    assert [row["samples"] for row in log_of(tmp_path / "run")] == ["8"]
