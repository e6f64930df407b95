"""The profiler's statistics, and whether its comparison notices what got slower."""

from __future__ import annotations

import math
import os
import statistics

import numpy as np
import pytest
from slow_subject import measured, slow_subject

from clickmask_export.profiling import command
from clickmask_export.profiling.clicks import SAME, UNDO
from clickmask_export.profiling.compare import any_slower, compare
from clickmask_export.profiling.figures import ratio_of_medians, summary
from clickmask_export.profiling.gpu_memory import GpuMemory


def percentile_by_hand(times, share):
    """Linear between the ordered times: the definition, in plain Python."""
    ordered = sorted(times)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


@pytest.mark.parametrize("count", [1, 2, 7, 100, 101])
def test_percentiles_jitter_and_spread_are_what_their_definitions_say(count):
    times = np.random.default_rng(count).lognormal(size=count).tolist()
    figures = summary(times)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("max", 1.0), ("min", 0.0)):
        assert figures[name] == pytest.approx(percentile_by_hand(times, share))
        assert figures[name] == pytest.approx(np.percentile(times, 100 * share))
    middle = statistics.median(times)
    assert figures["mad"] == pytest.approx(statistics.median(abs(t - middle) for t in times))
    assert figures["jitter"] == pytest.approx(figures["p99"] / middle)
    assert figures["samples"] == pytest.approx(times, abs=1e-5)
    assert figures["count"] == count


def test_the_interval_of_a_ratio_holds_the_truth_and_excludes_what_is_not():
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(60):
        old, new = random.gamma(50, 1, 40), 1.5 * random.gamma(50, 1, 40)
        ratio = ratio_of_medians(new, old, paired=False)
        inside += ratio.low <= 1.5 <= ratio.high
        assert ratio.low <= ratio.value <= ratio.high
        assert ratio.low > 1.0
    assert inside >= 57


def test_pairs_cancel_what_slowed_both_down():
    """Load that comes and goes, far larger than the difference of 20 %."""
    random = np.random.default_rng(2)
    load = np.repeat([1.0, 4.0, 1.0, 9.0, 2.0], 8)
    old, new = load * random.normal(1, 0.01, 40), 1.2 * load * random.normal(1, 0.01, 40)
    apart, together = (ratio_of_medians(new, old, paired=paired) for paired in (False, True))
    assert together.high - together.low < apart.high - apart.low


def test_a_slower_backend_is_found_and_the_same_one_is_not():
    seconds = {"usual": 0.004, "same": 0.004, "slower": 0.12}  # far apart: other tests run beside this
    subjects = [slow_subject(name, encoder=0.004, decoder=spent) for name, spent in seconds.items()]
    usual, same, slower = measured(subjects, rounds=8)
    rows = compare(slower, usual, 2.0, interleaved=True)
    assert len(rows) >= 3
    assert {row.what for row in rows if row.slower} == {row.what for row in rows if UNDO not in row.what}
    assert any_slower(compare(slower, usual, 2.0, interleaved=False))
    assert not any_slower(compare(same, usual, 2.0, interleaved=True))
    assert not any_slower(compare(usual, slower, 2.0, interleaved=True))


def test_a_handful_of_times_proves_nothing():
    def report(ms, count):
        return {"name": "x", "clicks": {"64": {SAME: summary([ms] * count)}}}

    assert not any_slower(compare(report(9.0, 4), report(1.0, 4), 1.1, interleaved=True))
    assert any_slower(compare(report(9.0, 5), report(1.0, 5), 1.1, interleaved=True))


def test_what_only_one_of_both_has_is_not_compared():
    one = {"name": "x", "clicks": {"64": {SAME: summary([1.0] * 9)}}}
    other = {"name": "y", "clicks": {"96": {SAME: summary([1.0] * 9)}}}
    assert compare(one, other, 1.1, interleaved=True) == []


def pretend_nvidia_smi(monkeypatch, folder, script):
    """A tool of that name, which is found first."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_the_most_memory_that_a_graphics_card_had_in_use_is_told(monkeypatch, tmp_path, capsys):
    pytest.importorskip("skimage")
    looks = 'case "$*" in *memory.used*-lms*) printf "100\\n900\\n700\\n"; exec sleep 60;; esac'
    pretend_nvidia_smi(monkeypatch, tmp_path, looks)
    monkeypatch.setattr(command, "open_subject", lambda *_, **__: slow_subject())
    assert command.main(["none", "--quick", "--only", "clicks", "layers"]) == 0
    assert "graphics card: 800 MB more than before, at most" in capsys.readouterr().out


@pytest.mark.parametrize("script", [None, "echo No devices were found; exit 6"], ids=["no_tool", "no_card"])
def test_memory_is_unknown_where_there_is_no_graphics_card(monkeypatch, tmp_path, script):
    if script is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        pretend_nvidia_smi(monkeypatch, tmp_path, script)
    with GpuMemory() as memory:
        pass
    assert (memory.before, memory.most) == (None, None)
