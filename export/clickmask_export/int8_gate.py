"""Whether an INT8 form still cuts the masks of float32: judged on photographs that nothing was measured on.

Eight bits move every boundary a little, and masks that the click leaves open more than a little. So the mean
over the photographs is judged, and each alone only for being lost.

The same photographs choose how many convolutions stay float32 and give the figures of the manifest: no range
was measured on them, but where more than the first share was tried, the figures flatter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickmask.backends import Backend
from clickmask.backends.click_rows import by_label
from clickmask.encode import logit
from clickmask.errors import BackendError
from clickmask.manifest import InputSpec, Parity
from clickmask_export.bisect import mask_iou
from clickmask_export.calibration import Photo, held_cases
from clickmask_export.errors import VerificationError
from clickmask_export.onnx_runs import Feeds, run_session, session_of
from clickmask_export.parity_cases import Case

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """IoU of the masks with float32's, over photographs."""

    mean: float
    worst: float

    def reaches(self, least: Agreement) -> bool:
        """Whether both are as good."""
        return self.mean >= least.mean and self.worst >= least.worst

    def __str__(self) -> str:
        return f"mean {self.mean:.3f}, worst {self.worst:.3f}"


ARTEFACT = Agreement(0.95, 0.75)
"""What the built artefact must reach."""
CHOICE = Agreement(0.96, 0.85)
"""What a form must reach to be chosen: its artefact is judged anew, by torch and with Pixel Diffusion, and
the worst photograph was seen to lose 0.08 on the way."""


def compare_graphs(
    right: Mapping[str, bytes],
    ours: Mapping[str, bytes],
    photos: Sequence[Photo],
    spec: InputSpec,
    threshold: float,
) -> Agreement:
    """Runs two forms of a network's ONNX graphs, Pixel Diffusion aside, on photographs."""
    logits = []
    for models in (right, ours):
        sessions = {name: session_of(model) for name, model in models.items()}
        logits.append([_logits(sessions, case) for case in held_cases(tuple(photos), spec)])
    ious = [
        mask_iou(first[name], second[name], logit(threshold))
        for first, second in zip(*logits, strict=True)
        for name in first
    ]
    return Agreement(float(np.mean(ious)), min(ious))


def compare_int8(
    cases: Sequence[Case],
    references: Sequence[Array],
    backend: Backend,
    *,
    local: bool,
    threshold: float,
    step: Callable[[int], None],
) -> dict[str, Parity]:
    """Runs an INT8 artefact as an application does; as ``verify.compare``, judged by the mean.

    Returns:
        The worst of each measure under the cases' kind, and the means under that and ", mean".

    Raises:
        VerificationError: the masks differ too much.
    """
    rows: list[tuple[float, float, float]] = []
    for done, (case, right) in enumerate(zip(cases, references, strict=True), start=1):
        try:
            features = backend.encode(case.image, local=local)
            ours = backend.decode(features, case.clicks, case.previous_mask)
        except BackendError as exc:
            raise VerificationError(f"{backend.name} int8 fails on {case.label}: {exc}") from exc
        flips = np.not_equal(right > logit(threshold), ours > logit(threshold)).mean()
        rows.append(
            (mask_iou(right, ours, logit(threshold)), float(flips), float(np.abs(right - ours).max()))
        )
        step(done)
    ious, flips, errors = zip(*rows, strict=True)
    found = Agreement(float(np.mean(ious)), min(ious))
    # The mean says nothing of a single photograph.
    if found.worst < ARTEFACT.worst or (len(cases) > 1 and not found.reaches(ARTEFACT)):
        raise VerificationError(
            f"{backend.name} int8 differs from torch on the photographs held back: the masks' IoU is "
            f"{found}; needed: {ARTEFACT}"
        )
    kind = cases[0].kind
    return {
        kind: Parity(min(ious), max(flips), max(errors)),
        f"{kind}, mean": Parity(*(float(np.mean(values)) for values in (ious, flips, errors))),
    }


def _logits(sessions: Mapping[str, object], case: Case) -> Feeds:
    """Graph name to its logits."""
    given: Feeds = {"image": case.image, "clicks": case.clicks, "clicks_by_label": by_label(case.clicks)}
    if case.previous_mask is not None:
        given["previous_mask"] = case.previous_mask
    if "encoder" in sessions:
        given |= run_session(sessions["encoder"], given)
    return {name: run_session(s, given)["logits"] for name, s in sessions.items() if name != "encoder"}
