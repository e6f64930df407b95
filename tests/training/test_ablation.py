"""The ablation: arms that differ in what they say and in nothing else, trained once, compared in a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from skimage import data
from squares import write_set

from clickmask import Segmenter
from clickmask.bundle import default_bundle_path, read_manifest_file
from clickmask.evaluation.methods import BundleMethod
from clickmask.native_diffusion import DiffusionOptions
from clickmask.native_library import unavailable_because
from clickmask_models.checkpoints import load_checkpoint
from clickmask_models.encode_once import EncodeOnceConfig
from clickmask_models.pixel_diffusion import PixelDiffusion, PixelDiffusionConfig
from clickmask_training import ablation
from clickmask_training.ablation import main
from clickmask_training.ablation_arms import changed, read_ablation
from clickmask_training.ablation_diffusion import Diffused, variants
from clickmask_training.checks import ConfigError
from clickmask_training.config import TrainingConfig
from clickmask_training.unexported import native_diffusion, torch_segmenter

ARMS = Path(__file__).parents[2] / "training/ablation.toml"
RECIPE = """\
steps = 99
crop_sizes = { 64 = 1.0 }
batch_pixels = 8192
warmup = 1
backbone_from = 0.0
precision = "fp32"
[mixture]
squares = 1.0
"""
TWO = """\
recipe = "recipe.toml"
[arms.base]
change = { auxiliary_weight = 0.0, loss = { latent_heads = 2 } }
network = { feature_diffusion = { variant = "auxiliary" } }
[arms.whole]
weights_of = "base"
crop_policy = "none"
papers = "worse"
"""
needs_kernel = pytest.mark.skipif(
    unavailable_because() is not None, reason=f"needs the fused kernel: {unavailable_because()}"
)


def test_the_shipped_arms_differ_in_what_they_say() -> None:
    arms = read_ablation(ARMS)
    base, with_dt, both = (arms.config(name) for name in ("baseline", "+ DT", "+ DT, FDM"))
    assert (base.auxiliary_weight, base.loss.latent_heads) == (0.0, 0)
    assert (with_dt.auxiliary_weight, with_dt.loss.latent_heads) == (0.0, 4)
    assert (both.auxiliary_weight, both.loss.latent_heads) == (0.4, 4)
    assert base.seed == both.seed
    assert base.mixture == both.mixture
    sgm, csfp = (arms.network(name).state_dict() for name in ("SGM", "SGM, HSGM"))
    assert {name.split(".")[1] for name in csfp if name not in sgm} == {"hsgm"}
    plain, diffusing = (arms.network(name).state_dict() for name in ("baseline", "+ DT, FDM"))
    added = {name for name in diffusing if name not in plain}
    assert added
    assert all(name.startswith("decoder.feature_diffusion.") for name in added)
    assert all(torch.equal(value, diffusing[name]) for name, value in plain.items())


def test_without_diffusion_feature_diffusion_hands_its_input_on() -> None:
    network = read_ablation(ARMS).network("baseline")
    block = network.decoder.feature_diffusion
    x = torch.randn(1, network.config.widths[3], 4, 4)
    assert torch.equal(block(x, torch.rand(1, 2, 4, 4)).features, x)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe = 'recipe.toml'", "recipe = FILE and tables"),
        (TWO.replace("papers", "paper"), r"unknown keys arms\.whole\.paper"),
        (TWO.replace('"base"', '"none"'), r"arms\.whole\.weights_of: expected one of base, got 'none'"),
        (TWO.replace("latent_heads", "heads"), r"unknown keys arms\.base\.change\.loss\.heads"),
        (
            TWO.replace('"auxiliary"', '"some"'),
            r"arms\.base\.network\.feature_diffusion: FDM variant must be",
        ),
        (TWO.replace("weights_of", "change = { steps = 2 }\nweights_of"), "would need training"),
    ],
)
def test_wrong_arms_are_refused_before_the_training(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "arms.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_ablation(tmp_path / "arms.toml")


def test_changes_reach_into_tables_and_leave_the_rest() -> None:
    config = TrainingConfig(mixture={"squares": 1.0}, steps=5)
    new = changed(config, {"steps": 7, "loss": {"dice": 0.5}}, "")
    assert (new.steps, new.loss.dice, new.loss.bce, new.mixture) == (7, 0.5, 1.0, {"squares": 1.0})
    assert config.steps == 5


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command that trains one arm of two, on squares."""
    monkeypatch.setattr(ablation, "_CLICKS", 2)
    write_set(tmp_path / "train/squares")
    write_set(tmp_path / "eval/boxes", count=1)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "arms.toml").write_text(TWO)
    words = ["training", "--config", str(tmp_path / "arms.toml"), "--data", str(tmp_path / "train")]
    words += ["--output", str(tmp_path / "out"), "--root", str(tmp_path / "eval"), "--dataset", "boxes"]
    return [*words, "--markdown", str(tmp_path / "page.md")]


