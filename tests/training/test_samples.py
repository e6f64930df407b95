"""Data, crops and simulated clicks of the trainer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from squares import write_set

from clickmask.encode import image_tensor, mask_probability
from clickmask.view import Box, View
from clickmask_models.presets import DEFAULT, pipeline
from clickmask_training import samples
from clickmask_training.augment import Crop, render, training_crop
from clickmask_training.clicks import corrective_click, random_clicks
from clickmask_training.config import ConfigError, TrainingConfig, read_config
from clickmask_training.data import TrainingData
from clickmask_training.samples import damaged_mask, make_batch
from clickmask_training.settings import ClickSettings, ColourSettings, DataSettings, ViewSettings
from clickmask_training.sources import load_set
from clickmask_training.views import box_placement

UPRIGHT = ViewSettings(rotated=0.0)


def crop_of(image: np.ndarray, mask: np.ndarray, size: int, rng: np.random.Generator, **view: object) -> Crop:
    settings = ViewSettings(**view)
    rule = pipeline(DEFAULT).crop
    return training_crop(image, mask, (size, size), settings, ColourSettings(), rule, rng)


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    write_set(tmp_path / "squares")
    return TrainingData(tmp_path, {"squares": 1.0})


@pytest.fixture
def config() -> TrainingConfig:
    return TrainingConfig(mixture={"squares": 1.0}, steps=10, crop_sizes={64: 1.0}, batch_pixels=4 * 64 * 64)


def test_training_and_held_out_images_are_disjoint_and_complete(tmp_path: Path) -> None:
    write_set(tmp_path / "squares", count=70)
    trained = load_set(tmp_path / "squares", DataSettings(), held_out=False)
    kept = load_set(tmp_path / "squares", DataSettings(), held_out=True)
    assert len(trained) + len(kept) == 70
    assert 0 < len(kept) < 10


def test_a_set_without_objects_to_train_on_is_named(tmp_path: Path) -> None:
    write_set(tmp_path / "squares")
    write_set(tmp_path / "nothing", area=100)
    with pytest.raises(ConfigError, match=r"found none in \S+nothing$"):
        TrainingData(tmp_path, {"squares": 1.0, "nothing": 0.5})


def test_held_out_sets_without_images_are_left_out(tmp_path: Path) -> None:
    write_set(tmp_path / "many", count=70)
    write_set(tmp_path / "nothing", area=100)
    kept = TrainingData(tmp_path, {"nothing": 0.5, "many": 1.0}, held_out=True)
    assert len(kept) > 0
    kept.draw(np.random.default_rng(0))


def test_a_crop_keeps_image_and_mask_aligned(data: TrainingData) -> None:
    # The square is brighter than its surroundings under every colour change, so its pixels in the crop
    # must be the mask's.
    rng = np.random.default_rng(0)
    for _ in range(40):
        image, mask, *_ = crop_of(*data.draw(rng), 64, rng)
        inside, outside = image[mask == 1].mean(), image[mask == 0]
        if outside.size and inside.size:
            assert inside > outside.mean() + 30


@pytest.mark.parametrize("box", [(10, 5, 50, 30), (95, 20, 120, 60), (0, 0, 120, 80), (3, 3, 43, 43)])
@pytest.mark.parametrize("size", [128, 24])
def test_a_crop_is_what_the_run_time_shows_of_the_same_box(box: tuple[int, int, int, int], size: int) -> None:
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (8, 12, 3), np.uint8), (120, 80), interpolation=cv2.INTER_CUBIC)
    mask = (image[..., 0] > 127).astype(np.uint8)
    crop = render(image, mask, (size, size), box_placement(Box(*box), size))
    view = View(Box(*box), size, fit="letterbox", coordinates="half_pixel")
    expected = image_tensor(image, view, (0.5, 0.5, 0.5))[0].transpose(1, 2, 0)

    width, height = view.valid_size
    rectangle = np.zeros((size, size), bool)
    rectangle[:height, :width] = True
    np.testing.assert_array_equal(crop.inside, rectangle)
    assert (crop.mask[~rectangle] == 255).all()
    shown = np.where(crop.inside[..., None], crop.image / 255, 0.5)
    # Where pixels are enlarged, whole grey levels here and fractions of one at run time; shrunk ones agree.
    np.testing.assert_allclose(shown, expected, atol=0.02 if size > box[2] - box[0] else 1e-6)
    np.testing.assert_array_equal(shown[~rectangle], expected[~rectangle])
    if size == 128:
        truth = mask_probability(mask == 1, view)
        sure = np.abs(truth - 0.5) > 0.45
        np.testing.assert_array_equal(crop.mask[:height, :width][sure] == 1, truth[sure] > 0.5)


def test_padding_lies_right_and_below_and_is_the_run_times(
    data: TrainingData, config: TrainingConfig
) -> None:
    padded = 0
    for step in range(10):
        batch = make_batch(data, replace(config, mask_share=1.0, view=UPRIGHT), step)
        assert batch.inside[..., 0, 0].all()
        rows, columns = batch.inside.any(dim=3, keepdim=True), batch.inside.any(dim=2, keepdim=True)
        assert torch.equal(batch.inside, rows & columns)
        for seen in (rows.squeeze(), columns.squeeze()):
            assert torch.equal(seen, seen.cummin(dim=1).values)  # once outside, always outside
        outside = ~batch.inside
        padded += int(outside.any(dim=(1, 2, 3)).sum())
        assert (batch.image[outside.expand_as(batch.image)] == 0.5).all()
        assert (batch.mask[outside] == 255).all()
        assert (batch.previous_mask[outside] == 0).all()
    assert padded > 10


def test_a_marked_pixel_is_found_under_its_mask_also_when_mirrored() -> None:
    image, mask = np.zeros((60, 90, 3), np.uint8), np.zeros((60, 90), np.uint8)
    image[20:22, 11], mask[20:22, 11] = 255, 1
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(60):
        crop = crop_of(image, mask, 96, rng)
        bright = crop.image.astype(float).sum(axis=2)
        weight = np.clip(bright - np.median(bright[crop.inside]) - 60, 0, None) * crop.inside
        if weight.max() < 300 or not (crop.mask == 1).any():
            continue
        marked = [(weight * axis).sum() / weight.sum() for axis in np.indices(weight.shape)]
        np.testing.assert_allclose(marked, np.argwhere(crop.mask == 1).mean(axis=0), atol=1.0)
        found += 1
    assert found > 20


def test_most_zoomed_crops_end_where_their_box_does() -> None:
    image, mask = np.full((300, 400, 3), 90, np.uint8), np.zeros((300, 400), np.uint8)
    mask[140:160, 150:250] = 1  # wide, far from every edge: the photo itself never ends in a zoomed crop
    rng = np.random.default_rng(0)
    padded = np.mean(
        [not crop_of(image, mask, 64, rng, rotated=0.0, whole=0.0).inside.all() for _ in range(400)]
    )
    assert 0.28 < padded < 0.42  # 70 % of the zoomed half


def test_random_clicks_lie_on_their_own_side() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((80, 80), np.uint8)
    mask[20:60, 25:70] = 1
    mask[:10] = 255
    for _ in range(50):
        clicks = random_clicks(mask, ClickSettings(), rng)
        used = clicks[clicks[:, 2] >= 0].astype(int)
        assert (used[:, 2] == 1).any()
        for x, y, label in used:
            assert mask[y, x] == label


def test_a_share_of_the_corrective_clicks_lies_where_an_error_is_deepest() -> None:
    mask = np.zeros((80, 80), np.uint8)
    mask[20:41, 10:51] = 1  # 21 rows: deepest in the middle one, from the 11th column to the 11th last
    rng = np.random.default_rng(0)
    nothing = np.zeros(mask.shape, bool)
    deepest = []
    for _ in range(200):
        x, y, label = corrective_click(nothing, mask, rng, deepest=0.6)
        assert label == 1
        deepest.append(y == 30 and 20 <= x <= 40)
    assert 0.5 < np.mean(deepest) < 0.75


def test_a_corrective_click_lies_in_the_deeper_error() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((60, 60), np.uint8)
    mask[10:40, 10:40] = 1
    prediction = mask == 1
    prediction[10:40, 10:22] = False  # 12 px of the object are missed
    prediction[45:50, 10:15] = True  # 5 px of background are surplus
    for _ in range(20):
        click = corrective_click(prediction, mask, rng)
        assert click is not None
        x, y, label = click
        assert label == 1
        assert 10 <= x < 22
        assert 10 <= y < 40
    assert corrective_click(mask == 1, mask, rng) is None


def test_a_corrective_click_lies_deep_in_the_error_anywhere_there() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 40), np.uint8)
    mask[10:31, 10:31] = 1  # missed: 11 pixels deep at (20, 20), and more than half of that within 5 of it
    clicks = np.array([corrective_click(mask == 2, mask, rng) for _ in range(200)])
    assert (clicks[:, 2] == 1).all()
    offsets = np.abs(clicks[:, :2] - 20).max(axis=1)
    assert offsets.max() == 5
    assert offsets.mean() > 2.5  # uniform over 11 x 11 pixels: 3.6


def test_of_errors_as_deep_as_each_other_the_surplus_is_corrected() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[5:14, 5:14] = 1
    click = corrective_click(mask[::-1, ::-1] == 1, mask, np.random.default_rng(0))
    assert click is not None
    assert click[2] == 0
    assert (click[:2] >= 26).all()


def test_a_prediction_on_another_object_is_corrected() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[5:15, 5:15], mask[20:30, 20:30] = 1, 2
    click = corrective_click(mask > 0, mask, np.random.default_rng(0))
    assert click is not None
    x, y, label = click.astype(int)
    assert (mask[y, x], label) == (2, 0)


def test_a_damaged_mask_differs_yet_overlaps() -> None:
    mask = np.zeros((96, 96), np.uint8)
    mask[20:70, 30:80] = 1
    overlaps = []
    for seed in range(20):
        damaged = damaged_mask(mask, np.random.default_rng(seed)) > 0.5
        overlaps.append((damaged & (mask == 1)).sum() / (damaged | (mask == 1)).sum())
    assert max(overlaps) < 1
    assert np.mean(overlaps) > 0.5


def test_a_damaged_mask_does_not_come_in_again_at_the_other_side() -> None:
    mask = np.zeros((96, 96), np.uint8)
    mask[30:70, 60:] = 1
    for seed in range(20):
        assert not damaged_mask(mask, np.random.default_rng(seed))[:, :30].any()


def of_two_objects(folder: Path, *, second: bool) -> None:
    """A picture whose list names two objects; whether its mask shows the second."""
    write_set(folder, count=1)
    mask = np.zeros((120, 160), np.uint8)
    mask[10:50, 20:70] = 1
    mask[80:90, 100:110] = 2 * second
    Image.fromarray(mask).convert("P").save(folder / "masks" / "0.png")
    listed = json.loads((folder / "instances.json").read_text())
    (objects,) = listed["0.png"]["masks"].values()
    objects["2"] = {"area": 2000, "bbox": [100, 80, 110, 90]}
    (folder / "instances.json").write_text(json.dumps(listed))


def test_two_objects_as_one_are_two(tmp_path: Path) -> None:
    of_two_objects(tmp_path / "pair", second=True)
    data = TrainingData(tmp_path, {"pair": 1.0}, DataSettings(merge=1.0))
    rng = np.random.default_rng(0)
    assert {int((data.draw(rng)[1] == 1).sum()) for _ in range(20)} == {40 * 50 + 10 * 10}


def test_an_object_that_its_mask_does_not_show_is_passed_over(tmp_path: Path) -> None:
    of_two_objects(tmp_path / "pair", second=False)
    data = TrainingData(tmp_path, {"pair": 1.0}, DataSettings(merge=0.0))
    rng = np.random.default_rng(0)
    assert all((data.draw(rng)[1] == 1).sum() == 40 * 50 for _ in range(20))
    Image.fromarray(np.zeros((120, 160), np.uint8)).convert("P").save(tmp_path / "pair/masks/0.png")
    with pytest.raises(ConfigError, match="got none in 100 draws"):
        TrainingData(tmp_path, {"pair": 1.0}).draw(rng)


def test_views_that_always_lose_their_object_end_in_words(
    data: TrainingData, config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_LEAST", 1 << 20)  # as whole photographs in small crops, of small objects
    with pytest.raises(ConfigError, match=r"expected crops of .* got none in 100 draws"):
        make_batch(data, config, 0)


def test_a_batch_is_a_function_of_seed_and_step(data: TrainingData, config: TrainingConfig) -> None:
    for first, second in zip(make_batch(data, config, 3), make_batch(data, config, 3), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(make_batch(data, config, 4).image, make_batch(data, config, 3).image)


def test_samples_as_sessions_begin_on_the_whole_photo_and_have_a_mask_elsewhere(
    data: TrainingData, config: TrainingConfig
) -> None:
    clicks = replace(config.clicks, as_sessions=True, midway=True)
    config = replace(config, mask_share=0.0, clicks=clicks)
    whole = replace(config, view=ViewSettings(whole=1.0))
    begun = 0
    for number in range(20):
        batch = make_batch(data, whole, number)
        first = batch.rounds == 0
        learnt = first | (batch.midway == 0)
        assert ((batch.clicks[learnt][..., 2] >= 0).sum(dim=1) == 1).all()
        assert torch.equal(batch.midway < 0, first)
        assert (batch.midway < batch.rounds).all()
        begun += int(first.sum())
    assert 0.3 < begun / 80 < 0.6  # 45 % are not iterative

    part = replace(config, view=ViewSettings(kind="scaled_crop", scale=(2.0, 2.0)))
    for number in range(20):
        batch = make_batch(data, part, number)
        assert (batch.rounds >= 1).all()
        assert torch.equal(batch.midway < 1, batch.rounds == 1)
        assert (batch.midway != 0).all()


def test_a_batch_has_the_shapes_that_networks_take(data: TrainingData, config: TrainingConfig) -> None:
    batch = make_batch(data, config, 0)
    assert batch.image.shape == (4, 3, 64, 64)
    assert 0 <= batch.image.min() <= batch.image.max() <= 1
    assert batch.mask.shape == batch.previous_mask.shape == (4, 1, 64, 64)
    assert batch.clicks.shape[::2] == (4, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 5", "missing keys mixture"),
        ("steps = 5\nmixture.a = 1\nspeed = 3", "unknown keys speed"),
        ("steps = 0\nmixture.a = 1", "steps: expected a positive number .whole., got 0"),
        ("steps = 5\nmixture.a = 1\nmask_share = 2", "mask_share: expected a share"),
        ("steps = 5\nmixture.a = 1\n[crop_sizes]\n250 = 1", "multiples of 32.*got 250"),
        ("steps = ", "not valid TOML"),
        ('steps = "a"\nmixture.a = 1', "steps: expected a positive number .whole., got 'a'"),
        ("steps = 5.5\nmixture.a = 1", "steps: expected a positive number .whole., got 5.5"),
        ("steps = true\nmixture.a = 1", "steps: expected"),
        ("steps = 5\nmixture.a = 0", "mixture.a: expected a positive share, got 0"),
        ("steps = 5\nmixture = {}", "mixture: expected at least one data-set folder"),
        ('steps = 5\nmixture = "a"', "mixture: expected at least one data-set folder"),
        ("steps = 5\nmixture.a = 1\ncrop_sizes = {}", "crop_sizes: expected at least one size"),
        ("steps = 5\nmixture.a = 1\ncrop_sizes.x = 1", "crop_sizes: expected multiples of 32.*got x"),
        ("steps = 5\nmixture.a = 1\ncrop_sizes.0 = 1", "crop_sizes: expected multiples of 32.*got 0"),
        ("steps = 5\nmixture.a = 1\nfrozen_blocks = 99", "frozen_blocks: expected 0 to 18"),
        ("steps = 5\nmixture.a = 1\nweight_decay = -1", "weight_decay: expected a number of at least 0"),
        ("steps = 5\nmixture.a = 1\nlearning_rate = nan", "learning_rate: expected a positive number"),
        ("steps = 5\nmixture.a = 1\nseed = -1", "seed: expected"),
        (
            "steps = 5\nmixture.a = 1\nclicks.speed = 1",
            "unknown keys clicks.speed; known: as_sessions, deepest",
        ),
        ("steps = 5\nmixture.a = 1\nview = 3", "view: expected a table, got 3"),
        ("steps = 5\nmixture.a = 1\nclicks.positive = 0", "clicks.positive: expected 1 to 64 clicks"),
        ("steps = 5\nmixture.a = 1\nloss = {bce = 0, dice = 0}", "weight of bce, dice, nfl or features"),
        (
            "steps = 5\nmixture.a = 1\nloss = {bce = 0, dice = 0, features = 1, distillation = 1}",
            "expected bce, dice or nfl beside distillation and latent_heads",
        ),
        (
            "steps = 5\nmixture.a = 1\nloss = {bce = 0, dice = 0, features = 1}",
            "backbone_from: expected 0 where loss.features is all there is, got 0.35",
        ),
        ("steps = 5\nmixture.a = 1\ncolour.contrast = [1]", "colour.contrast: expected two numbers"),
        ("steps = 5\nmixture.a = 1\nview.scale = [2, 1]", "view.scale: expected the lower number first"),
        ("steps = 5\nmixture.a = 1\nview.antialias = 1", "view.antialias: expected true or false, got 1"),
        ("steps = 5\nmixture.a = 1\nnetwork = 'x'", "network: expected one of encode_once_mobilenet_v2"),
        ("steps = 5\nmixture.a = 1\nschedule = 'steps'", "drops: expected at least one step"),
        ("steps = 5\nmixture.a = 1\nschedule = 'constant'\ndrops = [3]", "none with another, got .3."),
        ("steps = 5\nmixture.a = 1\ncrop_sizes.320x480 = 1", "crop_sizes: expected squares"),
        ("steps = 5\nmixture.a = 1\ndata = {synthetic = 0.6, copy_paste = 0.6}", "sum of at most 1, got 1.2"),
        (
            "steps = 5\nmixture.a = 1\nclicks = {as_sessions = true, same_rounds = true}",
            "no clicks.same_rounds",
        ),
    ],
)
def test_bad_configurations_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(path)


@pytest.mark.parametrize("recipe", ["default", "default_continued"])
def test_the_shipped_configurations_name_real_folders(root: Path, shared: Path, recipe: str) -> None:
    for name in read_config(root / f"training/configs/{recipe}.toml").mixture:
        assert (shared / "data/train" / name / "instances.json").is_file()
