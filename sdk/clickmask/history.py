"""History: where the operations of a session led, and what undo and redo bring back."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from .state import State

HISTORY = 256
"""Operations that `undo` can take back at most; older ones are forgotten, so that a session stays bounded."""

HISTORY_BYTES = 256 << 20
"""What the clicks in force and those that `undo` brings back may hold, on the host or on the image's GPU;
older ones beyond it are forgotten."""


class History:
    """A line of states with a place on it. One thread at a time, but for `now`, `can_undo` and `can_redo`.

    Attributes:
        now: the state in force.
    """

    def __init__(self) -> None:
        """No operation yet."""
        self.now = State()
        self._past: deque[State] = deque(maxlen=HISTORY)
        self._future: deque[State] = deque()

    @property
    def can_undo(self) -> bool:
        """Whether there is an operation to take back."""
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone operation to bring back."""
        return bool(self._future)

    @property
    def before(self) -> State:
        """What `undo` brings back."""
        return self._past[-1]

    @property
    def after(self) -> State:
        """What `redo` brings back."""
        return self._future[-1]

    def undo(self) -> None:
        """Make `before` the state in force."""
        self._future.append(self.now)
        self.now = self._past.pop()

    def redo(self) -> None:
        """Make `after` the state in force."""
        self._past.append(self.now)
        self.now = self._future.pop()

    def add(self, *states: State) -> None:
        """Operations led from state to state, the last of them now in force, all at once.

        What was undone is forgotten, and the oldest beyond bounds.
        """
        self._past.extend((self.now, *states[:-1]))
        self._future.clear()
        self.now = states[-1]
        kept = _affordable([self.now, *reversed(self._past)], HISTORY_BYTES)
        while len(self._past) >= max(kept, 1):
            self._past.popleft()

    def copy(self) -> History:
        """One that goes its own way from here."""
        twin = History()
        twin.now, twin._past, twin._future = self.now, self._past.copy(), self._future.copy()
        return twin


def _affordable(states: Sequence[State], budget: int) -> int:
    """How many of some states, in their order, `budget` bytes can hold with all that lies before each.

    What several of them share counts once.
    """
    seen: set[int] = set()
    for count, state in enumerate(states):
        at: State | None = state
        while at is not None and id(at) not in seen:
            seen.add(id(at))
            budget -= at.nbytes
            at = at.before
        if budget < 0:
            return count
    return len(states)
