"""The project's commands as a user types them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2

ROOT = Path(__file__).parents[2]
BUILD, PROFILE, BATCHING = (
    f"export/{name}.py" for name in ("build_engine", "profile_latency", "benchmark_batching")
)
_HALF_AN_HOUR = 1800


def arguments(*words: str | Path) -> list[str]:
    """``clickmask`` or a script of the repository, with this Python."""
    first, *rest = map(str, words)
    program = ["-m", first] if first == "clickmask" else [str(ROOT / first)]
    return [sys.executable, *program, *rest]


def run(*words: str | Path, status: int = 0, folder: Path = ROOT) -> str:
    """Run a command, which must end with a status.

    Returns:
        What it printed, errors behind.
    """
    done = subprocess.run(
        arguments(*words), cwd=folder, capture_output=True, text=True, timeout=_HALF_AN_HOUR, check=False
    )
    assert done.returncode == status, f"{' '.join(map(str, words))}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def interrupted(after: str, number: signal.Signals, *words: str | Path) -> tuple[int, str]:
    """Start a command, and send it a signal once it says something, and is a few seconds into it.

    Returns:
        Its exit status, and what it printed from then on.
    """
    begun = subprocess.Popen(
        arguments(*words),
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs are started deaf to Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        said = []
        for line in begun.stderr:
            said.append(line)
            if after in line:
                break
        assert after in "".join(said[-1:]), "".join(said)
        time.sleep(3)
        begun.send_signal(number)
        return begun.wait(120), begun.stderr.read()
    finally:
        begun.kill()
        begun.stderr.close()


def calibration_photos(folder: Path) -> Path:
    """A folder of 20 photographs, parts of four, or that of CLICKMASK_GPU_CALIBRATION."""
    if given := os.environ.get("CLICKMASK_GPU_CALIBRATION"):
        return Path(given)
    from skimage import data

    folder.mkdir(parents=True)
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        photo = getattr(data, name)()[..., ::-1]
        height, width = photo.shape[:2]
        for number, (down, right) in enumerate(((0, 0), (0, 0.3), (0.3, 0), (0.3, 0.3), (0.15, 0.15))):
            top, left = int(down * height), int(right * width)
            part = photo[top : top + int(0.7 * height), left : left + int(0.7 * width)]
            assert cv2.imwrite(str(folder / f"{number}-{name}.png"), part)
    return folder


def rates(printed: str) -> dict[tuple[int, str], float]:
    """Clicks per second by number of sessions and way, of what ``benchmark_batching.py`` prints."""
    lines = re.findall(r"^ *(\d+) sessions, (\w+) +([\d.]+) clicks/s", printed, flags=re.MULTILINE)
    return {(int(count), way): float(rate) for count, way, rate in lines}
