"""LiveSession: a session that never blocks its caller, for windows that follow the mouse."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

from .errors import SessionStateError
from .mask import Mask
from .session import Session

Result = TypeVar("Result")


class LiveSession:
    """Runs the calls of one session one after the other on a thread of its own, in the order they were made.

    What a person has decided is an *operation*: `click`, or anything else of the session with `do`. None is
    ever dropped. What the mouse is only passing over is a *preview*: the mask that a click there would give,
    of which only the newest counts. A preview that has not begun is cancelled by the next preview or
    operation, at no cost; one that has begun cannot be stopped, and gives its mask.

    Each call returns a `concurrent.futures.Future` at once: `result()` waits for it, `add_done_callback`
    calls back on this session's thread, `asyncio.wrap_future` makes it awaitable. What the session would
    raise, it raises; a preview that was cancelled raises `concurrent.futures.CancelledError`.

    Example:
        >>> with LiveSession(segmenter.session(image)) as live:               # doctest: +SKIP
        ...     for x, y in path_of_the_mouse:
        ...         live.preview(x, y).add_done_callback(show)
        ...     mask = live.click(x, y).result()
    """

    def __init__(self, session: Session) -> None:
        """Take over a session: operations made past this object are not ordered with its own.

        Args:
            session: the one to work on; its properties may be read at any time.
        """
        self.session = session
        self._pool = ThreadPoolExecutor(1, "clickmask-live")
        self._lock = threading.Lock()
        self._newest_preview: Future[Mask] | None = None
        self._closed = False

    def preview(self, x: float, y: float, positive: bool = True) -> Future[Mask]:
        """The mask that a click would give, after all operations so far; the session does not change.

        Args:
            x: as for `Session.click`.
            y: likewise.
            positive: likewise.

        Returns:
            Of (H, W) bool, read-only; cancelled if another call comes before it has begun.

        Raises:
            SessionStateError: after `close`.
        """
        return self._submit(lambda: self.session.fork(prefetch=False).click(x, y, positive), is_preview=True)

    def click(self, x: float, y: float, positive: bool = True) -> Future[Mask]:
        """Add a click; see `Session.click`, whose mask, (H, W) bool, it gives.

        Raises:
            SessionStateError: after `close`.
        """
        return self.do(lambda session: session.click(x, y, positive))

    def do(self, operation: Callable[[Session], Result]) -> Future[Result]:
        """Any other call of the session, in turn: `live.do(Session.undo)`.

        Args:
            operation: is given the session, on its thread.

        Returns:
            Of what `operation` returns.

        Raises:
            SessionStateError: after `close`.
        """
        return self._submit(lambda: operation(self.session))

    def close(self) -> None:
        """Cancel a preview that has not begun, finish all operations, end the thread. May be repeated."""
        with self._lock:
            self._closed = True
            stale, self._newest_preview = self._newest_preview, None
        if stale is not None:
            stale.cancel()
        self._pool.shutdown()

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, call: Callable[[], Any], is_preview: bool = False) -> Future[Any]:
        with self._lock:
            if self._closed:
                raise SessionStateError("expected an open LiveSession, but got a call after close")
            future = self._pool.submit(call)
            stale, self._newest_preview = self._newest_preview, future if is_preview else None
        if stale is not None:
            stale.cancel()  # nothing once it has begun; without the lock, as this calls back
        return future
