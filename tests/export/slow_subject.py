"""A bundle whose graphs take a given time, to profile."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from clickmask.backends.fake import FakeBackend, fake_manifest
from clickmask.bundle import Bundle
from clickmask.clicks import Click
from clickmask_export.profiling.clicks import measure_clicks
from clickmask_export.profiling.subject import Subject, subject_of

CLICKS = (Click(40, 40), Click(48, 40), Click(20, 90, positive=False))
PHOTO = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
POLICY = {"kind": "fbrs", "start_click": 2}


class SlowBackend(FakeBackend):
    """A fake whose graphs take a given time, in seconds by name."""

    def __init__(self, manifest, **seconds):
        super().__init__(manifest)
        self.seconds = seconds

    def _run(self, graph, feeds):
        time.sleep(self.seconds.get(graph, 0.0))
        return super()._run(graph, feeds)


def slow_subject(name="slow", prefetch=False, encodes_once=True, crop=POLICY, diffusion=None, **seconds):
    manifest = fake_manifest(encodes_once=encodes_once, crop=crop, pixel_diffusion=diffusion)
    return subject_of(
        Bundle(Path("none"), manifest), SlowBackend(manifest, **seconds), name, prefetch=prefetch
    )


def measured(subjects: list[Subject], rounds: int) -> list[dict]:
    found = measure_clicks(subjects, PHOTO, CLICKS, rounds, sizes=[64])
    return [subject.facts() | {"clicks": clicks} for subject, clicks in zip(subjects, found, strict=True)]
