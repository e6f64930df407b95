"""Pasted objects and scenes of shapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from squares import write_set

from clickmask_training.compose import paste_object, shape_scene
from clickmask_training.config import TrainingConfig
from clickmask_training.data import TrainingData
from clickmask_training.held_out import held_out_batches
from clickmask_training.samples import make_batch
from clickmask_training.settings import DataSettings


def test_a_pasted_object_brings_its_pixels_and_its_mask() -> None:
    rng = np.random.default_rng(0)
    image, mask = np.full((100, 140, 3), 40, np.uint8), np.zeros((100, 140), np.uint8)
    mask[20:60, 30:80], mask[:5] = 1, 255
    giver, given = np.full((80, 80, 3), 220, np.uint8), np.zeros((80, 80), np.uint8)
    given[20:50, 30:60] = 1
    roles = set()
    for _ in range(60):
        out, truth = paste_object(image, mask, giver, given, rng)
        pasted = out[..., 0] > 130
        assert set(np.unique(truth)) <= {0, 1, 2, 255}
        new = truth[pasted]
        assert (new == 1).all() or (new == 2).all()
        roles.add(int(new[0]))
        untouched = (out == image).all(axis=2)
        expected = mask if new[0] == 2 else np.where(mask == 1, 2, mask)
        np.testing.assert_array_equal(truth[untouched], expected[untouched])
    assert roles == {1, 2}


def test_a_scene_has_a_shape_to_segment_whose_pixels_are_the_fillings() -> None:
    rng = np.random.default_rng(0)
    ground, filling = np.full((50, 70, 3), 10, np.uint8), np.full((60, 60, 3), 180, np.uint8)
    for _ in range(20):
        image, mask = shape_scene(ground, filling, rng)
        assert image.shape == (384, 384, 3)
        assert set(np.unique(mask)) <= {0, 1, 2}
        assert (mask == 1).sum() > 50
        assert image[mask == 1].mean() > image[mask == 0].mean() + 40


def test_composed_samples_are_off_by_default_and_drawn_when_asked_for(tmp_path: Path) -> None:
    write_set(tmp_path / "squares")
    config = TrainingConfig(mixture={"squares": 1.0}, steps=1, crop_sizes={64: 1.0}, batch_pixels=8 * 64 * 64)
    data = TrainingData(tmp_path, {"squares": 1.0})
    plain = make_batch(data, config, 0)
    for share in ("copy_paste", "synthetic"):
        composed = make_batch(data, replace(config, data=DataSettings(**{share: 1.0})), 0)
        assert (composed.mask == 1).any()
        assert (composed.mask != 2).all()
        assert not np.array_equal(composed.image, plain.image)


def test_held_out_batches_are_of_photographs_alone(tmp_path: Path) -> None:
    write_set(tmp_path / "squares")
    config = TrainingConfig(mixture={"squares": 1.0}, steps=1, crop_sizes={64: 1.0}, batch_pixels=4 * 64 * 64)
    data = TrainingData(tmp_path, {"squares": 1.0})
    composed = replace(config, data=DataSettings(synthetic=0.5, copy_paste=0.5))
    for got, plain in zip(held_out_batches(data, composed), held_out_batches(data, config), strict=True):
        assert torch.equal(got.image, plain.image)
        assert torch.equal(got.mask, plain.mask)
