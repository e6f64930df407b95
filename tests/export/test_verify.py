"""Parity: what is measured, what is refused, and that a reference owes nothing to the wrappers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from export_stand_ins import EarlyFusion, flipped_average

from clickmask.errors import BackendError
from clickmask.manifest import Parity
from clickmask_export.errors import VerificationError
from clickmask_export.parity_cases import Case
from clickmask_export.verify import FP16, FP32, Reference, compare, cuts_something, measure, table, worst
from clickmask_models.pixel_diffusion import PixelDiffusion, PixelDiffusionConfig

SIZE = 40


def logits(*regions, base=-5.0):
    """(1, 1, SIZE, SIZE): ``base``, and 5 in the given (rows, columns) slices."""
    out = np.full((1, 1, SIZE, SIZE), base, np.float32)
    for rows, columns in regions:
        out[0, 0, rows, columns] = 5
    return out


class Backend:
    """Answers with given logits."""

    name = "made-up"

    def __init__(self, answer):
        self.answer = answer

    def encode(self, image, local=False):
        self.local = local
        return image

    def decode(self, *_):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def case(kind="flat"):
    image = np.zeros((1, 3, SIZE, SIZE), np.float32)
    return Case(kind, f"{kind}, label", image, np.zeros((1, 4, 3), np.float32), None)


def parity(answer, reference, precision="fp32"):
    return compare([case()], [reference], Backend(answer), precision=precision, threshold=0.5)["flat"]


def test_equal_logits_have_no_difference():
    mask = logits((slice(0, 20), slice(0, 20)))
    assert parity(mask, mask) == Parity(1.0, 0.0, 0.0)


def test_iou_and_flips_are_counted_in_mask_space():
    right = logits((slice(0, 20), slice(0, 20)))
    ours = logits((slice(0, 20), slice(0, 16)))
    difference = measure(right, ours, 0.5)
    assert difference.iou == pytest.approx(320 / 400)
    assert difference.flips == pytest.approx(80 / SIZE**2)
    assert difference.max_error == 10


def test_masks_are_cut_at_the_threshold_of_the_bundle():
    right, ours = logits(), logits()
    right[..., 0, 0], ours[..., 0, 0] = 1.0, 1.2  # between probability 0.73 and 0.77
    assert measure(right, ours, 0.5).flips == 0
    assert measure(right, ours, 0.75).flips == pytest.approx(1 / SIZE**2)


def test_the_worst_image_of_a_batch_counts():
    right = np.concatenate([logits(), logits((slice(0, 20), slice(0, 20)))])
    ours = np.concatenate([logits(), logits((slice(0, 20), slice(0, 10)))])
    assert measure(right, ours, 0.5).iou == pytest.approx(0.5)


def test_one_pixel_of_a_tiny_mask_does_not_decide():
    right, ours = logits((slice(0, 1), slice(0, 2))), logits((slice(0, 1), slice(0, 1)))
    assert measure(right, ours, 0.5).iou == 1
    assert measure(right, ours, 0.5).flips > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_small_object_that_vanishes_is_seen(precision):
    """300 pixels of 608 x 608 are too few for any share of the image."""
    right = np.full((1, 1, 608, 608), -5, np.float32)
    ours = right.copy()
    right[..., 100:115, 100:120] = 0.3
    with pytest.raises(VerificationError, match=r"IoU is 0\.0000"):
        parity(np.where(right > 0, -0.3, ours).astype(np.float32), right, precision)


@pytest.mark.parametrize(("precision", "shift"), [("fp32", 0.06), ("fp16", 1.5)])
def test_logits_count_where_probabilities_hardly_move(precision, shift):
    with pytest.raises(VerificationError, match=rf"unsaturated logits differ by {shift}"):
        parity(logits() - shift, logits(), precision)
    beyond = logits(base=-7.0)
    parity(beyond - shift, beyond, precision)


def test_single_pixels_at_a_step_are_let_through():
    """FDM v3 and the public code's Pixel Diffusion decide at a threshold."""
    right, ours = logits(base=-2.0), logits(base=-2.0)
    ours[0, 0, 20, 20] = -1.5  # one of 1600 pixels is less than 1e-3
    parity(ours, right)
    ours[0, 0, 20:24, 20] = -1.5
    with pytest.raises(VerificationError, match="unsaturated logits"):
        parity(ours, right)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(0, False), (1, True), (39, True), (40, False)],
    ids=["none", "some", "most", "all"],
)
def test_masks_that_are_empty_or_full_prove_little(rows, expected):
    cut = logits((slice(0, rows), slice(0, SIZE)))
    assert cuts_something([logits(), cut], 0.5) == expected


