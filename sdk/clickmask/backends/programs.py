"""What a lane runs: a runtime's graphs, bound to fixed addresses and captured as CUDA graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .cuda_memory import DeviceArray


class Program(Protocol):
    """A graph of the pipeline, ready to run. For one lane, whose stream it runs on.

    Attributes:
        scratch_bytes: Device memory that it works in, and shares with the lane's other programs.
    """

    scratch_bytes: int

    def bind(
        self, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray], scratch: DeviceArray
    ) -> None:
        """Set shapes and addresses, where they are not set already.

        Raises:
            BackendError: The runtime refuses one of them.
        """

    def launch(self) -> None:
        """Put a run on the stream."""

    def capture(self) -> None:
        """Make a CUDA graph of the launch, after runs that do what a graph must not.

        Raises:
            BackendError: The graph does something that cannot be recorded; the program runs without.
        """

    def close(self) -> None:
        """Give up what it holds; nothing may be running."""


class Programs(Protocol):
    """A runtime's graphs on one stream; each ``make`` gives another program of one."""

    def form(self, graph: str, dims: Mapping[str, int]) -> int:
        """Which form of a graph runs such extents B, S and M, such as a profile: a program has one form.

        Raises:
            BackendError: None does.
        """

    def make(self, graph: str, form: int) -> Program:
        """A program, bound to nothing yet.

        Raises:
            BackendError: The runtime refuses.
        """

    def close(self) -> None:
        """Give up what the programs share; they are closed already."""
