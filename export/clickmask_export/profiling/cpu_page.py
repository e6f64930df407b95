"""docs/benchmarks/cpu.md, from what ``export/benchmark_cpu.py`` measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clickmask_export.profiling.clicks import FIRST, KINDS, MOVED, SAME, TWICE, UNDO
from clickmask_export.profiling.diffusion_forms import CLICK, EAGER, GRAPH, WEIGH
from clickmask_export.profiling.paced import NEW, READY, SEEN
from clickmask_export.profiling.pages import cell, paragraph, table_head, written
from clickmask_export.profiling.recorder import STAGES

NATIVE, IN_GRAPH, IN_TORCH = "default", "Pixel Diffusion as a graph", "eager torch"

_Report = Mapping[str, Any]


def page(report: _Report) -> str:
    """The page, Markdown."""
    parts = (_head, _reach, _clicks, _stages, _diffusion, _paced, _start, _around)
    return "\n".join("\n".join(part(report)) + "\n" for part in parts)


def _head(report: _Report) -> Iterator[str]:
    yield "# The default bundle on a CPU"
    yield ""
    yield from paragraph(written(report["command"], report["threads"], report["machine"]))
    yield ""
    yield from paragraph(
        "What is compared was measured in turns, in one process. Milliseconds are medians, with the "
        "least in brackets, unless they say otherwise."
    )
    if report["quick"]:
        yield ""
        yield from paragraph("**A trial run with few repetitions: no figure here means anything.**")


def goals(report: _Report) -> list[tuple[str, str, str, bool]]:
    """What is to be reached: (what, goal, measured, whether it is)."""
    clicks = report["clicks"][NATIVE]
    near = "384" if "384" in clicks else next(iter(clicks))
    found: list[tuple[str, str, str, bool]] = []

    def most(what: str, value: float | None, limit: float, unit: str) -> None:
        if value is not None:
            found.append((what, f"<= {limit:g} {unit}".strip(), f"{value:.3g}", value <= limit))

    def least(what: str, value: float, limit: float, unit: str) -> None:
        found.append((what, f">= {limit:g} {unit}", f"{value:.3g}", value >= limit))

    most(f"click in the same crop, {near} px, p50", clicks[near][SAME]["p50"], 8, "ms")
    encoding = f"click that encodes its crop, nothing ahead, {near} px, p50"
    most(encoding, max(kind["p50"] for kind in _encoding(clicks[near])), 20, "ms")
    for run in report["paced"]:
        if run["pace_s"] == 1.0 and run["prefetch"] and not run["pointer"]:
            what = f"a person's clicks 1 s apart, {_input(run)}"
            if run["size"] is not None:
                most(f"{what}, p95", run["p95"], 10, "ms")
                most(f"{what}, p99 over p50", run["jitter"], 1.5, "")
            least(f"{what}, without a wait for the encoder", 100 * run["share_without_wait"], 95, "%")
    start = report["cold_start"]
    most("process start to first mask, p50", start["first_mask_ms"]["p50"] / 1e3, 1.0, "s")
    most("`import clickmask`, p50", start["import_ms"]["p50"] / 1e3, 0.15, "s")
    most("peak memory of a session", start["peak_mb"]["a session"], 300, "MB")
    most("`build_engine.py` for the default", report["build_s"], 90, "s")
    for row in report["diffusion"]:
        if row["size"] in (384, 512):
            what = f"Pixel Diffusion at {row['size']} px, graph over native"
            least(f"{what}, weights cached", row["cached"], 20, "x")
            least(f"{what}, without", row["uncached"], 12, "x")
        most(f"Pixel Diffusion at {row['size']} px, iterations over floor", row["over_floor"], 1.3, "x")
    around = report["around"]
    most("around the network, 12 megapixels, same crop, with polygons", _whole(around[SAME]), 2, "ms")
    most("the same of a click that encodes its crop", max(map(_whole, _encoding(around))), 2, "ms")
    if TWICE in around:
        most("the same of a click that is looked at closely", _whole(around[TWICE]), 2, "ms")
    return found


def _encoding(kinds: Mapping[str, Any]) -> list[Any]:
    """Of clicks whose crop was not encoded: the first, and one that moves it."""
    return [kinds[kind] for kind in (FIRST, MOVED) if kind in kinds]


def _whole(steps: Mapping[str, Any]) -> float:
    return steps["a click"]["p50"] + steps["polygons"]["p50"]


def _reach(report: _Report) -> Iterator[str]:
    yield "## Goals"
    yield ""
    yield from table_head(1, "", "goal", "measured", "")
    for what, goal, measured, reached in goals(report):
        yield f"| {what} | {goal} | {measured} | {'' if reached else '**missed**'} |"


def _clicks(report: _Report) -> Iterator[str]:
    yield "## Clicks"
    yield ""
    yield from paragraph(
        f"Sessions of {report['clicks_of_a_session']} clicks on a photograph of 512 x 512 pixels, at "
        "each input size, without encoding ahead: the network in ONNX Runtime with the fused Pixel "
        "Diffusion; the same with Pixel Diffusion's ten-stage graph; and the same network in eager "
        "torch."
    )
    yield ""
    yield from table_head(
        2,
        "size",
        "click",
        "default",
        "its p99",
        "ten-stage graph",
        "eager torch",
        "graph / default",
        "torch / default",
    )
    everything = report["clicks"]
    for size, kinds in everything[NATIVE].items():
        for kind in KINDS:
            if kind in kinds and all(kind in everything[who].get(size, {}) for who in everything):
                rows = [everything[who][size][kind] for who in (NATIVE, IN_GRAPH, IN_TORCH)]
                ratios = [row["p50"] / rows[0]["p50"] for row in rows[1:]]
                cells = [cell(rows[0]), f"{rows[0]['p99']:.1f}", *(cell(row) for row in rows[1:])]
                yield f"| {size} | {kind} | " + " | ".join([*cells, *(f"{r:.1f}" for r in ratios)]) + " |"


def _stages(report: _Report) -> Iterator[str]:
    clicks = report["clicks"][NATIVE]
    rows = [
        (size, kind, kinds[kind])
        for size, kinds in clicks.items()
        for kind in KINDS
        if kind in kinds and kind != UNDO
    ]
    used = [stage for stage in STAGES if any(stage in row["stages"] for _, _, row in rows)]
    yield from paragraph(
        "Where the default's time goes, ms: *prepare* is the crop, its resizing, the click rows, the "
        "previous mask, and before a close look momentum, *affinity* the weights of Pixel Diffusion, "
        "*checks* what the backend does between its runtimes, *paste* blending and the way from logits to "
        "the mask."
    )
    yield ""
    yield from table_head(2, "size", "click", *used)
    for size, kind, row in rows:
        cells = (f"{row['stages'].get(stage, 0):.2f}" for stage in used)
        yield f"| {size} | {kind} | " + " | ".join(cells) + " |"


def _diffusion(report: _Report) -> Iterator[str]:
    yield "## Pixel Diffusion"
    yield ""
    yield from paragraph(
        "Alone, on the same inputs. *Weights* depend on the crop only; a click in a crop already seen "
        "pays the *iterations*. The floor is the time to read all weights once per iteration at the "
        "bandwidth measured beside it; below 1.0 some of them were still in a cache. Ratios are of "
        "medians, that to the floor is of the least time."
    )
    yield ""
    names = ("torch eager", "ten-stage graph", "weights", "iterations", "graph / iterations")
    more = ("graph / (weights + iterations)", "floor, ms", "iterations / floor")
    yield from table_head(1, "size", *names, *more)
    for row in report["diffusion"]:
        cells = [cell(row["ms"][name]) for name in (EAGER, GRAPH, WEIGH, CLICK)]
        ratios = [f"{row['cached']:.1f}", f"{row['uncached']:.1f}"]
        floor = f"{row['floor_ms']['memory']:.2f}" if row["floor_ms"] else "not measured"
        over = f"{row['over_floor']:.2f}" if row["over_floor"] else "-"
        yield f"| {row['size']} | " + " | ".join([*cells, *ratios, floor, over]) + " |"
    worst = max(row["difference"] for row in report["diffusion"])
    yield ""
    yield from paragraph(
        f"Largest difference between graph and kernel, as confidences in [-1, 1]: {worst:.1e}."
    )


def _paced(report: _Report) -> Iterator[str]:
    yield "## At a person's pace"
    yield ""
    yield from paragraph(
        "A robot cuts objects out of photographs, at most ten clicks each, each click where the mask is "
        "most wrong against a coarse outline. A click comes that long after the mask before it, the first "
        "that long after the session began. The input size is fixed, or the one that the bundle chooses "
        "by the view. *No wait*: the click's crop had been encoded when it came. *New crop*: its session "
        "had not looked at it before. *Pointer*: an application that follows the pointer, as LiveSession "
        "does, showed a preview 50 to 150 ms before each click, up to 10 pixels away from it; those runs "
        "and the ones without take turns, object by object. The goals are for clicks without that."
    )
    yield ""
    heads = (
        "input",
        "apart",
        "ahead",
        "pointer",
        "objects",
        "clicks",
        "p50",
        "p95",
        "p99",
        "p99 / p50",
        "no wait",
    )
    kinds = ("seen crops, p50", "p95", "new crop", "p50", "p95")
    yield from table_head(4, *heads, *kinds)
    for run in report["paced"]:
        ahead, pointer = ("yes" if run[what] else "no" for what in ("prefetch", "pointer"))
        times = [f"{run[name]:.2f}" for name in ("p50", "p95", "p99", "jitter")]
        cells = [str(run["objects"]), str(run["count"]), *times, f"{run['share_without_wait']:.1%}"]
        cells += [*_middle(run, SEEN), f"{run['share_moved']:.1%}", *_middle(run, NEW)]
        yield f"| {_input(run)} | {run['pace_s']:g} s | {ahead} | {pointer} | " + " | ".join(cells) + " |"
    for run in report["paced"]:
        if run["control"] is not None and READY in run["kinds"]:
            yield ""
            yield from paragraph(_beside_control(run, report["threads"]))


def _input(run: Mapping[str, Any]) -> str:
    return "by view" if run["size"] is None else f"{run['size']} px"


def _middle(run: Mapping[str, Any], kind: str) -> list[str]:
    found = run["kinds"].get(kind)
    return ["-", "-"] if found is None else [f"{found['p50']:.2f}", f"{found['p95']:.2f}"]


def _beside_control(run: Mapping[str, Any], threads: int) -> str:
    """What of the spread is the machine's."""
    ready, control, again = run["kinds"][READY], run["control"], run["control_again"]
    where = f"{_input(run)}, {'with' if run['pointer'] else 'without'} the pointer"
    return (
        f"At {where}, the clicks that did not wait have a p50 of {ready['p50']:.2f} ms, a p99 of "
        f"{ready['p99']:.2f}, {ready['jitter']:.2f} times that. For comparison, arithmetic without memory "
        f"traffic on {threads} threads, the same each time, half-way between the clicks of that run: p50 "
        f"{control['p50']:.2f} ms, p99 {control['jitter']:.2f} times that; again at once {again['p50']:.2f} "
        f"ms, so that a pause makes it {control['p50'] / again['p50']:.2f} times as long. So much is the "
        "machine's."
    )