def test_one_command_trains_compares_and_goes_on(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, output = tmp_path / "page.md", tmp_path / "out"
    page.write_text("# Ablation\n\n## Training\n\nfirst text\n\n## Another\n\nkept\n")
    assert main([*words, "--steps", "1"]) == 0
    assert sorted(path.name for path in output.iterdir()) == ["base", "report.json"]  # weights of one arm
    text = page.read_text()
    assert "first text" not in text
    assert text.endswith("## Another\n\nkept\n")
    rows = [line for line in text.splitlines() if line.startswith(("| base", "| whole"))]
    assert len(rows) == 2
    assert rows[1].endswith("| worse |")

    saved = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert main([*words, "--steps", "1"]) == 0  # nothing left to do
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == saved
    capsys.readouterr()
    assert main([*words, "--steps", "2"]) == 1  # other budgets do not mix
    assert "steps 1 instead of 2" in capsys.readouterr().err


def test_a_stopped_run_leaves_a_page_that_says_what_is_missing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, train = tmp_path / "page.md", ablation.train_arm

    def stopped_at_the_second(*arguments: Any) -> None:
        if page.exists():
            raise KeyboardInterrupt
        train(*arguments)

    monkeypatch.setattr(ablation, "train_arm", stopped_at_the_second)
    assert main([*words, "--steps", "1"]) == 130
    text = page.read_text()
    assert "**Incomplete**: the same command goes on with `whole`." in text
    rows = [line for line in text.splitlines() if line.startswith(("| base", "| whole"))]
    assert len(rows) == 1

    monkeypatch.setattr(ablation, "train_arm", train)
    assert main([*words, "--steps", "1"]) == 0
    assert "Incomplete" not in page.read_text()
    assert rows[0] in page.read_text()


def default_method() -> BundleMethod:
    return BundleMethod("default", default_bundle_path(), "onnxruntime", "cpu", threads=1)


@needs_kernel
def test_the_varied_diffusion_is_that_of_the_models() -> None:
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.random((384, 384, 3), np.float32), (0, 0), 6)
    image = ((image - image.min()) / np.ptp(image)).transpose(2, 0, 1)[None].copy()
    clicks = np.array([[[100, 90, 1], [200, 60, 0]]], np.float32)
    results = {}
    for iterations, amplitude in ((0, 1.0), (5, 2.0), (10, 1.0)):
        with Diffused(default_method(), iterations, amplitude).open() as segmenter:
            backend = segmenter.backend
            results[iterations] = backend.decode(backend.encode(image), clicks)
    spec = EncodeOnceConfig().pixel_diffusion
    for iterations, amplitude in ((5, 2.0), (10, 1.0)):
        config = PixelDiffusionConfig(iterations, amplitude=amplitude, affinity=spec.affinity, eps=spec.eps)
        raw, picture, points = (torch.from_numpy(array) for array in (results[0], image, clicks))
        expected = PixelDiffusion(config)(raw, picture, points).numpy()
        assert np.abs(results[iterations] - expected).max() < 0.05
        assert np.abs(results[iterations] - results[0]).max() > 0.5


@needs_kernel
def test_a_network_that_is_not_exported_segments_as_its_bundle_does() -> None:
    network = load_checkpoint(Path(__file__).parents[2] / "engines/default.safetensors").eval()
    config = TrainingConfig(mixture={"squares": 1.0}, steps=1, precision="fp32")
    spec = read_manifest_file(default_bundle_path()).pixel_diffusion
    assert native_diffusion(network.config.pixel_diffusion).kernel == DiffusionOptions.from_spec(spec)
    ours = torch_segmenter(network, config, network.config.pixel_diffusion)
    photo = data.astronaut()
    with ours, Segmenter.load(device="cpu", threads=1) as shipped:
        sessions = [segmenter.session(photo) for segmenter in (ours, shipped)]
        for x, y in ((220, 110), (280, 300), (60, 60), (230, 200)):  # the second and later ones have momentum
            told, expected = (session.click(x, y, positive=y != 60) for session in sessions)
            assert (told != expected).mean() < 1e-4
            assert sessions[0].crop == sessions[1].crop
            np.testing.assert_allclose(sessions[0].probability, sessions[1].probability, rtol=0, atol=1e-3)


def test_variants_change_one_setting_at_a_time() -> None:
    arms = variants(default_method())
    settings = [(arm.iterations, arm.amplitude) for arm in arms]
    assert settings[0] == (10, 1.0)
    assert len(set(settings)) == len({arm.name for arm in arms}) == 9
    assert {n for n, amplitude in settings if amplitude == 1.0} == {0, 1, 5, 10, 20}
    assert {amplitude for n, amplitude in settings if n == 10} == {0.0, 0.5, 1.0, 1.5, 2.0}
