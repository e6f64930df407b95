"""Reports for people: a few lines for the terminal, a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clickmask.evaluation.metrics import GOOD, THRESHOLDS
from clickmask.evaluation.report import Run

_SHOWN = (1, 3, 5, 10, 20, 50, 100)  # clicks
_MS = ("ms session", "ms loop")
_COLUMNS = (
    *(
        "data set",
        "method",
        "objects",
        "clicks",
        "NoC@80",
        "NoC@85",
        "NoC@90",
        "NoC@95",
        "NoF@90",
        "failures",
    ),
    *("mIoU@1", "mIoU@3", "mIoU@5", "mIoU@20", "F@5", "F@20", *_MS, "data sha256"),
)
_TIMES = (
    "The ms are those of a click: in the session alone (mean; median; mean until IoU 0.90) and of the",
    "protocol's whole loop.",
)


def table(run: Run) -> str:
    """A finished run as a few lines."""
    settings, figures = run["settings"], run["figures"]
    seconds = figures["seconds_per_click"]
    lines = [
        f"{settings['dataset']}: {figures['objects']} objects, at most {settings['clicks']} clicks each",
        f"  data    sha256 {settings['data_sha256'][:16]}, layout {settings['layout']}",
        f"  method  {settings['method']}" + _where(run),
    ]
    for limit, numbers in figures["limits"].items():
        rows = [f"@{t} {value:.2f}" for t, value in numbers["noc"].items()]
        lines.append(f"  {'NoC' + limit:<7} " + "  ".join(rows))
        rows = [f"@{t} {value} ({numbers['failures'][t]})" for t, value in numbers["nof"].items()]
        lines.append(f"  {'NoF' + limit:<7} " + "  ".join(rows))
    for label, curve in (("mIoU", figures["miou"]), ("F", figures["boundary_f"])):
        if curve:
            rows = [f"@{k} {curve[k - 1]:.3f}" for k in _SHOWN if k <= len(curve)]
            lines.append(f"  {label:<7} " + "  ".join(rows))
    lines.append(
        f"  SPC     {1000 * seconds['session_mean']:.1f} ms in session.click (median "
        f"{1000 * seconds['session_median']:.1f}), {1000 * seconds['protocol']:.1f} ms for the whole loop"
    )
    return "\n".join(lines)


def _where(run: Run) -> str:
    settings = run["settings"]
    text = f" on {settings['backend']} ({settings['device']})" if "backend" in settings else ""
    return text + (", several workers, so seconds are not those of one alone" if _shared(run) else "")


def _shared(run: Run) -> bool:
    """Whether its seconds were taken beside other workers."""
    return any(host["workers"] != 1 for host in run["hosts"])


def markdown(runs: Sequence[Run]) -> str:
    """The finished runs of one command, the bundle's first, as a Markdown page."""
    settings, timed = runs[0]["settings"], not all(map(_shared, runs))
    columns = [name for name in _COLUMNS if timed or name not in _MS]
    rows = [(run, limit) for run in runs for limit in run["figures"]["limits"]]
    where, checkpoint = f"{settings['backend']} ({settings['device']})", settings["checkpoint_sha256"][:16]
    lines = [
        f"# Accuracy of `{settings['method']}`",
        "",
        f"Robot annotator through the Session API, at most {settings['clicks']} clicks, on {where};",
        f"checkpoint sha256 `{checkpoint}`. Written by `clickmask evaluate --markdown`. NoF counts a",
        "success at exactly the last click as a failure, as the public code does; `failures` does not. F is",
        "the boundary's (docs/evaluation.md).",
        *(_TIMES if timed else ()),
        *_extras(runs),
        "",
        f"| {' | '.join(columns)} |",
        "|---|---" + "|--:" * (len(columns) - 3) + "|---|",
        *(f"| {' | '.join(_cells(*row, timed))} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _extras(runs: Sequence[Run]) -> list[str]:
    """What must be said of rows that are not the bundle as it is."""
    lines = []
    methods = {run["settings"]["method"]: run["settings"] for run in runs}
    own, *others = methods.values()
    if own.get("size") is None and any(other.get("size") for other in others):
        lines += [
            f"`{own['method']}` chooses its input size by the crop; `all at N` has one for every click, the",
            "nearest to the 400 of the public code of f-BRS and RITM, or to its 600 on DAVIS.",
        ]
    if sides := [f"`{name}` {s['long_side']} px" for name, s in methods.items() if "long_side" in s]:
        lines.append(f"Classical methods see the image reduced to a long side of: {', '.join(sides)}.")
    return lines


def _cells(run: Run, limit: str, timed: bool) -> list[str]:
    settings, figures = run["settings"], run["figures"]
    numbers: dict[str, Any] = figures["limits"][limit]
    thresholds = [f"{t:.2f}" for t in THRESHOLDS]
    noc = [f"{numbers['noc'][t]:.2f}" if t in numbers["noc"] else "" for t in thresholds]
    fails = [str(numbers[rule][f"{GOOD:.2f}"]) for rule in ("nof", "failures")]
    miou = [_at(figures["miou"], k) for k in (1, 3, 5, 20)]
    outline = [_at(figures["boundary_f"], k) for k in (5, 20)]
    name = [settings["dataset"], settings["method"], str(figures["objects"]), limit]
    ms = _milliseconds(run) if timed else []
    return [*name, *noc, *fails, *miou, *outline, *ms, f"`{settings['data_sha256'][:16]}`"]


def _milliseconds(run: Run) -> list[str]:
    """Of a click, in the session and of the loop; nothing where several workers shared the machine."""
    if _shared(run):
        return ["", ""]
    seconds = run["figures"]["seconds_per_click"]
    names = ("session_mean", "session_median", f"session_mean_until_{GOOD:.2f}")
    return ["; ".join(f"{1000 * seconds[name]:.1f}" for name in names), f"{1000 * seconds['protocol']:.1f}"]


def _at(curve: Sequence[float] | None, click: int) -> str:
    return f"{curve[click - 1]:.3f}" if curve and click <= len(curve) else ""
