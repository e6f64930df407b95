"""The command at the end of its output: a reader who leaves, a disk that is full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

INFO = f"{sys.executable} -m clickmask info default"


def run(line: str, unbuffered: bool) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1" if unbuffered else ""}
    words = ["bash", "-o", "pipefail", "-c", line]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize("unbuffered", [True, False], ids=["unbuffered", "buffered"])
class TestOutput:
    def test_a_reader_who_has_read_enough_hears_nothing_more(self, unbuffered: bool) -> None:
        # the pipe is closed before the command writes: it starts when its reader has gone
        done = run(f"(sleep 0.3; {INFO}) | true", unbuffered)
        assert (done.returncode, done.stderr) == (1, "")

    def test_a_full_disk_is_told_in_a_line(self, unbuffered: bool) -> None:
        done = run(f"{INFO} > /dev/full", unbuffered)
        assert done.returncode == 1
        assert done.stderr == "clickmask: error: standard output: No space left on device\n"
