"""Clicks per second of 1, 4 and 16 sessions on one engine, with and without batching, side by side.

python export/benchmark_batching.py --device cuda

Sessions click as fast as they can, each from a thread of its own, on one encoded crop. Rounds of the two ways
alternate, so that a machine that is busy for a while slows both.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from pathlib import Path

import numpy as np

from clickmask.backends import open_backend
from clickmask.backends.base import Backend
from clickmask.batching import BatchingBackend, batched
from clickmask.bundle import default_bundle_path, load_bundle
from clickmask.segmenter import Segmenter
from clickmask.session import Session


def main() -> None:
    """Prints one line for each number of sessions and way."""
    options = _options()
    bundle = load_bundle(options.bundle)
    trust = options.trust_host_code
    inner = open_backend(bundle, options.backend, options.device, options.threads, trust_host_code=trust)
    ways = {"alone": inner, "batched": batched(inner, options.max_batch, options.max_delay_ms)}
    if options.device != "cpu":
        ways["batched"].warmup()  # every shape that either way meets
    size = options.size or min(bundle.manifest.input.sizes)
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    print(f"{inner.name} on {inner.device}, size {size}, batches to {options.max_batch}")
    for count in options.sessions:
        rates: dict[str, list[float]] = {way: [] for way in ways}
        waits: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, backend in ways.items():
                sessions = _sessions(Segmenter(bundle, backend), image, count)
                rate, times = _round(sessions, options.clicks)
                rates[way].append(rate)
                waits[way] += times
        for way in ways:
            p50, p95 = np.percentile(waits[way], [50, 95])
            rate = statistics.median(rates[way])
            print(
                f"{count:3d} sessions, {way:8s}{rate:8.1f} clicks/s   p50 {p50:6.1f} ms   p95 {p95:6.1f} ms"
            )
    print("batches by size:", _batches(ways["batched"]))


def _sessions(segmenter: Segmenter, image: np.ndarray, count: int) -> list[Session]:
    """Sessions whose one crop is encoded."""
    sessions = [segmenter.session(image, crop_policy="none", size=image.shape[0]) for _ in range(count)]
    for session in sessions:
        session.click(1, 1)
        session.reset()
    return sessions


def _round(sessions: list[Session], clicks: int) -> tuple[float, list[float]]:
    """Clicks per second of all, and the milliseconds of each."""
    times: list[float] = []
    start = threading.Barrier(len(sessions) + 1)

    def annotate(session: Session, seed: int) -> None:
        side, random = session.mask.shape[0], np.random.default_rng(seed)
        start.wait()
        for x, y in random.integers(0, side, (clicks, 2)).tolist():
            before = time.perf_counter()
            session.click(x, y, bool(random.integers(2)))
            times.append(1000 * (time.perf_counter() - before))

    threads = [threading.Thread(target=annotate, args=(one, seed)) for seed, one in enumerate(sessions)]
    for thread in threads:
        thread.start()
    start.wait()
    before = time.perf_counter()
    for thread in threads:
        thread.join()
    return len(times) / (time.perf_counter() - before), times


def _batches(backend: Backend) -> dict[int, int]:
    return dict(sorted(backend.decodes.batches.items())) if isinstance(backend, BatchingBackend) else {}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=default_bundle_path(), help="engine bundle")
    parser.add_argument("--backend", default="auto", help="runtime (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads of the runtime")
    parser.add_argument(
        "--trust-host-code", action="store_true", help="load plans that carry code, too, which runs it"
    )
    parser.add_argument("--size", type=int, help="network input size (default: the bundle's smallest)")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--clicks", type=int, default=12, help="per session and round, at most what it takes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--max-delay-ms", type=float, default=10.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
