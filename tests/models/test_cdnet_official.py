"""The ``official`` preset computes what the public code's CDNet-ResNet-34 computed, tensor by tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import CASES, Recording, close, run
from public_files import official_network

from clickmask_models.click_maps import ClickMapConfig, click_maps
from clickmask_models.feature_diffusion import diffusion_weights
from clickmask_models.pixel_diffusion import PixelDiffusion
from clickmask_models.presets import preset

# Submodule whose output was recorded -> (name, channel step, row and column step).
RECORDED = {
    "fusion": ("maps_transform", 16, 4),
    "backbone.layer1": ("layer1", 16, 4),
    "backbone.layer2": ("layer2", 32, 4),
    "backbone.layer3": ("layer3", 64, 4),
    "backbone.layer4": ("layer4", 64, 2),
    "decoder.skip": ("skip_project", 8, 4),
    "aspp": ("aspp", 32, 1),
    "feature_diffusion": ("fdm_out", 32, 1),
    "feature_diffusion.project.0": ("fdm_bn_pos", 16, 2),
    "feature_diffusion.project.1": ("fdm_bn_neg", 16, 2),
    "decoder": ("decoder", 16, 4),
    "head": ("logits_s4", 1, 1),
}


@pytest.fixture(scope="module")
def recording(shared):
    return Recording(shared, "cdnet_res34")


@pytest.fixture(scope="module")
def network(recording, tmp_path_factory):
    return official_network(tmp_path_factory.mktemp("official"), recording)


@pytest.fixture(scope="module")
def runs(network, recording):
    """For each case the logits, and (first input, output) of all submodules by name."""
    return {case: run(network, recording, case) for case in CASES}


def test_checkpoint_is_the_preset_s_network(network):
    assert network.config == preset("official")


@pytest.mark.parametrize("case", CASES)
def test_click_maps(recording, case):
    height, width = recording(case, "image").shape[:2]
    clicks = recording.clicks(case)
    near = click_maps(clicks, height, width, ClickMapConfig("disk", 5.0))
    np.testing.assert_array_equal(near[0], recording(case, "click_map"))
    wide = click_maps(clicks, height, width, ClickMapConfig("disk", 24.0))
    bits = np.unpackbits(recording(case, "fdm_disk_full_bits"))[: wide.numel()]
    np.testing.assert_array_equal(wide.numpy().ravel(), bits)


@pytest.mark.parametrize("case", CASES)
def test_logits(runs, recording, case):
    logits = runs[case][0][0, 0]
    assert logits.dtype == torch.float32
    close(logits, recording(case, "logits"))
    assert ((logits > 0).numpy() != (recording(case, "logits") > 0)).sum() <= 2


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("module", RECORDED)
def test_intermediate(runs, recording, case, module):
    name, channels, step = RECORDED[module]
    output = runs[case][1][module][1][0]
    expected = recording(case, name)
    close(output[::channels, ::step, ::step].reshape(expected.shape), expected)


@pytest.mark.parametrize("case", CASES)
def test_clicks_are_added_after_the_stem(runs, recording, case):
    outputs = runs[case][1]
    stem = torch.relu(outputs["backbone.bn1"][1]) + outputs["fusion"][1]
    close(stem[0, ::16, ::4, ::4], recording(case, "stem_plus_clicks"))


@pytest.mark.parametrize("case", CASES)
def test_feature_diffusion_weights(network, runs, recording, case):
    outputs = runs[case][1]
    size = recording(case, "image").shape[:2]
    cells = recording(case, "fdm_D_pos").shape
    sources = network._sources(recording.clicks(case), network.config.feature_diffusion, size, cells)
    close(sources[0], recording(case, "fdm_S_clicks"))
    destination = torch.sigmoid(outputs["feature_diffusion.destination_head"][1])
    source_weights, row_weights = diffusion_weights("v3", sources, destination)
    for index, sign in enumerate(("pos", "neg")):
        close(row_weights[0, index], recording(case, f"fdm_D_{sign}"))
        close(source_weights[0, index], recording(case, f"fdm_S_{sign}"))


@pytest.mark.parametrize("case", CASES)
def test_raw_affinity_and_its_softmax(runs, recording, case):
    outputs = runs[case][1]
    theta = outputs["feature_diffusion.theta"][1][0].flatten(1).double()
    phi = outputs["feature_diffusion.phi"][1][0].flatten(1).double()
    affinity = theta.T[recording(case, "fdm_rows")] @ phi
    close(affinity, recording(case, "fdm_A_rows"))
    for sign in ("pos", "neg"):
        source = torch.from_numpy(recording(case, f"fdm_S_{sign}")).flatten().double()
        softmax = torch.softmax(affinity * source, dim=1)
        close(softmax, recording(case, f"fdm_softmax_{sign}_rows"), 1e-3)


@pytest.mark.parametrize("case", CASES)
def test_result_after_pixel_diffusion(network, runs, recording, case):
    diffusion = PixelDiffusion(network.config.pixel_diffusion)
    image, clicks = recording.image(case), recording.clicks(case)
    logits, expected = runs[case][0], recording(case, "pdm5")
    whole = np.abs(diffusion(logits, image, clicks)[0, 0].numpy() - expected)
    # The source is cut at |m| = 0.25. About 10 pixels an image are as near to it as rounding reaches; one
    # that is cut here and was kept there moves its surroundings, by at most a share of 0.25.
    assert np.quantile(whole, 0.99) < 1e-4
    assert whole.max() < 0.05
    # With those few pixels' logits taken from the recording, all the rest agrees.
    near = ((2 * torch.sigmoid(logits) - 1).abs() - 0.25).abs() < 1e-4
    assert near.sum() <= 20
    logits = torch.where(near, torch.from_numpy(recording(case, "logits")), logits)
    settled = np.abs(diffusion(logits, image, clicks)[0, 0].numpy() - expected)
    assert settled.max() < 1e-4
