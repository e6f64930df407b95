"""Pixel Diffusion against a float64 NumPy reference and the public code's recorded tensors."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import reference_pixel_diffusion as reference
import torch
from golden import CASES, Recording

from clickmask_models.click_maps import ClickMapConfig
from clickmask_models.pixel_diffusion import (
    Affinity,
    DiffusionStage,
    PixelDiffusion,
    PixelDiffusionConfig,
    normalise,
)
from clickmask_models.presets import preset

PAPER = PixelDiffusionConfig()
OFFICIAL = preset("official").pixel_diffusion
CLICKS = [(12.0, 9.0, 1.0), (30.0, 20.0, 0.0), (3.0, 25.0, 1.0), (-1.0, -1.0, -1.0)]


@pytest.fixture(scope="module")
def recording(shared):
    return Recording(shared, "cdnet_res34")


@pytest.fixture(scope="module")
def scene():
    """(logits, image, clicks) of 40 x 48 with a flat area, as arrays; float32 values."""
    rng = np.random.default_rng(7)
    image = rng.integers(0, 256, (40, 48, 3)).astype(np.float32) / 255
    image[15:35, 20:44] = image[0, 0]
    logits = (3 * rng.standard_normal((40, 48))).astype(np.float32)
    return logits, image, np.array(CLICKS)


def run(config, logits, image, clicks):
    return PixelDiffusion(config)(*tensors(logits, image, clicks))[0, 0].numpy()


def tensors(logits, image, clicks):
    return (
        torch.from_numpy(logits)[None, None],
        torch.from_numpy(image).permute(2, 0, 1)[None],
        torch.tensor(np.asarray(clicks), dtype=torch.float32)[None],
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "tanh_twice"},
        {"affinity": "official", "eps": 1e-5},
        {"deviation": "biased_32"},
        {"cutoff": 0.25, "iterations": 3},
        {"amplitude": 10.0, "click_map": ClickMapConfig("disk", 5.0)},
        {"dilations": (1, 3)},
    ],
    ids=str,
)
def test_state_agrees_with_float64_reference(scene, options):
    config = dataclasses.replace(PAPER, output="state", **options)
    expected = reference.pixel_diffusion(*scene[:2], CLICKS, config)
    np.testing.assert_allclose(run(config, *scene), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("iterations", "name", "step"), [(5, "pdm5", 1), (10, "pdm10", 4)])
def test_official_result_is_the_recorded_one(recording, case, iterations, name, step):
    config = dataclasses.replace(OFFICIAL, iterations=iterations)
    logits = torch.from_numpy(recording(case, "logits"))[None, None]
    got = PixelDiffusion(config)(logits, recording.image(case), recording.clicks(case))[0, 0].numpy()
    # The recording itself differs from float64 by up to 5e-5 (values reach 12).
    np.testing.assert_allclose(got[::step, ::step], recording(case, name), atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_official_intermediates_are_the_recorded_ones(recording, case):
    network = PixelDiffusion(OFFICIAL)
    image = recording.image(case)
    confidence = normalise(torch.from_numpy(recording(case, "logits"))[None, None], "tanh_half")
    state = network.source(confidence, recording.clicks(case))
    weights, inverse = network.affinity(image)
    np.testing.assert_allclose(state[0, 0, ::4, ::4], recording(case, "pdm_y0"), atol=1e-5)
    for index, stage in enumerate(network.stages, start=1):
        state = stage(state, weights, inverse)
        if index in (1, 4):
            np.testing.assert_allclose(state[0, 0, ::8, ::8], recording(case, f"pdm_y{index}"), atol=1e-4)
    rows, columns = recording(case, "pdm_pixels").T
    softmax = (torch.cat(weights, dim=1) * inverse)[0].numpy()
    np.testing.assert_allclose(softmax[:, rows, columns].T, recording(case, "pdm_weights"), atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_reference_has_the_recorded_deviation_and_weights(recording, case):
    image = recording.image(case)[0].permute(1, 2, 0).numpy()
    rows, columns = recording(case, "pdm_pixels").T
    sigma = np.stack([reference.deviation(image[..., c].astype(float)) for c in range(3)])
    np.testing.assert_allclose(sigma[:, rows, columns].T, recording(case, "pdm_std"), atol=1e-6)
    weights = reference.weights(image)
    np.testing.assert_allclose(weights[:, rows, columns].T, recording(case, "pdm_weights"), atol=1e-5)


@pytest.mark.parametrize("config", [PAPER, OFFICIAL], ids=["paper", "official"])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_flat_image_gives_exactly_uniform_weights(config, value):
    weights, inverse = Affinity(config)(torch.full((1, 3, 20, 20), value))
    assert all(torch.equal(part, torch.ones_like(part)) for part in weights)
    assert torch.equal(inverse, torch.full_like(inverse, 1 / 32))


@pytest.mark.parametrize("config", [PAPER, OFFICIAL], ids=["paper", "official"])
def test_rounding_noise_of_a_resized_flat_area_stays_uniform(config):
    noise = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 3, 20, 20))).float()
    weights, inverse = Affinity(config)(0.3 + 6e-8 * noise)
    assert torch.allclose(torch.cat(weights, 1) * inverse, torch.tensor(1 / 32), rtol=0.05)


def test_eps_leaves_eight_bit_images_alone_in_the_official_form(scene):
    tiny = dataclasses.replace(OFFICIAL, eps=1e-8)
    np.testing.assert_array_equal(run(OFFICIAL, *scene), run(tiny, *scene))


def test_state_stays_within_its_documented_range(scene):
    for config in (PAPER, OFFICIAL):
        state = run(dataclasses.replace(config, output="state"), *scene)
        assert np.abs(state).max() <= 2 + config.amplitude


@pytest.mark.parametrize("norm", ["tanh_half", "tanh_twice"])
def test_logits_have_the_sign_of_the_state(scene, norm):
    state = run(dataclasses.replace(PAPER, norm=norm, output="state"), *scene)
    logits = run(dataclasses.replace(PAPER, norm=norm), *scene)
    np.testing.assert_array_equal(logits > 0, state > 0)
    np.testing.assert_array_equal(torch.from_numpy(logits).sigmoid() > 0.5, state > 0)
    assert np.abs(logits).max() <= 10.001


@pytest.mark.parametrize(("norm", "most"), [("tanh_half", 10.0), ("tanh_twice", 8.7)])
def test_logits_saturate_where_diffusion_and_network_are_certain(scene, norm, most):
    logits, image, _ = scene
    certain = np.full_like(logits, 50)
    for sign in (1, -1):
        got = run(dataclasses.replace(PAPER, norm=norm), sign * certain, image, [(20, 20, float(sign > 0))])
        np.testing.assert_allclose(got, sign * most, rtol=0.02)


@pytest.mark.parametrize("norm", ["tanh_half", "tanh_twice"])
@pytest.mark.parametrize("value", [-4.0, -0.3, 0.0, 2.5])
def test_agreeing_pixels_without_clicks_keep_their_logits(scene, norm, value):
    constant = np.full_like(scene[0], value)
    got = run(dataclasses.replace(PAPER, norm=norm), constant, scene[1], [(-1, -1, -1)])
    np.testing.assert_allclose(got, constant, rtol=2e-3, atol=1e-5)


def test_click_order_and_padding_do_not_matter(scene):
    logits, image, clicks = scene
    expected = run(PAPER, logits, image, clicks)
    np.testing.assert_array_equal(run(PAPER, logits, image, clicks[::-1].copy()), expected)
    np.testing.assert_array_equal(run(PAPER, logits, image, clicks[:3]), expected)


def test_batch_rows_are_independent(scene):
    one = tensors(*scene)
    other = (-one[0], one[1].flip(3), one[2].flip(1))
    both = PixelDiffusion(PAPER)(*(torch.cat(pair) for pair in zip(one, other, strict=True)))
    np.testing.assert_allclose(both[0], PixelDiffusion(PAPER)(*one)[0], atol=1e-6)
    np.testing.assert_allclose(both[1], PixelDiffusion(PAPER)(*other)[0], atol=1e-6)


def test_half_inputs_autocast_and_a_half_module_compute_in_float32(scene):
    logits, image, clicks = tensors(*scene)
    logits, image = logits.half(), image.half()
    expected = PixelDiffusion(PAPER)(logits.float(), image.float(), clicks)
    module = PixelDiffusion(PAPER).half()
    assert torch.equal(module(logits, image, clicks), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(PixelDiffusion(PAPER)(logits, image, clicks), expected)


def test_one_stage_module_for_each_iteration():
    network = PixelDiffusion(PAPER)
    assert len(network.stages) == 10
    assert all(isinstance(stage, DiffusionStage) and len(stage.neighbours) == 4 for stage in network.stages)
    assert not network.state_dict()


def test_configuration_survives_json():
    document = json.loads(json.dumps(dataclasses.asdict(OFFICIAL)))
    document["click_map"] = ClickMapConfig(**document["click_map"])
    assert PixelDiffusionConfig(**document) == OFFICIAL


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm", "tanh"),
        ("affinity", "x"),
        ("deviation", "n"),
        ("output", "mask"),
        ("iterations", 0),
        ("eps", 0.0),
        ("dilations", ()),
        ("dilations", (0, 1)),
    ],
)
def test_bad_option_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        PixelDiffusionConfig(**{name: value})
