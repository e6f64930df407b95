"""A narrower decoder: what nobody hears goes first, and the rest stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from squares import write_set
from torch import nn

from clickmask_models.backbones.mobilenet_v2 import HIDDEN
from clickmask_models.checkpoints import load_checkpoint, save_checkpoint
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_models.presets import build_network, preset
from clickmask_training import allocation
from clickmask_training.allocation import Size
from clickmask_training.checks import ConfigError
from clickmask_training.config import TrainingConfig
from clickmask_training.data import TrainingData
from clickmask_training.narrow import main, narrow
from clickmask_training.samples import Batch, make_batch

WIDTHS, CLICK_WIDTHS = (8, 12, 16, 20), (4, 8, 12, 16)


@pytest.fixture
def batches(tmp_path: Path) -> list[Batch]:
    write_set(tmp_path / "data" / "squares")
    config = TrainingConfig({"squares": 1.0}, steps=1, crop_sizes={64: 1.0}, batch_pixels=4 * 64 * 64)
    data = TrainingData(tmp_path / "data", config.mixture)
    # Enough that no channel that says something is constant on them, and so taken for silent.
    return [make_batch(data, config, number) for number in range(6)]


def small_network() -> EncodeOnceCDNet:
    torch.manual_seed(0)
    return EncodeOnceCDNet(EncodeOnceConfig(widths=WIDTHS, click_widths=CLICK_WIDTHS)).eval()


@torch.no_grad()
def silence_every_other(network: EncodeOnceCDNet) -> None:
    """Every second channel of the decoder gives zeros, whatever comes."""
    for module in network.decoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.5, 0.5)
            module.weight[1::2] = 0
            module.bias[1::2] = 0
    for stem in network.decoder.click_stem:
        stem.weight[1::2] = 0
        stem.bias[1::2] = 0


@torch.no_grad()
def fit_norms(network: nn.Module, batches: list[Batch]) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    network.train()
    for batch in batches:
        network(batch.image, batch.clicks, batch.previous_mask)
    network.eval()


def test_silent_channels_go_and_the_logits_stay(batches: list[Batch]) -> None:
    network = small_network()
    silence_every_other(network)
    fit_norms(network, batches)
    half = narrow(network, [w // 2 for w in WIDTHS], [w // 2 for w in CLICK_WIDTHS], batches)
    with torch.no_grad():
        for batch in batches:
            inputs = (batch.image, batch.clicks, batch.previous_mask)
            whole, cut = network.forward_with_auxiliary(*inputs), half.forward_with_auxiliary(*inputs)
            assert whole.logits.std() > 1e-3  # they say something
            torch.testing.assert_close(cut.logits, whole.logits, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(cut.auxiliary, whole.auxiliary, rtol=1e-4, atol=1e-5)


def test_the_network_given_is_not_changed(batches: list[Batch]) -> None:
    network = small_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    narrow(network, (4, 4, 4, 4), (2, 2, 2, 2), batches)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("widths", "click_widths", "reason"),
    [
        ((8, 12, 16, 24), CLICK_WIDTHS, r"--widths: expected four numbers from 1 to \(8, 12, 16, 20\)"),
        (WIDTHS, (4, 8, 12, 0), "--click-widths"),
        (WIDTHS, (4, 8), "--click-widths"),
    ],
)
def test_widths_that_it_does_not_have_are_refused(
    batches: list[Batch], widths: tuple[int, ...], click_widths: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        narrow(small_network(), widths, click_widths, batches)


def test_other_networks_are_refused(batches: list[Batch]) -> None:
    network = build_network(preset("encode_once_csfp"))
    with pytest.raises(ConfigError, match="EncodeOnceCSFP"):
        narrow(network, (8, 8, 8, 8), (4, 4, 4, 4), batches)


def command(folder: Path) -> list[str]:
    """What the command is told but for what to cut."""
    save_checkpoint(folder / "wide.safetensors", small_network())
    (folder / "run.toml").write_text(
        "steps = 1\nbatch_pixels = 32768\n[crop_sizes]\n64 = 1.0\n[mixture]\nsquares = 1.0\n"
    )
    words = [str(folder / "wide.safetensors"), f"--output={folder / 'narrow.safetensors'}"]
    return [*words, f"--config={folder / 'run.toml'}", f"--data={folder / 'data'}"]


@pytest.mark.usefixtures("batches")
def test_the_command_writes_a_checkpoint_to_train_on(tmp_path: Path) -> None:
    words = command(tmp_path)
    hidden = tuple(count // 2 for count in HIDDEN)
    status = main(
        [
            *words,
            *("--widths", "4", "6", "8", "10", "--click-widths", "2", "4", "6", "8"),
            *("--hidden", *map(str, hidden)),
        ]
    )
    assert status == 0
    cut = load_checkpoint(tmp_path / "narrow.safetensors").config
    assert (cut.widths, cut.click_widths) == ((4, 6, 8, 10), (2, 4, 6, 8))
    assert cut.hidden == hidden


@pytest.mark.usefixtures("batches")
def test_the_command_finds_where_to_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sizes(_network: object, index: int, images: object) -> list[Size]:
        assert len(list(images)) >= 2  # type: ignore[call-overload]
        return [Size(HIDDEN[index], HIDDEN[index], 0.0), Size(16, 16, 17.0 - index)]

    monkeypatch.setattr(allocation, "block_sizes", sizes)
    words = command(tmp_path)
    for wrong in ("0", "1.5"):
        assert main([*words, f"--backbone={wrong}"]) == 1
        assert f"--backbone: expected a share in (0, 1], got {float(wrong)}" in capsys.readouterr().err
    assert main([*words, "--backbone=0.9"]) == 0
    assert load_checkpoint(tmp_path / "narrow.safetensors").config.hidden == (*HIDDEN[:16], 16)


@pytest.mark.usefixtures("batches")
def test_the_command_asks_what_to_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needed = [f"--{name}={tmp_path / name}" for name in ("config", "data", "output")]
    assert main([str(tmp_path / "wide.safetensors"), *needed]) == 1
    assert "expected what to cut: --hidden, --backbone, --widths or" in capsys.readouterr().err
