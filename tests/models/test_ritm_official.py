"""The ``ritm_hrnet18s`` preset computes what the public code's RITM-HRNet-18s computed, tensor by tensor.

The largest difference of a logit is 3e-5 where logits reach 17: 1.9e-6 of the largest. The tolerance, 1e-5,
leaves room for other orders of summation (threads, processors), as every recorded tensor has room.
"""

from __future__ import annotations

import pytest
import torch
from golden import CASES, Recording, close, run
from golden_hrnet import RECORDED, branches
from public_files import official_network

from clickmask_models.click_maps import click_maps
from clickmask_models.deeplab import resize
from clickmask_models.presets import preset

TOLERANCE = 1e-5  # of the largest value


@pytest.fixture(scope="module")
def recording(shared):
    return Recording(shared, "ritm_hrnet18s")


@pytest.fixture(scope="module")
def network(recording, tmp_path_factory):
    return official_network(tmp_path_factory.mktemp("official"), recording)


@pytest.fixture(scope="module")
def runs(network, recording):
    """For each case the logits, and (first input, output) of all submodules by name."""
    return {case: run(network, recording, case) for case in CASES}


def test_checkpoint_is_the_preset_s_network(network):
    assert network.config == preset("ritm_hrnet18s")


@pytest.mark.parametrize("case", CASES)
def test_click_maps(recording, case):
    height, width = recording(case, "image").shape[:2]
    maps = click_maps(recording.clicks(case), height, width, preset("ritm_hrnet18s").click_map)
    close(maps[0], recording(case, "click_map"), 0.0)


@pytest.mark.parametrize("case", CASES)
def test_logits(runs, recording, case):
    logits = runs[case][0][0, 0]
    assert logits.dtype == torch.float32
    close(logits, recording(case, "logits"), TOLERANCE)
    assert ((logits > 0).numpy() != (recording(case, "logits") > 0)).sum() <= 2


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("module", RECORDED)
def test_intermediate(runs, recording, case, module):
    name, channels, step = RECORDED[module]
    output = runs[case][1][module][1][0, ::channels, ::step, ::step]
    close(output.reshape(recording(case, name).shape), recording(case, name), TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_branches_of_the_backbone(runs, recording, case):
    for name, output in branches(runs[case][1]).items():
        close(output, recording(case, name), TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_clicks_are_added_after_the_stem(runs, recording, case):
    stem = runs[case][1]["backbone"][0]
    close(stem[0, ::16, ::4, ::4], recording(case, "stem_plus_clicks"), TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_context_of_the_object(runs, recording, case):
    context = runs[case][1]["ocr.f_down.0"][0]
    close(context[0, :, 0, 0], recording(case, "ocr_context"), TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_auxiliary_logits(runs, recording, case):
    size = recording(case, "image").shape[:2]
    auxiliary = resize(runs[case][1]["ocr.aux_head"][1], size, align_corners=True)
    close(auxiliary[0, 0, ::4, ::4], recording(case, "logits_aux"), TOLERANCE)
