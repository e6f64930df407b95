"""What TensorRT's builder says while it works, as one bar; and how it is told to stop."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from clickmask_export.progress import Progress


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """How far nested phases are. TensorRT reports them from several threads; so all is behind one lock.

    Attributes:
        failure: what showing the progress raised; the build stops then.
    """

    def __init__(self, progress: Progress) -> None:
        self.failure: BaseException | None = None
        self._progress, self._cancelled = progress, False
        self._phases: dict[str, _Phase] = {}
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """From now on every step answers that the build is to end."""
        self._cancelled = True

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins; ``steps`` is how many it will report."""
        with self._lock:
            self._phases[name] = _Phase(parent, steps)
            self._show(name)

    def step(self, name: str, step: int) -> bool:
        """Step number ``step`` of a phase is done; False ends the build."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = step + 1
                self._show(name)
            return not self._cancelled

    def finish(self, name: str) -> None:
        """A phase is over, whether all its steps were reported or not."""
        with self._lock:
            self._phases.pop(name, None)

    def _show(self, name: str) -> None:
        try:
            root = name
            while (parent := self._phases[root].parent) in self._phases:
                root = parent
            self._progress.bar(self._share(root), name)
        except Exception as exc:  # nothing may be raised through TensorRT
            self.failure, self._cancelled = exc, True

    def _share(self, name: str) -> float:
        """Of a phase, its running children counted in part."""
        phase = self._phases[name]
        children = sum(self._share(key) for key, value in self._phases.items() if value.parent == name)
        return min(1.0, (phase.done + children) / max(phase.steps, 1))


def progress_monitor(trt: Any, phases: Phases) -> Any:
    """An ``IProgressMonitor`` that reports to ``phases``; keep it until the builder is gone."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()
