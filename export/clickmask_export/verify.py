"""Parity: whether an artefact, in the backend that will run it, cuts the same masks as the checkpoint.

The reference is the float32 network in eager torch, flips and Pixel Diffusion called one by one: nothing of
the export wrappers. Errors are judged as masks and probabilities, and as logits where those do not saturate:
beyond +-6 (probability 0.9975) the inverse tanh that ends Pixel Diffusion turns rounding into whole logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clickmask.backends import Backend
from clickmask.encode import logit, sigmoid
from clickmask.errors import BackendError
from clickmask.manifest import Parity
from clickmask_export.errors import VerificationError
from clickmask_export.parity_cases import Case

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Tolerance:
    """What an artefact may differ by, on each single image.

    Attributes:
        iou: least intersection over union of the masks, unless ``slack`` explains it.
        slack: pixels on the other side of the threshold that say nothing: of a mask of a few pixels one
            already moves the IoU. An object that vanishes is larger.
        flips: largest share of pixels on the other side of the threshold.
        typical: largest 99th percentile of the difference in probability.
        largest: largest difference in probability of any pixel.
        error: largest difference in logits between -6 and 6, but for the share ``flips`` of those pixels.
    """

    iou: float
    slack: int
    flips: float
    typical: float
    largest: float
    error: float


_SATURATED = 6.0
# Summation order alone: 1e-5 in logits. What lets single pixels through are steps in the networks themselves:
# FDM v3's D > 0.8 and PDM's |m| <= 0.25 decide differently for values at the step, and an untrained network
# puts whole areas at the threshold. A step has no bound in logits, hence the share of pixels let through;
# without one, Pixel Diffusion's worst is 5e-2 near +-10, and at +-6 a fiftieth of it.
FP32 = Tolerance(iou=0.995, slack=4, flips=1e-3, typical=1e-3, largest=0.25, error=0.05)
# Half has 11 bits: 5e-4 relative for each layer, some 1e-2 in logits after fifty; the steps as above, hit
# more often.
FP16 = Tolerance(iou=0.97, slack=32, flips=1e-2, typical=3e-2, largest=0.5, error=1.0)
TOLERANCES: Mapping[str, Tolerance] = {"fp32": FP32, "fp16": FP16}


@dataclass(frozen=True)
class Difference:
    """How far an artefact is from the reference; of several images, the worst of each.

    ``max_error`` is that of all logits, which the manifest records; ``error`` the one that is judged.
    """

    iou: float = 1.0
    flips: float = 0.0
    max_error: float = 0.0
    typical: float = 0.0
    largest: float = 0.0
    error: float = 0.0

    def worst(self, other: Difference) -> Difference:
        return Difference(
            min(self.iou, other.iou),
            max(self.flips, other.flips),
            max(self.max_error, other.max_error),
            max(self.typical, other.typical),
            max(self.largest, other.largest),
            max(self.error, other.error),
        )


class Reference:
    """The checkpoint's network as torch runs it."""

    def __init__(self, network: nn.Module, pixel_diffusion: nn.Module | None, flip: bool) -> None:
        self._network, self._pixel_diffusion, self._flip = network, pixel_diffusion, flip

    def __call__(self, case: Case) -> Array:
        """Logits (B, 1, S, S).

        Raises:
            VerificationError: they are not finite.
        """
        image, clicks = torch.from_numpy(case.image), torch.from_numpy(case.clicks)
        mask = None if case.previous_mask is None else torch.from_numpy(case.previous_mask)
        with torch.no_grad():
            logits = self._network(image, clicks, mask)
            if self._flip:
                mirrored = clicks.clone()
                mirrored[..., 0] = image.shape[-1] - 1 - clicks[..., 0]
                again = self._network(image.flip(-1), mirrored, None if mask is None else mask.flip(-1))
                logits = (logits + again.flip(-1)) / 2
            if self._pixel_diffusion is not None:
                logits = self._pixel_diffusion(logits, image, clicks)
        return _finite(logits.numpy(), case)


