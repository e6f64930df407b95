"""One fresh process: import, load, first mask, a session, every size. Run by ``cold_start``; prints JSON.

Only clickmask is imported, so that times and memory are an application's.
"""

import json
import sys
import time


def main() -> None:
    """Reads one JSON argument: ``bundle``, ``how`` (of ``Segmenter.load``), ``photo`` (.npy), ``clicks``."""
    before = time.monotonic()
    import clickmask

    imported = time.monotonic()
    import numpy as np

    job = json.loads(sys.argv[1])
    photo, clicks = np.load(job["photo"]), [tuple(click) for click in job["clicks"]]
    memory = {"import": _peak()}
    segmenter = clickmask.Segmenter.load(job["bundle"], **job["how"])
    loaded = time.monotonic()
    memory["load"] = _peak()
    session = segmenter.session(photo)
    session.click(*clicks[0])
    masked = time.monotonic()
    memory["first mask"] = _peak()
    session.replay(clicks[1:])
    memory["a session"] = _peak()
    for size in segmenter.bundle.manifest.input.sizes:
        segmenter.session(photo, size=size).replay(clicks)
    memory["a session at each size"] = _peak()
    segmenter.close()
    stamps = {"before": before, "imported": imported, "loaded": loaded, "masked": masked}
    print(json.dumps({"stamps": stamps, "peak_mb": memory}))


def _peak() -> float | None:
    """Most memory that this process has had, MB of 10^6 bytes; None where the system does not tell."""
    try:  # getrusage would count what the parent had: Linux keeps it across exec
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e6
    except (OSError, StopIteration):
        return None


if __name__ == "__main__":
    main()
