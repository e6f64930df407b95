"""Prefetch: encode the crop that the next click will probably want while the person looks at the mask.

Nothing depends on it but time: a click asks for its crop as if nobody had, and finds it or does not.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from typing import TYPE_CHECKING

from .state import State

if TYPE_CHECKING:
    from .predictor import Predictor

_open: weakref.WeakSet[Prefetcher] = weakref.WeakSet()


class Prefetcher:
    """One background thread for all sessions of a Segmenter, started when the first of them wants something.

    It keeps no session alive. For each it knows the newest state only: what has not begun when that changes
    never begins; what has begun ends, and is kept like any other crop.
    """

    def __init__(self) -> None:
        """No thread yet."""
        self._changed = threading.Condition()
        self._states: weakref.WeakKeyDictionary[Predictor, State] = weakref.WeakKeyDictionary()
        self._thread: threading.Thread | None = None
        self._busy = self._closed = False
        _open.add(self)

    def want(self, predictor: Predictor, state: State) -> None:
        """Encode what the click after `state` will want, unless `cancel` comes first or it is `close`d."""
        with self._changed:
            if self._closed:
                return
            self._states.pop(predictor, None)  # to the end of the queue
            self._states[predictor] = state
            if self._thread is None and not self._start():
                self._states.clear()
            self._changed.notify_all()

    def cancel(self, predictor: Predictor) -> None:
        """Drop what a session wanted, unless it has begun."""
        with self._changed:
            self._states.pop(predictor, None)

    def settle(self) -> None:
        """Wait until all that sessions want is encoded, or dropped: for tests and measurements."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy and not len(self._states))

    def stop(self) -> None:
        """Drop all wishes, now and in future, and let the thread end. May be repeated."""
        with self._changed:
            self._closed = True
            self._states.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """`stop`, and wait until the thread has ended: for at most one crop to be encoded."""
        self.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _start(self) -> bool:
        thread = threading.Thread(target=self._work, name="clickmask-prefetch", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had here and now: clicks encode for themselves
            return False
        self._thread = thread
        return True

    def _work(self) -> None:
        while (job := self._next()) is not None:
            predictor, state = job
            with contextlib.suppress(Exception):  # nobody asked yet: the click that does will meet it itself
                predictor.prefetch(state)
            del job, predictor, state  # a waiting thread keeps no session alive

    def _next(self) -> tuple[Predictor, State] | None:
        """The oldest wish, once there is one; None when all is over."""
        with self._changed:
            self._busy = False
            while not self._closed:
                for predictor, state in list(self._states.items()):
                    self._busy = True
                    self._states.pop(predictor, None)  # None: the collector may `stop` this on any line
                    return predictor, state
                self._changed.notify_all()  # who waits for it to settle
                self._changed.wait()
            self._changed.notify_all()
        return None


@atexit.register
def _close_all() -> None:
    # a daemon thread inside a runtime must not meet the end of the interpreter
    for prefetcher in list(_open):
        prefetcher.close()