def compare(
    cases: Sequence[Case],
    references: Sequence[Array],
    backend: Backend,
    *,
    local: bool = False,
    precision: str,
    threshold: float,
    step: Callable[[int], None] | None = None,
) -> dict[str, Parity]:
    """Runs every case through a backend.

    Args:
        cases: what to compare on.
        references: the logits that are right, for each case.
        backend: the artefact, opened as an application opens it.
        local: whether the references are those of the bundle's second network.
        precision: "fp32" or "fp16": which tolerance to ask for.
        threshold: of the mask, a probability.
        step: told how many cases are done.

    Returns:
        Kind of image to the worst difference seen.

    Raises:
        VerificationError: a difference out of tolerance, or logits that are not finite; names the case.
    """
    tolerance, found = TOLERANCES[precision], dict[str, Difference]()
    for done, (case, right) in enumerate(zip(cases, references, strict=True), start=1):
        difference = measure(right, _run(backend, case, local), threshold, tolerance)
        found[case.kind] = found.get(case.kind, Difference()).worst(difference)
        if problem := _problem(difference, tolerance):
            advice = "; --precision fp32 keeps it exact" if precision == "fp16" else ""
            where = f"the local network, {case.label}" if local else case.label
            raise VerificationError(
                f"{backend.name} {precision} differs from torch on {where}: {problem}{advice}"
            )
        if step is not None:
            step(done)
    return {kind: Parity(d.iou, d.flips, d.max_error) for kind, d in found.items()}


def measure(reference: Array, got: Array, threshold: float, tolerance: Tolerance = FP32) -> Difference:
    """The worst of each measure over the images of a batch, (B, 1, S, S) logits each."""
    difference = Difference()
    for right, ours in zip(reference, got, strict=True):
        masks = right > logit(threshold), ours > logit(threshold)
        differing = np.not_equal(*masks)
        explained = differing.sum() <= tolerance.slack
        error, gap = np.abs(right - ours), np.abs(sigmoid(right) - sigmoid(ours))
        judged = error[np.abs(right) < _SATURATED]
        one = Difference(
            iou=1.0 if explained else float(np.logical_and(*masks).sum() / np.logical_or(*masks).sum()),
            flips=float(differing.mean()),
            max_error=float(error.max()),
            typical=float(np.quantile(gap, 0.99)),
            largest=float(gap.max()),
            error=float(np.quantile(judged, 1 - tolerance.flips)) if judged.size else 0.0,
        )
        difference = difference.worst(one)
    return difference


def cuts_something(references: Sequence[Array], threshold: float) -> bool:
    """Whether any mask covers between 2 % and 98 % of its image; else equal masks prove little.

    A network that was never trained may well not, and is still to be built, so that this is no failure.
    """
    shares = [(image > logit(threshold)).mean() for logits in references for image in logits]
    return any(0.02 < share < 0.98 for share in shares)


def worst(first: Parity, second: Parity) -> Parity:
    """The worse of each measure."""
    return Parity(
        min(first.iou, second.iou),
        max(first.sign_flips, second.sign_flips),
        max(first.max_error, second.max_error),
    )


def table(parities: Mapping[str, Mapping[str, Parity]]) -> str:
    """Parity of every artefact for a reader: one row for each kind of image, worst over all its cases."""
    lines = []
    for artefact, parity in parities.items():
        lines.append(f"{artefact:<24}{'IoU >=':>10}{'flips <=':>12}{'max |dlogit|':>14}")
        lines += [
            f"  {kind:<22}{row.iou:>10.5f}{row.sign_flips:>12.2e}{row.max_error:>14.2e}"
            for kind, row in parity.items()
        ]
    return "\n".join(lines)


def _run(backend: Backend, case: Case, local: bool) -> Array:
    try:
        return backend.decode(backend.encode(case.image, local=local), case.clicks, case.previous_mask)
    except BackendError as exc:  # of logits with NaN as well
        raise VerificationError(f"{backend.name} fails on {case.label}: {exc}") from exc


def _finite(logits: Array, case: Case) -> Array:
    wrong = int(np.count_nonzero(~np.isfinite(logits)))
    if wrong:
        raise VerificationError(
            f"the checkpoint's own network gives {wrong} NaN or infinite logits in torch on {case.label}: "
            "its weights are damaged or its training diverged"
        )
    return logits


def _problem(difference: Difference, tolerance: Tolerance) -> str | None:
    if difference.flips > tolerance.flips:
        return f"{difference.flips:.2%} of the pixels change side, at most {tolerance.flips:.2%} may"
    if difference.iou < tolerance.iou:
        return f"the masks' IoU is {difference.iou:.4f}, at least {tolerance.iou} is needed"
    if difference.typical > tolerance.typical:
        return (
            f"probabilities differ by {difference.typical:.2e} at the 99th percentile, at most "
            f"{tolerance.typical:.0e} may"
        )
    if difference.largest > tolerance.largest:
        return f"a probability differs by {difference.largest:.2f}, at most {tolerance.largest} may"
    if difference.error > tolerance.error:
        return f"unsaturated logits differ by {difference.error:.2g}, at most {tolerance.error} may"
    return None
