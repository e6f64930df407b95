"""Does a bundle run on this machine, and if not, which command fixes it?"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .backends import Backend, host, open_artefact
from .backends.host_facts import host_facts
from .bundle import Artefact, Bundle, load_bundle
from .errors import BackendUnavailableError, BundleError, ClickmaskError
from .plan_fit import verdict

Status = Literal["ok", "note", "problem"]

_SHADOW = (
    "onnxruntime and onnxruntime-gpu are both installed and share one folder, so that CUDA may be lost; run: "
    'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "clickmask[gpu]" (or "clickmask[cpu]")'
)
_OPENCV = (
    "{} are installed together and overwrite each other's files; run: "
    "pip uninstall -y {} && pip install opencv-python-headless"
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at; the text of a problem ends with what to do."""

    subject: str
    status: Status
    text: str


@dataclass(frozen=True)
class Report:
    """All findings, in order, and the verdict: does the bundle run here?"""

    findings: tuple[Finding, ...]
    usable: bool


def examine(path: str | os.PathLike[str], trust_host_code: bool = False) -> Report:
    """Check a bundle's files, open each of its artefacts on each of its devices and make one click there.

    Args:
        path: The bundle's folder.
        trust_host_code: Open TensorRT plans that carry code, too, which runs it.

    Returns:
        What was found. A runtime or device that this machine lacks is a note while another serves, else a
        problem; an artefact that fails is always one.
    """
    findings = [Finding("host", "ok", host.summary()), *_installation()]
    try:
        bundle = load_bundle(path)
    except BundleError as exc:
        return Report((*findings, Finding("bundle", "problem", str(exc))), usable=False)
    manifest = bundle.manifest
    findings.append(
        Finding("bundle", "ok", f"{manifest.name!r}, {len(manifest.artefacts)} artefact(s) unaltered")
    )
    trials = [
        _trial(bundle, artefact, device, trust_host_code)
        for artefact in manifest.artefacts
        for device in (("cpu", "cuda") if artefact.device == "any" else (artefact.device,))
    ]
    usable = any(trial.status == "ok" for trial in trials)
    if not usable:
        trials = [Finding(trial.subject, "problem", trial.text) for trial in trials]
    return Report((*findings, *trials), usable)


def _installation() -> list[Finding]:
    found = []
    if host.installed("onnxruntime") and host.installed("onnxruntime-gpu"):
        found.append(Finding("onnxruntime", "note", _SHADOW))
    wheels = [name for name in ("opencv-python", "opencv-python-headless") if host.installed(name)]
    if len(wheels) > 1:
        found.append(Finding("opencv", "note", _OPENCV.format(" and ".join(wheels), " ".join(wheels))))
    return found


def _trial(bundle: Bundle, artefact: Artefact, device: str, trust_host_code: bool) -> Finding:
    subject = f"{artefact.backend} {artefact.precision} on {device}"
    if artefact.engine is not None:
        # Of several GPUs' plans one fits: which one is the news, and the others are notes.
        answer = verdict(artefact.engine, host_facts(), trust_host_code=trust_host_code)
        subject += f" ({artefact.engine.gpu_name})"
        if not answer.loads:
            return Finding(subject, "note", answer.text)
    if device == "cuda" and artefact.backend != "tensorrt" and host.cuda_devices() == 0:
        return Finding(subject, "note", "no CUDA device found; check that nvidia-smi lists one")
    try:
        backend = open_artefact(bundle, artefact, device, trust_host_code=trust_host_code)
        try:
            seconds = _click(backend)
        finally:
            backend.close()
    except BackendUnavailableError as exc:
        return Finding(subject, "note", str(exc))
    except ClickmaskError as exc:
        return Finding(
            subject, "problem", f"{str(exc).rstrip('.')}; if it fails everywhere, rebuild the bundle"
        )
    size = bundle.manifest.input.sizes[0]
    text = f"a click at {size} x {size} takes {1000 * seconds:.1f} ms"
    if backend.pixel_diffusion != "none":
        text += f", Pixel Diffusion: {backend.pixel_diffusion} ({backend.pixel_diffusion_reason})"
    return Finding(subject, "ok", text)


def _click(backend: Backend) -> float:
    """Seconds of a click in the middle of a grey image, by every network; the first one is left out."""
    size = backend.manifest.input.sizes[0]
    clicks = np.full((1, 1, 3), [size / 2, size / 2, 1], np.float32)
    image = np.full((1, 3, size, size), 0.5, np.float32)
    networks = (False, True) if backend.manifest.has_local_network else (False,)
    passes = [backend.encode(image, local) for local in networks]
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        for features in passes:
            backend.decode(features, clicks)
        seconds = time.perf_counter() - start
    return seconds
