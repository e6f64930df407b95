"""Stored settings: those of networks that are not ours must never pass."""

from __future__ import annotations

import pytest
import torch
from public_files import stored_config

from clickmask_models.public_settings import check_settings, public_settings

RELEASED = {
    "backbone": "resnet34",
    "use_leaky_relu": True,
    "use_rgb_conv": False,
    "use_disks": True,
    "norm_radius": 5,
    "with_prev_mask": False,
    "backbone_norm_layer": None,
    "backbone_lr_mult": 0.1,
    "norm_layer": "torch.nn.modules.batchnorm.SyncBatchNorm",
    "clicks_groups": None,
    "norm_mean_std": [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]],
}
SHOWN = {"backbone": "resnet34", "with_prev_mask": False, "use_rgb_conv": False}


def test_released_settings_pass():
    check_settings(public_settings(stored_config(**RELEASED)), SHOWN)


def test_no_settings_are_no_contradiction():
    assert public_settings(None) == {}
    check_settings({}, SHOWN)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("with_prev_mask", True, "with_prev_mask=True, expected False by its tensors"),
        ("backbone", "resnet50", "backbone='resnet50', expected 'resnet34' by its tensors"),
        ("use_leaky_relu", False, "use_leaky_relu=False, expected True of what clickmask computes"),
        ("clicks_groups", [10, 5], r"clicks_groups=\(10, 5\), expected None"),
        ("norm_mean_std", [[0.5] * 3, [0.5] * 3], r"norm_mean_std=\(\(0\.5"),
        ("norm_layer", "torch.nn.modules.normalization.GroupNorm", "expected a batch norm"),
        (
            "is_strided_maps_transform",
            False,
            "is_strided_maps_transform=False, which clickmask does not know",
        ),
        ("use_leaky_relu", torch.ones(2), "use_leaky_relu='tensor"),
    ],
)
def test_other_settings_are_named(name, value, said):
    settings = public_settings(stored_config(**RELEASED | {name: value}))
    with pytest.raises(ValueError, match=said):
        check_settings(settings, SHOWN)


def test_all_problems_are_named_at_once():
    settings = public_settings(stored_config(conv_extend=True, binary_prev_mask=True))
    with pytest.raises(ValueError, match=r"conv_extend=True.*; binary_prev_mask=True"):
        check_settings(settings, SHOWN)


@pytest.mark.parametrize(
    "config", ["resnet34", {"backbone": "resnet34"}, {"params": {"backbone": "resnet34"}}]
)
def test_settings_in_another_form_are_refused_with_a_way_out(config):
    with pytest.raises(ValueError, match=r"state_dict.* alone"):
        public_settings(config)
