"""Everything that is measured of some bundles, as one document that is JSON as it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clickmask_export.profiling.clicks import measure_clicks
from clickmask_export.profiling.cold_start import measure_cold_start
from clickmask_export.profiling.compare import Comparison
from clickmask_export.profiling.crowd import measure_crowd
from clickmask_export.profiling.layers import measure_layers
from clickmask_export.profiling.machine import load, machine_facts
from clickmask_export.profiling.paced import measure_paced
from clickmask_export.profiling.scenes import photograph, scenes, script
from clickmask_export.profiling.subject import Subject

SCHEMA = 1
PARTS = ("clicks", "cold_start", "layers", "paced", "sessions")


@dataclass(frozen=True)
class Settings:
    """What to measure, and how often.

    Attributes:
        parts: of ``PARTS``.
        rounds: of clicks.
        sizes: input sizes; none for all.
        photo: what is clicked on; None for scikit-image's astronaut.
        starts: fresh processes.
        paces: seconds between a person's clicks.
        paced_objects: how many objects that person cuts out, of those there are.
        paced_clicks: most clicks for each.
        sessions: how many at once.
        seconds: for each number of sessions.
        layer_runs: of each graph.
    """

    parts: tuple[str, ...] = PARTS
    rounds: int = 20
    sizes: tuple[int, ...] = ()
    photo: Path | None = None
    starts: int = 5
    paces: tuple[float, ...] = (1.0, 0.3)
    paced_objects: int = 8
    paced_clicks: int = 10
    sessions: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    seconds: float = 3.0
    layer_runs: int = 10


def measure(
    subjects: Sequence[Subject], settings: Settings, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure, with the subjects taking turns wherever the runs are short.

    Returns:
        ``schema``, ``machine``, ``settings`` and ``bundles``: for each subject its facts and a key for each
        part, as the functions of the parts return them. docs/profiling.md describes it.

    Raises:
        BuildError: there is no photograph, or a fresh process fails.
        ClickmaskError: a runtime fails.
    """
    photo = photograph(settings.photo)
    clicks = script(photo)
    machine = machine_facts()
    bundles: list[dict[str, Any]] = [subject.facts() for subject in subjects]

    def part(name: str, results: Callable[[], Sequence[Any]]) -> None:
        if name in settings.parts:
            tell(name.replace("_", " "))
            for bundle, result in zip(bundles, results(), strict=True):
                bundle[name] = result

    part("clicks", lambda: measure_clicks(subjects, photo, clicks, settings.rounds, settings.sizes))
    part("cold_start", lambda: measure_cold_start(subjects, photo, clicks, settings.starts))
    part("layers", lambda: [_layers(subject, settings) for subject in subjects])
    part("paced", lambda: [_paced(subject, settings) for subject in subjects])
    part(
        "sessions",
        lambda: [
            [measure_crowd(subject, photo, clicks, count, settings.seconds) for count in settings.sessions]
            for subject in subjects
        ],
    )
    machine["load_average_after"] = load()
    plain = asdict(settings) | {"photo": None if settings.photo is None else str(settings.photo)}
    return {"schema": SCHEMA, "machine": machine, "settings": plain, "bundles": bundles}


def add_comparison(report: dict[str, Any], rows: Sequence[Comparison], limit: float) -> None:
    """Put what was compared into a report."""
    report["comparison"] = {"limit": limit, "rows": [asdict(row) for row in rows]}


def _layers(subject: Subject, settings: Settings) -> dict[str, Any]:
    sizes = [size for size in subject.sizes if not settings.sizes or size in settings.sizes]
    return {str(size): measure_layers(subject, size, settings.layer_runs) for size in sizes}


def _paced(subject: Subject, settings: Settings) -> list[dict[str, Any]]:
    objects = scenes()[: settings.paced_objects]
    return [measure_paced(subject, objects, pace, settings.paced_clicks)[0] for pace in settings.paces]
