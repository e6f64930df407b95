"""``profile_latency.py`` and ``benchmark_cpu.py`` as they are typed, on the default bundle, with few runs."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import cv2
import pytest

from clickmask.bundle import default_bundle_path, load_bundle
from clickmask.errors import BackendError
from clickmask.segmenter import Segmenter
from clickmask_export.profiling.clicks import FIRST, MOVED, UNDO
from clickmask_export.profiling.command import SLOWER, main
from clickmask_export.profiling.layers import RUNTIME

pytest.importorskip("skimage")
pytest.importorskip("onnxruntime")
QUICK = ["--quick", "--threads", "1", "--sizes", "384"]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """(exit status, JSON, folder) of a run with everything."""
    folder = tmp_path_factory.mktemp("profile")
    output = ["--json", str(folder / "a.json"), "--plot", str(folder / "a.png")]
    status = main(["default", *QUICK, *output])
    return status, json.loads((folder / "a.json").read_text()), folder


def test_it_measures_everything_of_the_default_bundle(report):
    status, document, folder = report
    assert status == 0
    assert document["schema"] == 1
    assert {"cpu", "cores", "platform", "versions", "load_average", "date"} <= set(document["machine"])
    (bundle,) = document["bundles"]
    assert (bundle["backend"], bundle["device"], bundle["threads"]) == ("onnxruntime", "cpu", 1)
    assert len(bundle["manifest_sha256"]) == 64
    assert list(bundle["clicks"]) == ["384"]
    assert {FIRST, MOVED, UNDO} <= set(bundle["clicks"]["384"])
    stages = bundle["clicks"]["384"][MOVED]["stages"]
    assert {"prepare", "encoder", "decoder", "paste"} <= set(stages)
    assert stages["encoder"] > stages["copy in"]
    assert [row["sessions"] for row in bundle["sessions"]] == [1, 2]
    assert bundle["paced"][0]["count"] == 3
    assert cv2.imread(str(folder / "a.png")) is not None


def test_a_fresh_process_takes_its_time_step_by_step(report):
    cold = report[1]["bundles"][0]["cold_start"]
    parts = sum(cold[name]["p50"] for name in ("import_ms", "load_ms", "click_ms"))
    assert 0 < parts < cold["first_mask_ms"]["p50"]
    peaks = [peak for peak in cold["peak_mb"].values() if peak is not None]
    assert peaks == sorted(peaks)
    assert all(20 < peak < 2000 for peak in peaks)


def test_layers_carry_the_names_of_the_networks_modules(report):
    layers = report[1]["bundles"][0]["layers"]["384"]
    assert {"encoder", "decoder"} <= set(layers)
    for graph, rows in layers.items():
        assert sum(row["share"] for row in rows) == pytest.approx(1.0)
        # Of the nodes, not of the time, which a busy machine may spend anywhere.
        named = sum(row["nodes"] for row in rows if row["module"] != RUNTIME)
        assert named > 0.9 * sum(row["nodes"] for row in rows), graph
    assert any(row["module"].startswith("network.backbone/features.") for row in layers["encoder"])
    assert any("feature_diffusion" in row["module"] for row in layers["decoder"])


def test_every_module_named_is_one_of_the_network(report):
    torch = pytest.importorskip("torch")
    from clickmask_export.networks import open_networks
    from clickmask_export.progress import Progress

    assert torch is not None
    checkpoint = default_bundle_path().parent / load_bundle(default_bundle_path()).manifest.source.checkpoint
    if not checkpoint.is_file():
        pytest.skip("needs the default's checkpoint, which only a clone has")
    (network,) = open_networks(checkpoint, None, None, Progress(io.StringIO())).values()
    known = {name for name, _ in network.named_modules()}
    for row in report[1]["bundles"][0]["layers"]["384"]["encoder"]:
        parts = row["module"].split("/")
        if parts[0].startswith("network."):
            assert ".".join([parts[0].removeprefix("network."), *parts[1:]]) in known


def test_an_earlier_report_is_a_baseline(report, tmp_path, capsys):
    _, document, _ = report
    clicks = document["bundles"][0]["clicks"]["384"][UNDO]
    then = clicks | {"samples": [1e-6 * time for time in clicks["samples"]], "p50": 1e-6}
    bundle = document["bundles"][0] | {"clicks": {"384": {UNDO: then}}}
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(document | {"bundles": [bundle]}))
    assert main(["default", *QUICK, "--only", "clicks", "--baseline", str(path)]) == SLOWER
    assert "against the baseline" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/no/such/bundle"], "/no/such/bundle"),
        (["default", "--baseline", "/no/such.json"], "/no/such.json"),
        (["default", "--photo", "/no/such.png", *QUICK, "--only", "clicks"], "/no/such.png"),
        (["default", "--backend", "abacus"], "abacus"),
        (["default", "--only", "layers", "--plot", "x.png"], "--plot draws the part 'clicks'"),
        (["default", "--only", "sessions", "--baseline", "default"], "--baseline compares clicks"),
        (["default", "--quick", "--sizes", "7"], "--sizes: expected some of"),
        (["default", "--quick", "--sizes", "384", "7"], "got [7] too"),
        (["default", "--json", "same.png", "--plot", "same.png"], "expected another file than --json"),
        (["default", "--json", str(default_bundle_path() / "manifest.json")], "another file than the input"),
        (["default", "--json", "."], "expected a file in an existing folder"),
        (["default", *QUICK, "--only", "clicks", "--json", "/dev/null/x.json"], "/dev/null"),
    ],
)
def test_what_a_user_can_put_right_is_one_line(words, said, capsys):
    assert main(words) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("profile_latency.py: error: ")
    assert said in error


@pytest.mark.parametrize("text", ["-1", "0", "nan", "soon"])
def test_seconds_are_a_time(text, capsys):
    with pytest.raises(SystemExit):
        main(["default", "--seconds", text])
    assert "expected seconds above 0" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--starts", "0"], ["--rounds", "-1"], ["--sessions", "2", "0"]])
def test_nothing_cannot_be_measured(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["default", *words])
    assert caught.value.code == 2
    assert "a number from 1 on" in capsys.readouterr().err


@pytest.mark.slow
def test_the_benchmark_of_the_cpu_writes_its_page(root, tmp_path):
    from clickmask.native_library import unavailable_because

    if reason := unavailable_because():
        pytest.skip(reason)
    command = [sys.executable, str(root / "export/benchmark_cpu.py"), "--quick", "--threads", "1"]
    output = ["--json", str(tmp_path / "cpu.json"), "--output", str(tmp_path / "cpu.md")]
    done = subprocess.run([*command, *output], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "cpu.json").read_text())
    assert document["diffusion"][0]["difference"] < 2e-4
    text = (tmp_path / "cpu.md").read_text()
    for heading in ("Goals", "Clicks", "Pixel Diffusion", "At a person's pace", "Cold start", "Around"):
        assert f"## {heading}" in text
    assert "trial run" in text
    rows = [line for line in text.splitlines() if line.startswith(("| 384 px |", "| by view |"))]
    ways = [row.split(" | ")[1:4] for row in rows]  # apart, encoded ahead, after a preview
    yes, no = ["0.1 s", "yes", "no"], ["0.1 s", "no", "no"]
    assert ways == [yes, ["0.1 s", "yes", "yes"], yes, yes, no]


@pytest.mark.parametrize("given", [(), ("--trust-host-code",)])
def test_bundles_are_opened_as_asked(monkeypatch, capsys, given):
    seen = []

    def load(_, **options):
        seen.append(options)
        raise BackendError("no further")

    monkeypatch.setattr(Segmenter, "load", load)
    assert main(["default", "--device", "cuda", "--threads", "2", *given]) == 1
    assert "no further" in capsys.readouterr().err
    (options,) = seen
    assert options == {
        "backend": "auto",
        "device": "cuda",
        "threads": 2,
        "pixel_diffusion": "auto",
        "trust_host_code": bool(given),
    }
