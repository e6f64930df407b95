"""What a step learns from and what it moves: the mask fed back, frozen parts, the optimiser, the average."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from squares import write_set
from torch import nn

from clickmask_models.encode_once import EncodeOnceCDNet
from clickmask_training import passes
from clickmask_training.config import TrainingConfig
from clickmask_training.data import TrainingData
from clickmask_training.optimization import make_optimizer
from clickmask_training.samples import make_batch
from clickmask_training.trainer import Trainer

CONFIG = TrainingConfig(
    mixture={"squares": 1.0},
    steps=30,
    crop_sizes={64: 1.0},
    batch_pixels=2 * 64 * 64,
    warmup=0,
    backbone_from=0.0,
)


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    write_set(tmp_path / "squares")
    return TrainingData(tmp_path, {"squares": 1.0})


def trainer(config: TrainingConfig, folder: Path) -> Trainer:
    torch.manual_seed(0)
    return Trainer(EncodeOnceCDNet(), config, folder)


def test_the_mask_fed_back_is_the_networks_probability(data: TrainingData) -> None:
    """As the run time feeds it, not the mask that is cut from it."""
    torch.manual_seed(0)
    network = EncodeOnceCDNet().eval()
    batch = make_batch(data, replace(CONFIG, mask_share=0.0), 0)
    batch = batch._replace(rounds=torch.ones_like(batch.rounds))
    features = passes.encode(network, batch.image)
    told = passes.correct(network, features, batch, CONFIG.clicks, np.random.default_rng(0))
    with torch.no_grad():
        logits = network(batch.image, batch.clicks, torch.zeros_like(batch.previous_mask)).double()
    expected = torch.where(batch.inside, 1 / (1 + torch.exp(-logits)), 0.0)
    torch.testing.assert_close(told.previous.double(), expected, rtol=0, atol=1e-5)
    assert ((told.previous > 0.01) & (told.previous < 0.99)).any()


def test_the_shipped_weights_are_a_mean_that_soon_forgets_the_start(
    data: TrainingData, tmp_path: Path
) -> None:
    run = trainer(replace(CONFIG, average_decay=0.2, learning_rate=0.01), tmp_path / "run")
    mean = {name: weight.detach().clone() for name, weight in run.network.named_parameters()}
    for step, decay in enumerate((1 / 10, 2 / 11, 0.2)):  # and not 3 / 12
        run.train_step(make_batch(data, CONFIG, step))
        for name, weight in run.network.named_parameters():
            mean[name] = decay * mean[name] + (1 - decay) * weight.detach()
        torch.testing.assert_close(dict(run.averaged.named_parameters()), mean)


def test_frozen_blocks_stay_as_they_were_and_the_others_learn(data: TrainingData, tmp_path: Path) -> None:
    run = trainer(replace(CONFIG, frozen_blocks=4), tmp_path / "run")
    blocks = run.network.backbone.features
    before = [[weight.detach().clone() for weight in block.parameters()] for block in blocks]
    for step in range(2):
        run.train_step(make_batch(data, run.config, step))
    moved = [
        any(not torch.equal(*pair) for pair in zip(old, block.parameters(), strict=True))
        for old, block in zip(before, blocks, strict=True)
    ]
    assert moved == [False] * 4 + [True] * (len(blocks) - 4)


def test_the_gradient_of_a_step_is_no_longer_than_configured(data: TrainingData, tmp_path: Path) -> None:
    norms = []
    for clip in (0.0, 0.01):
        run = trainer(replace(CONFIG, clip=clip), tmp_path / "run")
        run.train_step(make_batch(data, CONFIG, 0))
        gradients = [p.grad.double() for p in run.network.parameters() if p.grad is not None]
        norms.append(float(torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()))
    assert norms[0] > 0.1  # without a limit
    assert norms[1] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("kind", ["adamw", "adam"])
def test_weights_of_convolutions_alone_decay_and_pretrained_ones_slowly(kind: str) -> None:
    """Without a gradient AdamW shrinks a weight by rate * decay; to Adam the decay is the gradient."""
    parts = {name: nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)) for name in ("backbone", "decoder")}
    network = nn.ModuleDict(parts)
    config = replace(CONFIG, optimizer=kind, weight_decay=0.5, learning_rate=0.1, backbone_rate=0.02)
    optimizer = make_optimizer([network], config)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"]
    expected = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    for part, rate in (("backbone", 0.02), ("decoder", 0.1)):
        weight = expected[f"{part}.0.weight"]
        weight -= rate * (0.5 * weight if kind == "adamw" else weight.sign())
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(dict(network.named_parameters()), expected, rtol=0, atol=1e-6)