def _start(report: _Report) -> Iterator[str]:
    found = report["cold_start"]
    yield "## Cold start and memory"
    yield ""
    yield from paragraph("Fresh processes, files in the page cache, the application's defaults.")
    yield ""
    yield from table_head(1, "", "median", "least", "most")
    for name, label in (
        ("first_mask_ms", "process start to first mask"),
        ("import_ms", "import clickmask"),
        ("load_ms", "load the bundle"),
        ("click_ms", "session and first click"),
    ):
        cells = (f"{found[name][figure]:.0f} ms" for figure in ("p50", "min", "max"))
        yield f"| {label} | " + " | ".join(cells) + " |"
    peaks = [f"{step} {peak:.0f} MB" for step, peak in found["peak_mb"].items() if peak is not None]
    if peaks:
        yield ""
        yield from paragraph(f"Peak memory of the process, up to and with: {', '.join(peaks)}.")
    if report["build_s"] is not None:
        yield from paragraph(
            f"`build_engine.py` makes and verifies the default in {report['build_s']:.0f} s."
        )


def _around(report: _Report) -> Iterator[str]:
    around = report["around"]
    yield "## Around the network"
    yield ""
    yield from paragraph(
        "The host's own work on a photograph of 12 megapixels, in sessions with the bundle's own settings, "
        "whose clicks after the first are seen twice, and with the same but for close looks: beginning a "
        f"session takes {cell(around['once']['session begins'])} ms; of each click:"
    )
    yield ""
    steps = ("prepare", "checks", "paste", "a click", "polygons")
    yield from table_head(1, "click", *steps[:3], "together", "polygons of the mask")
    for kind in KINDS:
        if kind in around:
            yield f"| {kind} | " + " | ".join(cell(around[kind][step]) for step in steps) + " |"


def lines_of_goals(report: _Report) -> Sequence[str]:
    """The goals for a terminal."""
    return [
        f"{'ok    ' if reached else 'MISSED'}  {what}: {measured} (goal {goal})"
        for what, goal, measured, reached in goals(report)
    ]
