"""RITM's networks: their sizes, and what the configuration refuses (``test_click_network`` has the rest)."""

from __future__ import annotations

import pytest
import torch

from clickmask_models.presets import preset
from clickmask_models.ritm import RITM, RITMConfig


@pytest.mark.parametrize(
    ("name", "channels", "published"),
    [
        ("ritm_hrnet18s", 48, 4_220_047),
        ("ritm_hrnet18", 64, 10_032_019),
        ("ritm_hrnet32", 128, 30_951_363),
    ],
)
def test_parameters_are_the_published_ones_less_ocr_s_queries_and_keys(name, channels, published):
    """4.22, 10.03 and 30.95 million; see ``ocr`` for the two pairs of layers that have no effect."""
    query = 2 * channels * channels + 2 * channels + channels * channels + 2 * channels
    with torch.device("meta"):
        network = RITM(preset(name))
    assert sum(p.numel() for p in network.parameters()) == published - 2 * query


@pytest.mark.parametrize(
    ("name", "value"), [("backbone", "hrnet64"), ("ocr_channels", 0), ("dropout", 1.0), ("dropout", -0.1)]
)
def test_bad_option_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        RITMConfig(**{name: value})
