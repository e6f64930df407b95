"""A report as text for a terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clickmask_export.profiling.recorder import STAGES

_TOP = 8  # modules of a graph
_DEPTH = 2  # of their names


def render(report: Mapping[str, Any]) -> str:
    """The whole report; milliseconds unless it says otherwise."""
    lines = list(_machine(report["machine"]))
    for bundle in report["bundles"]:
        lines += ["", *_bundle(bundle)]
    if "comparison" in report:
        lines += ["", *_comparison(report["comparison"])]
    return "\n".join(lines)


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns, the first on the left, the others on the right."""
    table = [header, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def _machine(machine: Mapping[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    yield f"{machine['cpu']}, {machine['cores']} cores; {', '.join(machine['gpus']) or 'no GPU'}"
    yield f"{versions}; load {machine['load_average']} before, {machine['load_average_after']} after"
    memory = machine["gpu_mb"]
    if memory["before"] is not None:
        used = memory["most"] - memory["before"]
        yield f"memory of the first graphics card: {used:.0f} MB more than before, at most"


def _bundle(bundle: Mapping[str, Any]) -> Iterator[str]:
    yield f"{bundle['name']}: {bundle['backend']} on {bundle['device']}, Pixel Diffusion: " + str(
        bundle["pixel_diffusion"]
    )
    for part, show in (
        ("clicks", _clicks),
        ("cold_start", _cold_start),
        ("layers", _layers),
        ("paced", _paced),
        ("sessions", _sessions),
    ):
        if part in bundle:
            yield ""
            yield from show(bundle[part])


def _clicks(clicks: Mapping[str, Any]) -> Iterator[str]:
    kinds = [(size, kind, row) for size, found in clicks.items() for kind, row in found.items()]
    yield from columns(
        ["a click, ms", "n", "min", "p50", "p90", "p99", "max", "p99/p50", "MAD"],
        [
            [
                f"{size} px, {kind}",
                str(row["count"]),
                *(f"{row[name]:.2f}" for name in ("min", "p50", "p90", "p99", "max")),
                *(f"{row['jitter']:.2f}", f"{row['mad']:.2f}"),
            ]
            for size, kind, row in kinds
        ],
    )
    yield ""
    used = [stage for stage in STAGES if any(stage in row["stages"] for _, _, row in kinds)]
    yield from columns(
        ["its stages, median ms", *used],
        [
            [f"{size} px, {kind}", *(f"{row['stages'].get(stage, 0):.2f}" for stage in used)]
            for size, kind, row in kinds
            if row["stages"]
        ],
    )


def _cold_start(found: Mapping[str, Any]) -> Iterator[str]:
    names = {
        "first_mask_ms": "process start to first mask",
        "import_ms": "import clickmask",
        "load_ms": "load the bundle",
        "click_ms": "session and first click",
    }
    yield from columns(
        ["cold start, ms", "n", "min", "p50", "max"],
        [
            [
                label,
                str(found[name]["count"]),
                *(f"{found[name][figure]:.0f}" for figure in ("min", "p50", "max")),
            ]
            for name, label in names.items()
        ],
    )
    peaks = {step: peak for step, peak in found["peak_mb"].items() if peak is not None}
    if peaks:
        yield "peak memory, MB: " + ", ".join(f"{step} {peak:.0f}" for step, peak in peaks.items())


def _layers(found: Mapping[str, Any]) -> Iterator[str]:
    for size, graphs in found.items():
        if "unavailable" in graphs:
            yield f"layers: {graphs['unavailable']}"
            return
        for graph, rows in graphs.items():
            merged: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
            for row in rows:
                name = "/".join(row["module"].split("/")[:_DEPTH])
                merged[name][0] += row["ms"]
                merged[name][1] += row["share"]
            top = sorted(merged.items(), key=lambda item: -item[1][0])[:_TOP]
            yield from columns(
                [f"{graph} at {size} px, by module", "ms", "share"],
                [[name, f"{ms:.2f}", f"{share:.0%}"] for name, (ms, share) in top],
            )
            yield ""


def _paced(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from columns(
        ["a person's clicks, ms", "n", "p50", "p95", "p99", "max", "no wait for the encoder", "moved crops"],
        [
            [
                f"{run['pace_s']:g} s apart",
                str(run["count"]),
                *(f"{run[name]:.2f}" for name in ("p50", "p95", "p99", "max")),
                *(f"{run['share_without_wait']:.1%}", f"{run['share_moved']:.1%}"),
            ]
            for run in runs
        ],
    )


def _sessions(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from columns(
        ["sessions at once", "sessions/s", "clicks/s", "p50", "p99"],
        [
            [
                str(row["sessions"]),
                f"{row['sessions_per_second']:.2f}",
                f"{row['clicks_per_second']:.1f}",
                *(f"{row[name]:.1f}" for name in ("p50", "p99")),
            ]
            for row in rows
        ],
    )


def _comparison(comparison: Mapping[str, Any]) -> Iterator[str]:
    yield from columns(
        [f"against the baseline, limit {comparison['limit']:g}", "ms", "baseline", "ratio", "99 %", ""],
        [
            [
                f"{row['bundle']}: {row['what']}",
                f"{row['ms']:.2f}",
                f"{row['baseline_ms']:.2f}",
                f"{row['ratio']['value']:.3f}",
                f"{row['ratio']['low']:.3f} to {row['ratio']['high']:.3f}",
                "SLOWER" if row["slower"] else "",
            ]
            for row in comparison["rows"]
        ],
    )
