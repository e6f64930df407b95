"""The native library against the float64 NumPy reference and against the torch form that graphs hold."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import reference_pixel_diffusion as reference
import torch
from scenes import FLIPS, KINDS, TOLERANCE, assert_same_state, make_scene

from clickmask.errors import BackendUnavailableError, InvalidInputError
from clickmask.native_diffusion import Affinity, DiffusionOptions
from clickmask_export.recipes import describe_diffusion
from clickmask_models.click_maps import ClickMapConfig
from clickmask_models.pixel_diffusion import PixelDiffusion, PixelDiffusionConfig
from clickmask_models.presets import preset

PAPER = PixelDiffusionConfig()
OFFICIAL = preset("official").pixel_diffusion
DEFAULT = preset("encode_once_mobilenet_v2").pixel_diffusion

pytestmark = pytest.mark.usefixtures("native")


def options_of(config):
    return DiffusionOptions.from_spec(describe_diffusion(config))


def run(config, scene, **arguments):
    logits, image, clicks = scene
    affinity = Affinity(np.ascontiguousarray(image.transpose(2, 0, 1)), options_of(config), **arguments)
    return affinity.diffuse(logits, clicks)


def run_torch(config, scene):
    logits, image, clicks = (torch.from_numpy(array) for array in scene)
    with torch.no_grad():
        return PixelDiffusion(config)(logits[None, None], image.permute(2, 0, 1)[None], clicks[None])[
            0, 0
        ].numpy()


def state(config):
    return dataclasses.replace(config, output="state")


@pytest.mark.parametrize("config", [PAPER, OFFICIAL, DEFAULT], ids=["paper", "official", "default"])
@pytest.mark.parametrize("kind", KINDS)
def test_state_is_the_float64_reference(config, kind):
    scene = make_scene(96, 120, kind)
    assert_same_state(run(state(config), scene), reference.pixel_diffusion(*scene, state(config)))


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "tanh_twice"},
        {"deviation": "biased_32"},
        {"affinity": "official", "eps": 1e-5},
        {"affinity": "official", "deviation": "biased_32", "eps": 1e-5},
        {"cutoff": 0.25},
        {"amplitude": 0.0},
        {"iterations": 1},
        {"dilations": (1, 3)},
        {"dilations": (2,)},
        {"dilations": (1, 2, 4, 8, 16, 31, 50, 128)},
        {"click_map": ClickMapConfig("disk", 3.5)},
        {"click_map": ClickMapConfig("gaussian", 300.0)},
        {"click_map": ClickMapConfig("gaussian", 0.5)},
    ],
    ids=str,
)
def test_every_option(options):
    config = dataclasses.replace(state(PAPER), **options)
    scene = make_scene(61, 77)
    assert_same_state(run(config, scene), reference.pixel_diffusion(*scene, config))


@pytest.mark.parametrize(
    "place", [(7.6, 0.8), (1.6, 10.2), (7.6, 12.8), (1.6, -4.8), (15.8, 20.6), (7.6, 20.8)], ids=str
)
def test_a_pixel_on_the_rim_of_a_disk_is_on_the_side_that_the_graph_has_it(place):
    """Five pixels from the click but for rounding: any other rounding draws another disk."""
    image = np.random.default_rng(0).random((40, 40, 3), np.float32)
    scene = np.full((40, 40), -2, np.float32), image, np.array([[*place, 1]], np.float32)
    np.testing.assert_allclose(run(OFFICIAL, scene), run_torch(OFFICIAL, scene), atol=2e-3)


@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (1, 300), (300, 1), (2, 3), (7, 33), (31, 64), (65, 17), (40, 32), (8, 257)],
)
@pytest.mark.parametrize("config", [PAPER, OFFICIAL], ids=["paper", "official"])
def test_any_size(height, width, config):
    scene = make_scene(height, width)
    assert_same_state(run(state(config), scene), reference.pixel_diffusion(*scene, state(config)))


@pytest.mark.parametrize(
    ("size", "kind"), [(256, "textured"), (384, "letterboxed"), (512, "smooth"), (608, "noise")]
)
def test_network_sizes_against_the_reference(size, kind):
    scene = make_scene(size, size, kind)
    assert_same_state(run(state(DEFAULT), scene), reference.pixel_diffusion(*scene, state(DEFAULT)))


@pytest.mark.parametrize("config", [PAPER, OFFICIAL, DEFAULT], ids=["paper", "official", "default"])
@pytest.mark.parametrize("kind", KINDS)
def test_state_is_the_graph_form_s(config, kind):
    scene = make_scene(160, 128, kind)
    assert_same_state(run(state(config), scene), run_torch(state(config), scene))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", ["tanh_half", "tanh_twice"])
def test_logits_are_the_graph_form_s(kind, norm):
    config = dataclasses.replace(DEFAULT, norm=norm, output="logits")
    scene = make_scene(160, 128, kind)
    got, expected = run(config, scene), run_torch(config, scene)
    # Compared as confidences (Eq. 6): near saturation a logit magnifies a state's rounding a thousandfold.
    gain = 2 if norm == "tanh_half" else 1
    np.testing.assert_allclose(np.tanh(got / gain), np.tanh(expected / gain), atol=TOLERANCE)
    inside = np.abs(expected) < 3
    np.testing.assert_allclose(got[inside], expected[inside], atol=20 * TOLERANCE)
    assert ((got > 0) != (expected > 0)).mean() <= FLIPS
    assert np.array_equal(got > 0, run(state(config), scene) > 0)


def test_disks_have_the_graph_form_s_borders_wherever_the_click_is():
    logits, image, _ = make_scene(50, 60)
    rng = np.random.default_rng(2)
    for _ in range(20):
        spots = rng.uniform(-6, 66, (4, 2)).round(1)  # tenths: many distances are 5 but for rounding
        clicks = np.column_stack([spots, [1, 0, 1, 0]]).astype(np.float32)
        scene = (logits, image, clicks)
        assert_same_state(run(state(OFFICIAL), scene), run_torch(state(OFFICIAL), scene))


@pytest.mark.parametrize(("norm", "low", "high"), [("tanh_half", 9.99, 10.01), ("tanh_twice", 7.5, 8.67)])
def test_logits_saturate(norm, low, high):
    logits, image, clicks = make_scene(64, 64)  # the float below 1 is tanh(8.66)
    for sign in (1, -1):
        extreme = np.full_like(logits, 40.0 * sign)
        got = run(dataclasses.replace(DEFAULT, norm=norm), (extreme, image, clicks[:0]))
        assert low <= (sign * got).min() <= (sign * got).max() <= high


@pytest.mark.parametrize("value", [-4.0, -0.3, 0.0, 2.5])
@pytest.mark.parametrize("norm", ["tanh_half", "tanh_twice"])
def test_agreeing_pixels_without_clicks_keep_their_logits(value, norm):
    logits, image, clicks = make_scene(40, 50)
    got = run(dataclasses.replace(PAPER, norm=norm), (np.full_like(logits, value), image, clicks[:0]))
    np.testing.assert_allclose(got, np.full_like(logits, value), rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["avx512", "avx2", "neon"])
def test_instruction_sets_agree_with_the_portable_one(native, name):
    if name not in native.instruction_sets():
        pytest.skip(f"this machine runs {', '.join(native.instruction_sets())}")
    for config in (PAPER, OFFICIAL, dataclasses.replace(DEFAULT, norm="tanh_twice", deviation="biased_32")):
        for kind in KINDS:
            scene = make_scene(75, 93, kind)
            plain = run(state(config), scene, instruction_set="portable")
            assert_same_state(run(state(config), scene, instruction_set=name), plain)


def test_threads_do_not_change_a_bit():
    scene = make_scene(300, 200)
    expected = run(DEFAULT, scene, threads=1)
    for threads in (2, 3, 7):
        assert np.array_equal(run(DEFAULT, scene, threads=threads), expected)


def test_one_affinity_serves_concurrent_calls():
    logits, image, clicks = make_scene(200, 220)
    affinity = Affinity(np.ascontiguousarray(image.transpose(2, 0, 1)), options_of(DEFAULT))
    inputs = [np.roll(logits, shift, axis=1) for shift in range(4)]
    expected = [affinity.diffuse(each, clicks) for each in inputs]
    results = {}

    def work(index):
        results[index] = [affinity.diffuse(inputs[index], clicks, threads=2) for _ in range(20)]

    workers = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for index, each in enumerate(expected):
        assert all(np.array_equal(got, each) for got in results[index])


def test_weights_in_memory_of_earlier_ones_are_their_own():
    """What is left of a crop of that size shows nowhere, and weights that live at once are apart."""
    run(DEFAULT, make_scene(80, 100, "saturated"))
    scenes = [make_scene(80, 100, kind) for kind in ("textured", "noise")]
    weights = [
        Affinity(np.ascontiguousarray(image.transpose(2, 0, 1)), options_of(state(DEFAULT)))
        for _, image, _ in scenes
    ]
    for each, (logits, image, clicks) in zip(weights, scenes, strict=True):
        expected = reference.pixel_diffusion(logits, image, clicks, state(DEFAULT))
        assert_same_state(each.diffuse(logits, clicks), expected)


def test_arrays_of_any_layout_are_read_right():
    logits, image, clicks = make_scene(50, 60)
    expected = run(DEFAULT, (logits, image, clicks))
    affinity = Affinity(image.transpose(2, 0, 1), options_of(DEFAULT))  # not contiguous
    wide = np.repeat(clicks, 2, axis=0)[::2]
    assert np.array_equal(affinity.diffuse(np.asfortranarray(logits), wide), expected)
    assert affinity.bytes >= 64 * 50 * 60


def test_wrong_arrays_are_named():
    logits, image, clicks = make_scene(20, 30)
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    affinity = Affinity(planes, options_of(DEFAULT))
    for wrong in (image, planes.astype(np.float64), planes[0], planes[:, :0]):
        with pytest.raises(InvalidInputError, match=r"image: expected \(3, H, W\) float32"):
            Affinity(wrong, options_of(DEFAULT))
    for wrong in (logits.T, logits.astype(np.float64), logits[None]):
        with pytest.raises(InvalidInputError, match=r"logits: expected \(20, 30\) float32"):
            affinity.diffuse(wrong, clicks)
    for wrong in (clicks[0], clicks[:, :2], clicks.astype(np.float64)):
        with pytest.raises(InvalidInputError, match=r"clicks: expected \(M, 3\) float32"):
            affinity.diffuse(logits, wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dilations", ()),
        ("dilations", (0,)),
        ("dilations", (129,)),
        ("dilations", (1,) * 9),
        ("norm", "tanh"),
    ],
)
def test_what_it_cannot_do_falls_to_the_graph_form(name, value):
    options = dataclasses.replace(options_of(DEFAULT), **{name: value})
    with pytest.raises(BackendUnavailableError, match=f"{name}: expected .* use the graph form"):
        Affinity(np.zeros((3, 4, 4), np.float32), options)


def test_an_instruction_set_that_is_not_there():
    with pytest.raises(BackendUnavailableError, match="instruction set"):
        Affinity(np.zeros((3, 4, 4), np.float32), options_of(DEFAULT), instruction_set="mmx")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_go_on():
    script = """
import os, numpy as np
from clickmask.native_diffusion import Affinity, DiffusionOptions
options = DiffusionOptions(5, (1, 2), 1.0, 1e-4, "tanh_half", "disk", 5.0, "paper", "unbiased_36", "state")
affinity = Affinity(np.random.default_rng(0).random((3, 90, 80), np.float32), options, threads=3)
logits, clicks = np.ones((90, 80), np.float32), np.zeros((0, 3), np.float32)
expected = affinity.diffuse(logits, clicks, threads=3)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(affinity.diffuse(logits, clicks, threads=3), expected) else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "0", done.stderr


def test_a_process_may_end_while_a_thread_is_in_a_call():
    script = """
import threading, time, numpy as np
from clickmask.native_diffusion import Affinity, DiffusionOptions
options = DiffusionOptions(200, (1, 2), 1.0, 1e-4, "tanh_half", "disk", 5.0, "paper", "unbiased_36", "state")
affinity = Affinity(np.random.default_rng(0).random((3, 512, 512), np.float32), options, threads=1)
logits, clicks = np.ones((512, 512), np.float32), np.zeros((0, 3), np.float32)
def work():
    while True:
        affinity.diffuse(logits, clicks, threads=1)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
