"""The named recipes; each family of networks trains, resumes, and is saved without training's own parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from squares import write_set

from clickmask_models.cdnet import CDNet, CDNetConfig
from clickmask_models.checkpoints import load_checkpoint, save_checkpoint
from clickmask_models.csfp import CSFP, CSFPConfig
from clickmask_models.encode_once import EncodeOnceCDNet
from clickmask_models.encode_once_csfp import EncodeOnceCSFP
from clickmask_models.feature_diffusion import FeatureDiffusionConfig
from clickmask_models.presets import preset
from clickmask_models.ritm import RITM, RITMConfig
from clickmask_training.checks import ConfigError
from clickmask_training.config import TrainingConfig, read_config
from clickmask_training.data import TrainingData
from clickmask_training.optimization import learning_rate_factor
from clickmask_training.samples import make_batch
from clickmask_training.settings import ClickSettings, LossSettings
from clickmask_training.starting import load_pretrained
from clickmask_training.trainer import Trainer

CONFIGS = Path(__file__).parents[2] / "training/configs"


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    write_set(tmp_path / "squares")
    return TrainingData(tmp_path, {"squares": 1.0})


def config_for(network: str, **changes: object) -> TrainingConfig:
    values = {
        "mixture": {"squares": 1.0},
        "steps": 4,
        "network": network,
        "crop_sizes": {64: 1.0},
        "batch_pixels": 2 * 64 * 64,
        "warmup": 1,
        "frozen_blocks": 0,
        "backbone_from": 0.0,
    }
    return TrainingConfig(**{**values, **changes})


NETWORKS = {
    "paper": lambda: CDNet(CDNetConfig(backbone="resnet18", stem="v1b", channels=16)),
    "official": lambda: CDNet(
        CDNetConfig(
            backbone="resnet18",
            stem="v1b",
            channels=16,
            fusion="conv1s",
            feature_diffusion=FeatureDiffusionConfig("v3", source_kind="disk_24px"),
        )
    ),
    "ritm_hrnet18s": lambda: RITM(RITMConfig(ocr_channels=8)),
    "csfp_paper_resnet50": lambda: CSFP(CSFPConfig("resnet34", channels=16)),
    "csfp_official": lambda: CSFP(CSFPConfig("hrnet18s", channels=8)),
    "encode_once_mobilenet_v2": EncodeOnceCDNet,
    "encode_once_csfp": EncodeOnceCSFP,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_trains_with_latent_heads_and_is_saved_without(
    name: str, data: TrainingData, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = config_for(name, loss=LossSettings(bce=0, dice=0, nfl=1, auxiliary="nfl", latent_heads=4))
    run = Trainer(NETWORKS[name](), config, tmp_path / "run")
    assert run.heads is not None
    heads = [p.clone() for p in run.heads.parameters()]
    early = next(p for p in run.network.backbone.parameters() if p.ndim > 1).clone()
    for number in range(2):
        loss, iou = run.train_step(make_batch(data, config, number))
        assert np.isfinite(loss)
        assert 0 <= iou <= 1
    assert all(not torch.equal(old, new) for old, new in zip(heads, run.heads.parameters(), strict=True))
    assert not torch.equal(early, next(p for p in run.network.backbone.parameters() if p.ndim > 1))
    run.save()
    saved = load_checkpoint(tmp_path / "run/averaged.safetensors")  # strict: no tensor left over
    assert saved.state_dict().keys() == run.averaged.state_dict().keys()


def test_a_resumed_run_repeats_dropout_latent_heads_and_accumulation(
    data: TrainingData, tmp_path: Path
) -> None:
    config = config_for("paper", accumulate=2, loss=LossSettings(latent_heads=2), steps=2)

    def trainer(folder: str) -> Trainer:
        torch.manual_seed(0)
        return Trainer(NETWORKS["paper"](), config, tmp_path / folder)

    whole = trainer("whole")
    whole.run(data)
    part = trainer("part")
    part.train_step(*(make_batch(data, config, number) for number in range(2)))
    part.save()
    torch.manual_seed(99)
    resumed = trainer("part")
    assert resumed.resume()
    resumed.run(data)
    assert resumed.samples == whole.samples == 8
    for kind in ("network", "averaged", "heads"):
        for name, value in getattr(whole, kind).state_dict().items():
            assert torch.equal(getattr(resumed, kind).state_dict()[name], value), f"{kind}: {name}"


def test_a_state_with_other_heads_is_refused(data: TrainingData, tmp_path: Path) -> None:
    config = config_for("encode_once_mobilenet_v2")
    run = Trainer(EncodeOnceCDNet(), config, tmp_path / "run")
    run.train_step(make_batch(data, config, 0))
    run.save()
    other = replace(config, loss=LossSettings(latent_heads=4))
    with pytest.raises(ConfigError, match="its state does not fit this network"):
        Trainer(EncodeOnceCDNet(), other, tmp_path / "run").resume()


def test_accumulated_batches_weigh_as_one(data: TrainingData, tmp_path: Path) -> None:
    # Without batch statistics, dropout and corrective clicks the gradient of two halves is the whole's.
    config = config_for("encode_once_mobilenet_v2", frozen_norm_share=1.0, iterative_share=0.0, clip=0.0)
    config = replace(config, precision="fp32", batch_pixels=4 * 64 * 64, auxiliary_weight=0.0)
    batch = make_batch(data, config, 0)
    gradients = []
    for parts in ([slice(0, 4)], [slice(0, 2), slice(2, 4)]):
        torch.manual_seed(0)
        run = Trainer(EncodeOnceCDNet(), config, tmp_path / "run")
        run.train_step(*(type(batch)(*(field[part] for field in batch)) for part in parts))
        gradients.append(
            torch.cat([p.grad.flatten() for p in run.network.parameters() if p.grad is not None])
        )
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_a_teachers_masks_are_learnt(data: TrainingData, tmp_path: Path) -> None:
    config = config_for("encode_once_mobilenet_v2", loss=LossSettings(distillation=1.0))
    torch.manual_seed(0)
    teacher = EncodeOnceCDNet()
    run = Trainer(EncodeOnceCDNet(), config, tmp_path / "run", teacher=teacher)
    batch = make_batch(data, config, 0)
    with_teacher, _ = run.train_step(batch)
    assert all(p.grad is None for p in teacher.parameters())
    torch.manual_seed(0)
    EncodeOnceCDNet()
    alone = Trainer(EncodeOnceCDNet(), config_for("encode_once_mobilenet_v2"), tmp_path / "run")
    assert with_teacher > alone.train_step(batch)[0] + 0.1
    with pytest.raises(ConfigError, match="--teacher FILE"):
        Trainer(EncodeOnceCDNet(), config, tmp_path / "run")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_recipes_are_valid(path: Path) -> None:
    config = read_config(path)
    preset(config.network)
    if config.schedule == "steps":
        assert config.drops[-1] <= config.steps


def test_the_recipes_have_the_values_of_their_sources() -> None:
    paper, official = read_config(CONFIGS / "cdnet_paper.toml"), read_config(CONFIGS / "cdnet_official.toml")
    assert (paper.loss.bce, paper.loss.latent, paper.loss.click, paper.loss.latent_heads) == (0.5, 1, 1, 4)
    assert (official.loss.nfl, official.auxiliary_weight, official.loss.auxiliary) == (1, 0.4, "nfl")
    assert (paper.clicks.positive, paper.clicks.positive_decay) == (10, 0.7)
    assert (official.clicks.positive, official.clicks.negative_decay) == (24, 0.8)
    assert learning_rate_factor(529, paper) == 1.0
    epoch = 265
    for step, factor in ((0, 1), (80 * epoch - 1, 1), (80 * epoch, 0.1), (105 * epoch, 0.01)):
        assert learning_rate_factor(step, official) == pytest.approx(factor)
    for config, crops, shape in ((paper, 32, (320, 480)), (official, 32, (384, 384))):
        assert config.crop_shapes == (shape,)
        assert config.batch_pixels == crops * shape[0] * shape[1]
        assert config.learning_rate == 5e-4
    csfp, fine = read_config(CONFIGS / "csfp_paper.toml"), read_config(CONFIGS / "csfp_official_fine.toml")
    assert csfp.batch_pixels == 28 * 320 * 480
    assert (csfp.steps, csfp.drops) == (120 * 303, (100 * 303, 115 * 303))
    assert (csfp.clicks.rounds, csfp.iterative_share) == (3, 0.75)  # none to three, each as likely
    assert fine.learning_rate == 5e-7
    assert learning_rate_factor(fine.steps - 1, fine) == 1


def test_only_mobilenets_blocks_can_be_frozen(tmp_path: Path) -> None:
    config = config_for("ritm_hrnet18s", frozen_blocks=4)
    with pytest.raises(ConfigError, match="frozen_blocks: expected 0 with a HRNet backbone, got 4"):
        Trainer(NETWORKS["ritm_hrnet18s"](), config, tmp_path / "run")


def test_classification_weights_of_a_resnet_load_without_their_classifier(tmp_path: Path) -> None:
    network, source = NETWORKS["official"](), NETWORKS["official"]()
    state = {k: v for k, v in source.backbone.state_dict().items() if "num_batches" not in k}
    torch.save({**state, "fc.weight": torch.zeros(2, 2)}, tmp_path / "resnet18.pth")
    load_pretrained(tmp_path / "resnet18.pth", network)
    for name, value in state.items():
        assert torch.equal(network.backbone.state_dict()[name], value), name
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight"):
        load_pretrained(tmp_path / "resnet18.pth", network)


def test_all_samples_of_a_batch_can_get_as_many_corrective_clicks(data: TrainingData) -> None:
    config = config_for("ritm_hrnet18s", batch_pixels=4 * 64 * 64, clicks=ClickSettings(same_rounds=True))
    assert not make_batch(data, replace(config, iterative_share=0.0), 0).rounds.any()
    seen = set()
    for number in range(12):
        rounds = make_batch(data, config, number).rounds
        assert (rounds == rounds[0]).all()
        seen.add(int(rounds[0]))
    assert seen == {0, 1, 2, 3}


def test_padding_has_the_networks_mean_colour(data: TrainingData) -> None:
    for name, colour in (("official", (0.485, 0.456, 0.406)), ("encode_once_mobilenet_v2", (0.5, 0.5, 0.5))):
        config = config_for(name, crop_sizes={256: 1.0})
        batch = make_batch(data, config, 1)
        outside = ~batch.inside[:, 0]
        assert outside.any()
        shown = batch.image.permute(0, 2, 3, 1)[outside]
        torch.testing.assert_close(shown, torch.tensor(colour).expand_as(shown))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_graphics_card_trains(precision: str, data: TrainingData, tmp_path: Path) -> None:
    device = torch.device("cuda")
    config = config_for("official", precision=precision, loss=LossSettings(latent_heads=4))
    run = Trainer(NETWORKS["official"](), config, tmp_path / "run", device)
    run.run(data)
    assert run.step == config.steps
    again = Trainer(NETWORKS["official"](), replace(config, steps=5), tmp_path / "run", device)
    assert again.resume()
    again.run(data)
    save_checkpoint(tmp_path / "weights.safetensors", again.averaged)
