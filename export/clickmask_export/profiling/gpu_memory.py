"""Memory in use on the first NVIDIA graphics card, by all processes, looked at ten times a second."""

from __future__ import annotations

import subprocess
import threading
from types import TracebackType

_COMMAND = ("nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "100")
_PATIENCE = 20.0  # seconds until the first look


class GpuMemory:
    """A context; where there is no card, or no nvidia-smi, it knows nothing.

    Attributes:
        before: MB in use when it was entered; None where that is unknown.
        most: MB in use at most since then, likewise.
    """

    def __init__(self) -> None:
        """Nothing is looked at yet."""
        self.before: float | None = None
        self.most: float | None = None
        self._looked = threading.Event()

    def __enter__(self) -> GpuMemory:
        try:
            self._tool = subprocess.Popen(
                _COMMAND, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except OSError:
            return self
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._looked.wait(_PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "_tool"):
            self._tool.terminate()
            self._reader.join()
            self._tool.wait()

    def _read(self) -> None:
        with self._tool.stdout as lines:  # type: ignore[union-attr]
            for line in lines:
                if line.strip().isdecimal():
                    used = float(line)
                    self.before = used if self.before is None else self.before
                    self.most = max(used, self.most or 0.0)
                    self._looked.set()
        self._looked.set()  # it ended: there is nothing to wait for
