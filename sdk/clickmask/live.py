"""LiveSession: a session that never blocks its caller, for windows that follow the mouse."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

from .clicks import Click, check_inside
from .errors import InvalidInputError, SessionStateError
from .mask import Mask
from .session import Session

_log = logging.getLogger("clickmask")

Result = TypeVar("Result")


@dataclass(eq=False)
class _Clicks:
    """Clicks in a row that wait to be made: all of them, for the mask of the newest."""

    points: list[Click] = field(default_factory=list)
    mask: Future[Mask] = field(default_factory=Future)


class LiveSession:
    """Runs the calls of one session one after the other on a thread of its own, in the order they were made.

    What a person has decided is an *operation*: `click`, or anything else of the session with `do`. All are
    made. What the mouse is only passing over is a *preview*: the mask that a click there would give, of which
    only the newest counts.

    What can be stale is a mask. A preview that has not begun is cancelled by the next preview or operation,
    at no cost. Of a click that has not begun, the mask is cancelled by the next click; the click itself is
    made together with that one, by `Session.replay`, which paints the newest mask only. What has begun cannot
    be stopped, and gives its mask. `undo` takes clicks back one by one, however they were made. An
    application that wants every mask waits for each before the next click, or uses `Session`.

    Each call returns a `concurrent.futures.Future` at once: `result()` waits for it, `add_done_callback`
    calls back on this session's thread, where it is cancelled on that of the newer call. What the session
    would raise, it raises; that of a stale mask raises `concurrent.futures.CancelledError`. In asyncio
    `asyncio.wrap_future` makes it awaitable; there a stale one ends the task that awaits it, as any
    `asyncio.CancelledError`: docs/threads.md has the way around.

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
        self._preview: Future[Mask] | None = None  # the newest, until it begins
        self._clicks: _Clicks | None = None  # what the next click joins
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called: every call raises then."""
        return self._closed

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
        future: Future[Mask] = Future()
        with self._open():
            stale, self._preview = self._preview, future
            self._pool.submit(self._show, future, x, y, positive)
        _drop(stale)
        return future

    def click(self, x: float, y: float, positive: bool = True) -> Future[Mask]:
        """Add a click.

        Args:
            x: as for `Session.click`.
            y: likewise.
            positive: likewise.

        Returns:
            Of its mask, (H, W) bool, read-only; cancelled if another click comes before it has begun, with
            no other operation between. Then, and where a caller cancels it, the click is made all the same.

        Raises:
            SessionStateError: after `close`.
        """
        try:
            point = Click(x, y, positive)
            check_inside(point, self.session._image_size)
        except InvalidInputError:  # never to be made, and so apart from those that are
            return self.do(lambda session: session.click(x, y, positive))
        with self._open():
            clicks, mask = self._clicks or _Clicks(), Future[Mask]()
            if clicks is not self._clicks:
                self._pool.submit(self._make, clicks)  # which fails where no thread can start
                self._clicks = clicks
            stale = (self._preview, clicks.mask if clicks.points else None)
            clicks.points.append(point)
            self._preview, clicks.mask = None, mask
        _drop(*stale)
        return mask

    def do(self, operation: Callable[[Session], Result]) -> Future[Result]:
        """Any other call of the session, in turn: `live.do(Session.undo)`.

        Args:
            operation: is given the session, on its thread.

        Returns:
            Of what `operation` returns; where a caller cancels it, the operation is made all the same.

        Raises:
            SessionStateError: after `close`.
        """
        with self._open():
            stale, self._preview = self._preview, None
            self._clicks = None  # clicks after this are not made before it
            result = Future[Result]()
            self._pool.submit(self._do, operation, result)
        _drop(stale)
        return result

    def close(self) -> None:
        """Cancel a preview that has not begun, finish all operations, end the thread. May be repeated.

        Not to be called from a callback on this session's thread, which it waits for.
        """
        with self._lock:
            self._closed = True
            stale, self._preview = self._preview, None
        _drop(stale)
        self._pool.shutdown()

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise SessionStateError("expected an open LiveSession, but got a call after close")
            yield

    # What follows runs on the thread.

    def _show(self, future: Future[Mask], x: float, y: float, positive: bool) -> None:
        with self._lock:
            if self._preview is not future:
                return  # stale, and dropped by what came after it
            self._preview = None
            wanted = future.set_running_or_notify_cancel()
        if wanted:
            _settle(future, lambda: self.session.fork(prefetch=False).click(x, y, positive))

    def _do(self, operation: Callable[[Session], Result], result: Future[Result]) -> None:
        if result.set_running_or_notify_cancel():
            _settle(result, lambda: operation(self.session))
            return
        try:
            operation(self.session)
        except Exception as error:
            _log.warning("an operation whose result was cancelled failed: %s", error)

    def _make(self, clicks: _Clicks) -> None:
        with self._lock:
            if self._clicks is clicks:
                self._clicks = None
            points, mask = clicks.points, clicks.mask
            if not points:  # the click that was to be the first has raised
                return
            wanted = mask.set_running_or_notify_cancel()
        if wanted:
            _settle(mask, lambda: self._replay(points))
            return
        try:
            self._replay(points)
        except Exception as error:
            _tell(points[-1], error)

    def _replay(self, points: list[Click]) -> Mask:
        *older, newest = points
        if older:
            try:
                return self.session.replay(points)
            except Exception:  # one of them is at fault: the others are made, as they would have been alone
                self._make_each(older)
        return self.session.replay((newest,))

    def _make_each(self, points: list[Click]) -> None:
        for point in points:
            try:
                self.session.replay((point,))
            except Exception as error:
                _tell(point, error)


def _tell(point: Click, error: Exception) -> None:
    """Of a click whose mask is cancelled, so that there is nobody to raise it to."""
    _log.warning("the click at (%g, %g) was not made: %s", point.x, point.y, error)


def _settle(future: Future[Result], call: Callable[[], Result]) -> None:
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _drop(*stale: Future[Any] | None) -> None:
    """Cancel; to be called without the lock, as this calls back."""
    for future in stale:
        if future is not None and future.cancel():
            future.set_running_or_notify_cancel()  # wakes those who wait for it
