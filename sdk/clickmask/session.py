"""Session: the annotation of one object in one image, click by click. The only mutable thing in clickmask."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import paste
from .clicks import Click, as_clicks, check_inside
from .crop import CropPolicy, resolve_policy
from .errors import InvalidInputError, SessionStateError
from .history import History
from .mask import Mask, Rle, as_mask, rle
from .outlines import Region, polygons, regions
from .pixels import pixels_of, sha256
from .predictor import Predictor
from .state import State
from .view import Box, Coordinates, resolve_coordinates, resolve_size

if TYPE_CHECKING:
    from .segmenter import Segmenter


class Session:
    """One image, one object: clicks in, masks out. Made by `Segmenter.session`.

    **The image is not copied** when it is C-contiguous (H, W, 3) uint8: do not change its pixels while the
    session lives, since later crops are cut from it and `to_json` hashes it (pass `image.copy()` if you
    must). Beyond the image a session holds the current mask and the memory of one before it (1 byte per pixel
    each), the network's features of recent crops (all sessions of the segmenter share `crops_bytes`), and for
    each click in force or to be undone its logits (4 bytes per network pixel, once however many operations
    share it). `history.HISTORY` and `HISTORY_BYTES` bound what can be undone; the clicks in force are always
    kept. Where the image is on a GPU, so are features and logits; the current mask is on the host.

    **Prefetch.** Unless switched off, the image is encoded in the background when the session begins, and
    after each call the crop that the next click will want (`Segmenter.session`). Masks do not depend on it.

    **Threads.** Any call may come from any thread. A session does one at a time and the others wait;
    sessions do not wait for each other. `clicks`, `crop`, `can_undo` and `can_redo` do not wait either: they
    tell the state after the last finished call. Arrays once returned are never changed.

    **Failure.** A call that raises leaves the session as it was.

    **Undo** takes back the last operation, whichever of `click`, `remove`, `set_mask` and `reset` it was.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        image: NDArray[np.uint8],
        crop_policy: str | CropPolicy | None = None,
        size: int | None = None,
        coordinates: Coordinates | None = None,
        *,
        prefetch: bool | None = None,
    ) -> None:
        """See `Segmenter.session`."""
        manifest = segmenter.bundle.manifest
        self._segmenter = segmenter
        self._spec = manifest.input
        self._policy = resolve_policy(crop_policy, manifest.crop)
        self._fixed_size = resolve_size(size, self._spec.sizes)
        self._coordinates = resolve_coordinates(coordinates, self._spec.coordinates)
        self._pixels = pixels_of(image, segmenter.backend)
        self._image_size = self._pixels.image_size
        self._lock = threading.Lock()
        self._history = History()
        self._predictor = Predictor(
            segmenter,
            self._pixels,
            self._policy,
            self._fixed_size,
            self._coordinates,
            segmenter.prefetch if prefetch is None else prefetch,
        )
        self._predictor.look_ahead(self._history.now)

    def click(self, x: float, y: float, positive: bool = True) -> Mask:
        """Add a click.

        Args:
            x: column in image pixels, pixel centres at integers; -0.5 <= x < W - 0.5.
            y: row, likewise.
            positive: True for the object, False for the background.

        Returns:
            The new mask, (H, W) bool, read-only.

        Raises:
            InvalidInputError: the click is not a point of the image.
            SessionStateError: the bundle takes no more clicks.
            BackendError: the runtime failed.
        """
        return self.replay((Click(x, y, positive),))

    def undo(self) -> Mask:
        """Take back the last operation, without running the network.

        Returns:
            The mask now, (H, W) bool, read-only.

        Raises:
            SessionStateError: there is nothing to undo; see `can_undo`.
        """
        with self._lock:
            if not self._history.can_undo:
                raise SessionStateError(
                    "expected an operation to undo, but there is none; ask can_undo first"
                )
            mask = self._predictor.mask(self._history.before)  # before the step, as it may fail
            self._history.undo()
            return self._looking_ahead(mask)

    def redo(self) -> Mask:
        """Bring back what the last `undo` took, without running the network.

        Returns:
            The mask now, (H, W) bool, read-only.

        Raises:
            SessionStateError: nothing was undone since the last operation; see `can_redo`.
        """
        with self._lock:
            if not self._history.can_redo:
                raise SessionStateError(
                    "expected an undone operation to redo, but there is none; ask can_redo first"
                )
            mask = self._predictor.mask(self._history.after)  # before the step, as it may fail
            self._history.redo()
            return self._looking_ahead(mask)

    def remove(self, index: int) -> Mask:
        """Take one click out; the later ones are made again as if it had never been.

        Args:
            index: position in `clicks`, from 0.

        Returns:
            The new mask, (H, W) bool, read-only.

        Raises:
            InvalidInputError: the index is not a whole number.
            SessionStateError: there is no such click.
            BackendError: the runtime failed.
        """
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)):
            raise InvalidInputError(
                f"index must be a whole number, the position in session.clicks, but got {index!r}"
            )
        with self._lock:
            clicks, state = self._history.now.clicks, self._history.now
            if not 0 <= index < len(clicks):
                raise SessionStateError(
                    f"expected the index of one of {len(clicks)} clicks, from 0, but got {index}"
                )
            while state.before is not None and len(state.clicks) > index:
                state = state.before
            for click in clicks[index + 1 :]:
                state = self._predictor.advance(state, click)
            return self._move_to(state)

    def set_mask(self, mask: NDArray[Any]) -> Mask:
        """Start anew from an existing mask: the clicks so far are dropped (`undo` brings them back).

        Args:
            mask: (H, W) of the image; bool, or uint8 of 0 and 1 or of 0 and 255. It is copied.

        Returns:
            The mask now, (H, W) bool, read-only.

        Raises:
            InvalidInputError: not such a mask, or the bundle's network takes no previous mask.
        """
        if not self._spec.previous_mask:
            raise InvalidInputError(
                f"set_mask needs a network that takes a previous mask, but the bundle "
                f"{self._segmenter.bundle.manifest.name!r} has none; use a bundle with input.previous_mask"
            )
        encoded = rle(as_mask(mask, self._image_size))
        with self._lock:
            return self._move_to(State(initial=encoded))

    def reset(self) -> Mask:
        """Back to the untouched image: no clicks, no initial mask. `undo` brings them back.

        Returns:
            The empty mask, (H, W) bool, read-only.
        """
        with self._lock:
            blank = not self._history.now.clicks and self._history.now.initial is None
            return self._predictor.mask(self._history.now) if blank else self._move_to(State())

    def fork(self, *, prefetch: bool = True) -> Session:
        """An independent session that starts as this one is now, undo history included, at no cost.

        Args:
            prefetch: False for one that never encodes ahead; True for one that does as this one does.
        """
        with self._lock:
            twin = copy.copy(self)  # image, bundle, options and states never change
            twin._history = self._history.copy()
            twin._predictor = copy.copy(self._predictor)
            twin._predictor.prefetches &= prefetch
        twin._lock = threading.Lock()
        return twin

    @property
    def can_undo(self) -> bool:
        """Whether there is an operation to take back."""
        return self._history.can_undo

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone operation to bring back."""
        return self._history.can_redo

    @property
    def mask(self) -> Mask:
        """The mask now, (H, W) bool, read-only: probability above the threshold; False outside the crop."""
        with self._lock:
            return self._predictor.mask(self._history.now)

    @property
    def probability(self) -> NDArray[np.float32]:
        """Probability of object, (H, W) float32 in [0, 1], a new array; 0 outside the crop.

        An initial mask gives 0 and 1; without any click or mask it is 0 everywhere.
        """
        with self._lock:
            state = self._history.now
            if state.view is None or state.logits is None:
                return self._predictor.mask(state).astype(np.float32)
        return self._pixels.probability(state.logits, state.view)

    def device_mask(self, out: Any = None) -> Any:
        """The mask now, left on the GPU that the session's image is on; nothing is kept of it.

        Args:
            out: (H, W) bool or uint8 array on that GPU to fill with 0 and 1; None for a new one.

        Returns:
            `out`; or (H, W) bool with `__cuda_array_interface__` and DLPack.

        Raises:
            InvalidInputError: the image is in host memory, or `out` is no such array.
            SessionStateError: there is no click yet.
        """
        with self._lock:
            state = self._history.now
        if state.view is None or state.logits is None:
            raise SessionStateError("expected at least one click, whose mask to paint, but there is none yet")
        return self._pixels.device_mask(state.logits, state.view, out)

    @property
    def clicks(self) -> tuple[Click, ...]:
        """All clicks, in order, in image pixels."""
        return self._history.now.clicks

    @property
    def crop(self) -> Box | None:
        """The part of the image that the network saw for the newest click; None before the first."""
        view = self._history.now.view
        return view.box if view else None

    def polygons(self, tolerance: float = 0.0) -> list[list[float]]:
        """The outer outlines as COCO `segmentation`, within `tolerance` pixels; see `outlines.polygons`."""
        return polygons(*self._painted(), tolerance)

    def regions(self) -> list[Region]:
        """The mask's outlines with their holes, exact; [] if empty (`outlines.regions`)."""
        return regions(*self._painted())

    def rle(self) -> Rle:
        """The mask as compressed COCO run lengths, exact: {"size": [H, W], "counts": str}."""
        return rle(self.mask)

    def bbox(self) -> list[int]:
        """The mask's COCO bounding box [x, y, width, height]; [0, 0, 0, 0] if empty."""
        box = self._painted().box
        return [box.x0, box.y0, box.width, box.height] if box else [0, 0, 0, 0]

    def _painted(self) -> paste.Painted:
        with self._lock:
            return self._predictor.painted(self._history.now)

    def to_json(self) -> str:
        """The session as JSON text, to restore with `from_json`.

        It holds the image's size and hash, the bundle's identity, the options, the initial mask, the clicks
        and the mask; no undo history. Hashing reads the whole image.

        Raises:
            InvalidInputError: the image is on a GPU.
            BackendError: the runtime failed.
        """
        from .replay import SessionRecord  # reads JSON strictly: few sessions are ever saved

        digest = sha256(self._pixels)  # before the mask is painted: it may refuse
        with self._lock:
            mask = self._predictor.mask(state := self._history.now)
        return SessionRecord(
            image_size=self._image_size,
            image_sha256=digest,
            bundle=self._segmenter.identity,
            policy=self._policy,
            size=self._fixed_size,
            coordinates=self._coordinates,
            clicks=state.clicks,
            initial=state.initial,
            mask=rle(mask),
        ).to_json()

    @classmethod
    def from_json(
        cls,
        segmenter: Segmenter,
        image: NDArray[np.uint8],
        text: str | bytes,
        *,
        prefetch: bool | None = None,
        other_bundle: bool = False,
    ) -> Session:
        """Restore a session by making its clicks again.

        With the same runtime on the same kind of machine masks are bit-identical; elsewhere they differ by
        that runtime's rounding only.

        Args:
            segmenter: holds the bundle that the session was made with; see `other_bundle`.
            image: the image it was made on, (H, W, 3) uint8 RGB or any form that `Segmenter.session` takes.
            text: from `to_json`.
            prefetch: as for `Segmenter.session`.
            other_bundle: whether one of another bundle goes on from its mask, with this bundle's options.

        Returns:
            The session, where `undo` takes back the clicks one by one; from a mask on there are none.

        Raises:
            InvalidInputError: the text is no session, or belongs to another image or bundle; or `set_mask`'s.
            SessionStateError: it has more clicks than the bundle takes.
            BackendError: the runtime failed.
        """
        from .replay import SessionRecord

        manifest = segmenter.bundle.manifest
        record = SessionRecord.from_json(text, segmenter.identity, manifest, other_bundle=other_bundle)
        session = cls(segmenter, image, record.policy, record.size, record.coordinates, prefetch=prefetch)
        record.check_image(session._image_size, sha256(session._pixels))
        if (begin := record.first_mask()) is not None:
            session.set_mask(begin)
        session.replay(record.clicks)
        return session

    def replay(self, clicks: Iterable[Click | tuple[float, float, bool]]) -> Mask:
        """Make several clicks, as `click` would one by one, painting the last mask only.

        Args:
            clicks: `Click` or (x, y, positive), in image pixels, in order.

        Returns:
            The new mask, (H, W) bool, read-only.

        Raises:
            InvalidInputError: one is not a point of the image; none was made.
            SessionStateError: the bundle takes fewer clicks; none was made.
            BackendError: the runtime failed; none was made.
        """
        points = as_clicks(clicks)
        for click in points:
            check_inside(click, self._image_size)
        with self._lock:
            self._check_room(len(self._history.now.clicks) + len(points))
            states = [self._history.now]
            for click in points:
                states.append(self._predictor.advance(states[-1], click))
            return self._move_to(*states[1:]) if points else self._predictor.mask(self._history.now)

    # What follows is called with the lock held.

    def _move_to(self, *states: State) -> Mask:
        mask = self._predictor.mask(states[-1])  # before anything is kept, as it may fail
        self._history.add(*states)
        return self._looking_ahead(mask)

    def _looking_ahead(self, mask: Mask) -> Mask:
        self._predictor.look_ahead(self._history.now)
        return mask

    def _check_room(self, count: int) -> None:
        most = self._spec.max_clicks
        if count > most:
            go_on = ", or go on from the mask with set_mask(session.mask)" if self._spec.previous_mask else ""
            raise SessionStateError(
                f"this bundle takes at most {most} clicks, but got {count}; remove or undo one{go_on}"
            )
