"""Reports for people: a few lines for the terminal, a page of Markdown."""

from __future__ import annotations

from typing import Any

_COLUMNS = (
    *("data set", "objects", "NoC@80", "NoC@85", "NoC@90", "NoF@90"),
    *("mIoU@1", "mIoU@3", "mIoU@5", "mIoU@20", "data sha256"),
)


def table(report: dict[str, Any]) -> str:
    """The report as a few lines for people."""
    noc, nof, miou = report["noc"], report["nof"], report["miou"]
    shown = [k for k in (1, 3, 5, 10, 20) if k <= len(miou)]
    seconds = report["seconds_per_click"]
    return "\n".join(
        [
            f"{report['dataset']}: {report['objects']} objects, at most {report['clicks']} clicks each",
            f"  data    sha256 {report['data_sha256'][:16]}",
            f"  bundle  {report['bundle']} on {report['backend']} ({report['device']})",
            "  NoC     " + "  ".join(f"@{t} {value:.2f}" for t, value in noc.items()),
            "  NoF     " + "  ".join(f"@{t} {value}" for t, value in nof.items()),
            "  mIoU    " + "  ".join(f"@{k} {miou[k - 1]:.3f}" for k in shown),
            f"  time    {1000 * seconds['median']:.1f} ms a click (median)",
        ]
    )


def markdown(reports: list[dict[str, Any]]) -> str:
    """The reports of one bundle as a Markdown page."""
    first = reports[0]
    lines = [
        f"# Accuracy of `{first['bundle']}`",
        "",
        f"Robot annotator through the Session API, at most {first['clicks']} clicks, on {first['backend']}",
        f"({first['device']}); checkpoint sha256 `{first['checkpoint_sha256'][:16]}`. Written by",
        "`clickmask evaluate --markdown`. NoF counts a success at exactly the last click as a failure, as",
        "the public code does.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" + "|--:" * (len(_COLUMNS) - 2) + "|---|",
    ]
    for report in reports:
        miou = report["miou"]
        cells = [report["dataset"], str(report["objects"])]
        cells += [f"{report['noc'][t]:.2f}" for t in ("0.80", "0.85", "0.90")]
        cells += [str(report["nof"]["0.90"])]
        cells += [f"{miou[k - 1]:.3f}" if k <= len(miou) else "" for k in (1, 3, 5, 20)]
        cells += [f"`{report['data_sha256'][:16]}`"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