def test_a_saturated_difference_is_small_in_probability():
    right = logits(base=-20.0)
    assert measure(right, right * 2, 0.5).typical < 1e-6
    assert measure(right, right * 2, 0.5).max_error == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: -x, "change side"),
        (lambda x: x + 0.1, "99th percentile"),
        (lambda x: _with_spike(x), "a probability differs"),
    ],
)
def test_what_is_out_of_tolerance_names_the_case(change, message):
    right = logits((slice(0, 20), slice(0, 20)), base=-2.0)
    with pytest.raises(
        VerificationError, match=rf"made-up fp32 differs from torch on flat, label: .*{message}"
    ):
        parity(change(right), right)


def _with_spike(values):
    values = values.copy()
    values[0, 0, 30, 30] = -0.01  # same side, far off
    return values


def test_half_precision_may_differ_more_and_says_what_to_do():
    right = logits((slice(0, 20), slice(0, 20)), base=-2.0)
    parity(right + 0.05, right, "fp16")
    with pytest.raises(VerificationError, match=r"--precision fp32"):
        parity(right + 1.5, right, "fp16")
    assert FP16.iou < FP32.iou


def test_logits_that_are_not_finite_fail_through_the_backend():
    with pytest.raises(VerificationError, match=r"fails on flat, label: .*finite"):
        parity(BackendError("expected finite logits"), logits())


def test_parity_is_the_worst_of_each_kind():
    right = logits((slice(0, 20), slice(0, 20)))
    kinds = ["flat", "noise", "flat"]
    answers = iter([right + 1e-4, right, right])

    class Changing(Backend):
        def decode(self, *_):
            return next(answers)

    found = compare(
        [case(kind) for kind in kinds], [right] * 3, Changing(None), precision="fp32", threshold=0.5
    )
    assert found["noise"].max_error == 0
    assert found["flat"].max_error == pytest.approx(1e-4, rel=0.01)


def test_the_local_network_is_the_one_that_runs_and_is_named():
    backend = Backend(-logits((slice(0, 20), slice(0, 20))))
    with pytest.raises(VerificationError, match="on the local network, flat, label: "):
        compare([case()], [-backend.answer], backend, local=True, precision="fp32", threshold=0.5)
    assert backend.local


def test_of_two_parities_the_worse_of_each_measure_counts():
    assert worst(Parity(0.99, 0.0, 0.3), Parity(1.0, 0.01, 0.2)) == Parity(0.99, 0.01, 0.3)


def test_steps_are_reported():
    done = []
    compare(
        [case()] * 3, [logits()] * 3, Backend(logits()), precision="fp32", threshold=0.5, step=done.append
    )
    assert done == [1, 2, 3]


@pytest.mark.parametrize("flip", [True, False])
def test_the_reference_is_the_network_and_pixel_diffusion_one_by_one(flip):
    network, diffusion = EarlyFusion(), PixelDiffusion(PixelDiffusionConfig(iterations=2))
    generator = np.random.default_rng(0)
    image = generator.random((2, 3, 64, 64), np.float32)
    clicks = np.float32([[[20, 30, 1]], [[40, 10, 0]]])
    mask = generator.random((2, 1, 64, 64), np.float32)
    tensors = [torch.from_numpy(array) for array in (image, clicks, mask)]
    with torch.no_grad():
        raw = flipped_average(network, *tensors) if flip else network(*tensors)
        expected = diffusion(raw, *tensors[:2])
    got = Reference(network, diffusion, flip)(Case("noise", "", image, clicks, mask))
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)


def test_a_checkpoint_that_gives_nan_in_torch_is_named():
    network = EarlyFusion()
    torch.nn.init.constant_(network.head.bias, float("nan"))
    image = np.zeros((1, 3, 64, 64), np.float32)
    made = Case("flat", "flat, label", image, np.zeros((1, 1, 3), np.float32), image[:, :1])
    with pytest.raises(VerificationError, match="the checkpoint's own network gives 4096 NaN"):
        Reference(network, None, flip=False)(made)


def test_the_table_lists_every_kind_of_every_artefact():
    text = table({"onnxruntime": {"flat": Parity(0.9, 0.01, 0.5), "noise": Parity(1.0, 0.0, 0.0)}})
    lines = text.splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["flat", "0.90000", "1.00e-02", "5.00e-01"]
