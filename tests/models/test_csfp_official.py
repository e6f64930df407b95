"""The ``csfp_official`` preset computes what the public code's CSFPN-HRNet-18 computed, tensor by tensor.

Two recordings of one architecture: the coarse network's weights and the fine one's.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import CASES, Recording, close, run
from golden_hrnet import RECORDED, branches
from public_files import official_network

from clickmask_models.deeplab import resize
from clickmask_models.presets import preset
from clickmask_models.sparse_propagation import ClickCells, click_cells

TOLERANCE = 1e-5  # of the largest value: float32 in another summation order
# Submodule whose output was recorded -> (name, channel step, row and column step).
PROPAGATED = RECORDED | {
    "sgm": ("sgm_out", 45, 2),
    "hsgm": ("hsgm_out", 45, 4),
    "hsgm.fusion": ("hsgm_fusion", 45, 4),
}


@pytest.fixture(scope="module", params=["coarse", "fine"])
def recording(request, shared):
    return Recording(shared, f"csfpn_hrnet18_{request.param}")


@pytest.fixture(scope="module")
def network(recording, tmp_path_factory):
    return official_network(tmp_path_factory.mktemp("official"), recording)


@pytest.fixture(scope="module")
def runs(network, recording):
    """For each case the logits, and (first input, output) of all submodules by name."""
    return {case: run(network, recording, case) for case in CASES}


def test_checkpoint_is_the_preset_s_network(network):
    assert network.config == preset("csfp_official")


def kept_cells(recording, case, size, stride):
    """The cells of the clicks that send messages, alone: positive ones first, as they were recorded."""
    clicks = recording.clicks(case)
    clicks = clicks[:, clicks[0, :, 2].argsort(descending=True, stable=True)]
    cells = click_cells(clicks, *size, stride, drops_first_cell=True)
    index = cells.index[cells.valid][None]
    return ClickCells(index, torch.ones_like(index, dtype=torch.bool))


@pytest.mark.parametrize("case", CASES)
def test_logits(runs, recording, case):
    logits = runs[case][0][0, 0]
    assert logits.dtype == torch.float32
    close(logits, recording(case, "logits"), TOLERANCE)
    assert ((logits > 0).numpy() != (recording(case, "logits") > 0)).sum() <= 2


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("module", PROPAGATED)
def test_intermediate(runs, recording, case, module):
    name, channels, step = PROPAGATED[module]
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
@pytest.mark.parametrize("index", range(3))
def test_head_of_sgm(network, runs, recording, case, index):
    features, message = runs[case][1][f"sgm.heads.{index}"]
    head = (features + message)[0, ::90, ::4, ::4]
    close(head, recording(case, f"sgm_head{index}"), TOLERANCE)
    cells = kept_cells(recording, case, features.shape[-2:], 4)
    with torch.no_grad():
        weights = network.sgm.heads[index].weights(features, cells)
    close(weights[0].T[::37], recording(case, f"sgm_softmax{index}"), TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_softmax_of_hsgm(network, runs, recording, case):
    enlarged = runs[case][1]["hsgm.attention"][0]
    cells = kept_cells(recording, case, enlarged.shape[-2:], 2)
    with torch.no_grad():
        weights = network.hsgm.attention.weights(enlarged, cells)
    close(weights[0].T[::131], recording(case, "hsgm_softmax"), TOLERANCE)


def test_public_code_drops_the_click_on_the_first_cell(network, runs, recording):
    """Of case 2's seven clicks the one at (0, 0), which without the option would take part."""
    assert recording(2, "sgm_softmax0").shape[1] == recording(2, "hsgm_softmax").shape[1] == 6
    features = runs[2][1]["sgm"][0]
    every = click_cells(recording.clicks(2), *features.shape[-2:], 4)
    assert every.valid.sum() == 7
    with torch.no_grad():
        propagated = network.sgm(features, every)[0, ::45, ::2, ::2]
    expected = recording(2, "sgm_out")
    assert np.abs(propagated.numpy() - expected).max() > 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize("case", CASES)
def test_context_of_the_object(runs, recording, case):
    context = runs[case][1]["ocr.f_down.0"][0]
    close(context[0, :, 0, 0], recording(case, "ocr_context"), TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_auxiliary_logits(runs, recording, case):
    size = recording(case, "image").shape[:2]
    auxiliary = resize(runs[case][1]["ocr.aux_head"][1], size, align_corners=True)
    close(auxiliary[0, 0, ::4, ::4], recording(case, "logits_aux"), TOLERANCE)
