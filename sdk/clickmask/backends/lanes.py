"""What calls on a GPU run in: lanes, each lent to one call at a time, made when needed, a few at most."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, Protocol, TypeVar

from ..errors import BackendError

LANES = 2
"""Calls that run side by side: a click, and the crop that is encoded ahead. More share a GPU no better."""

_log = logging.getLogger("clickmask")


class Lane(Protocol):
    """A stream and what belongs to it.

    Attributes:
        warming: Whether new shapes may be captured.
    """

    warming: bool

    def finish(self) -> None:
        """Wait until nothing of the call is running any more."""

    def close(self) -> None:
        """Give everything up; what is running is waited for first."""


AnyLane = TypeVar("AnyLane", bound=Lane)


class Lanes(Generic[AnyLane]):
    """Lends lanes to threads; one that asks for more than there are waits."""

    def __init__(self, make: Callable[[], AnyLane], most: int = LANES) -> None:
        """No lanes yet.

        Args:
            make: Makes one, or raises BackendError.
            most: Lanes at the same time, >= 1.
        """
        self._make, self._most = make, most
        self._idle: list[AnyLane] = []
        self._made = 0
        self._closed = False
        self._changed = threading.Condition()
        self._own, self._warm_up = threading.local(), threading.Lock()

    @property
    def mine(self) -> AnyLane | None:
        """The lane that this thread has, by ``lent`` or in ``warm_up``."""
        return getattr(self._own, "lane", None)

    @contextmanager
    def lent(self) -> Iterator[AnyLane]:
        """A lane for the caller alone. After an error it is given up, since nothing is known of its state."""
        lane = self._own.lane = self._take()
        try:
            yield lane
            lane.finish()
        except BaseException:
            self._drop(lane)
            raise
        finally:
            self._own.lane = None
        self._give(lane)

    def warm_up(self, run: Callable[[], None]) -> None:
        """Call something in every lane there can be, which is ``mine`` then and ``warming``."""
        with self._warm_up, self._all_lent() as lanes:
            for lane in lanes:
                self._own.lane, lane.warming = lane, True
                try:
                    run()
                finally:
                    self._own.lane, lane.warming = None, False

    @contextmanager
    def _all_lent(self) -> Iterator[list[AnyLane]]:
        """Every lane there can be, made where it was not; callers of ``lent`` wait. One thread at a time.

        After an error all are given up, as in ``lent``.
        """
        lanes: list[AnyLane] = []
        after = self._drop
        try:
            while len(lanes) < self._most:  # fewer than at first where there is no memory for another
                self._make_one()
                if len(lanes) < self._most:
                    lanes.append(self._take())
            yield lanes
            after = self._give
        finally:
            for lane in lanes:
                after(lane)

    def close(self) -> None:
        """Give up the idle lanes now and each other one when its call ends; nobody gets one any more."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for lane in idle:
            self._drop(lane)

    def _take(self) -> AnyLane:
        while True:
            with self._changed:
                while not self._closed and not self._idle and self._made >= self._most:
                    self._changed.wait()
                if self._closed:
                    raise BackendError("expected an open backend, got a call after close().")
                if self._idle:
                    return self._idle.pop()  # the last one used, so that quiet times use one
            self._make_one()

    def _make_one(self) -> None:
        """One more idle lane, unless there are as many as there can be."""
        with self._changed:
            if self._closed or self._made >= self._most:
                return
            self._made += 1
        try:
            lane = self._make()
        except BaseException as exc:
            with self._changed:
                self._made -= 1
                self._changed.notify_all()
                if self._made == 0 or not isinstance(exc, BackendError):
                    raise
                self._most = self._made
            _log.warning("no more than %d calls run side by side: %s", self._most, exc)
        else:
            self._give(lane)

    def _give(self, lane: AnyLane) -> None:
        with self._changed:
            if not self._closed:
                self._idle.append(lane)
                self._changed.notify()
                return
        self._drop(lane)

    def _drop(self, lane: AnyLane) -> None:
        with suppress(Exception):  # what broke it was raised already, and whoever waits must get another
            lane.close()
        with self._changed:
            self._made -= 1
            self._changed.notify()
