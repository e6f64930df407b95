"""Predictor: from one state of an annotation to the next, the one place that runs the network.

A click costs one pass of the network over the view that the crop policy chooses, or two, of which the second
is told what the first found. Where the policy looks twice (the global-to-local strategy of the CSFP paper)
they are the whole image and a crop around that; where it looks closely, a crop and the half of it around the
click. The logits of the click before keep the manifest's momentum in those of the crop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from . import encode
from .clicks import Click
from .crop import CropPolicy, close_box, next_box
from .mask import Mask
from .paste import Painted
from .pixels import Pixels
from .state import State, find, paint, previous_mask
from .view import Box, Coordinates, View

if TYPE_CHECKING:
    from .backends.base import Features
    from .segmenter import Segmenter


class Predictor:
    """What a click does to one image, given a bundle and a session's options.

    `advance` and `mask` are functions of the state. All that changes here are two caches, whose entries carry
    their key, so that a stale one is never wrong. The encoded crops are shared with the copies that
    `copy.copy` gives, the painted mask is replaced and never changed. One thread at a time, but for
    `prefetch`: the session sees to it.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        pixels: Pixels,
        policy: CropPolicy,
        size: int | None,
        coordinates: Coordinates,
        prefetch: bool,
    ) -> None:
        """See `Segmenter.session`; all is checked already."""
        self._backend = segmenter.backend
        self._manifest = segmenter.bundle.manifest
        self._crops = segmenter.crops.image(segmenter.backend, pixels)
        self._pixels = pixels
        self._prefetcher = segmenter.prefetcher
        self._size_rule = segmenter.size_rule
        self.prefetches = prefetch
        self._image_size = pixels.image_size
        self._policy = policy
        self._size = size
        self._coordinates = coordinates
        self._painted: tuple[State, Painted] | None = None

    def advance(self, state: State, click: Click) -> State:
        """The state after one more click.

        Raises:
            InvalidInputError: more clicks than the network takes.
            BackendError: the runtime failed.
        """
        self._prefetcher.cancel(self)
        clicks = (*state.clicks, click)
        if not self._policy.looks_twice(len(clicks)):
            found = self._look(state, clicks, view := self._view(state, clicks))
            found = self._steadied(found, view, state)
            closely = self._policy.looks_closely(clicks, view.box, self._manifest.input.sizes[-1])
            return self._seen_closely(found, view) if closely else found
        found = self._look(state, clicks, self._whole_view)
        local = self._look(found, clicks, view := self._view(found, clicks), local=True)
        return self._steadied(replace(local, before=state), view, state)  # the first pass is not kept

    def look_ahead(self, state: State) -> None:
        """Have what the click after a state will want encoded in the background, where that is wished."""
        if self.prefetches:
            self._prefetcher.want(self, state)

    def prefetch(self, state: State) -> None:
        """Encode what the click after a state will look at first, if it widens no box around the mask.

        A negative click never does, a positive one in that box neither; others may look elsewhere.

        Raises:
            BackendError: the runtime failed.
        """
        if len(state.clicks) < self._manifest.input.max_clicks:
            if self._policy.kind == "stable":  # a click outside its crop looks at the whole image
                self._crops.touch(self._whole_view)
            self._features(self._next_view(state), local=False)

    def _next_view(self, state: State) -> View:
        if self._policy.looks_twice(len(state.clicks) + 1):
            return self._whole_view
        return self._view(state, (*state.clicks, Click(0, 0, positive=False)))  # which moves no crop

    def mask(self, state: State) -> Mask:
        """The mask of a state, (H, W) bool, read-only."""
        return self.painted(state).mask

    def painted(self, state: State) -> Painted:
        """That, and what is known of it."""
        painted = self._kept(state)
        if painted is None:
            self._painted = None  # so that its memory can go before the next mask needs as much
            painted = paint(state, self._pixels)
            self._painted = (state, painted)
        return painted

    def _kept(self, state: State) -> Painted | None:
        """That, if it is painted already."""
        kept = self._painted
        return kept[1] if kept is not None and kept[0] is state else None

    def _found(self, state: State) -> Box | None:
        """The tight box of the mask, without painting that: for states between passes and replayed clicks."""
        kept = self._kept(state)
        return find(state, self._pixels) if kept is None else kept.box

    @property
    def _whole_view(self) -> View:
        return self._view_of(Box(0, 0, *self._image_size))

    def _view(self, state: State, clicks: tuple[Click, ...]) -> View:
        """Where the policy looks for the newest of the clicks, given the mask so far."""
        found = self._found(state) if self._policy.wants_crop(len(clicks)) else None
        previous = state.view.box if state.view else None
        return self._view_of(next_box(self._policy, self._image_size, clicks, found, previous))

    def _view_of(self, box: Box) -> View:
        spec = self._manifest.input
        return View(box, self._size or self._size_rule(box, spec.sizes), spec.fit, self._coordinates)

    def _look(self, state: State, clicks: tuple[Click, ...], view: View, local: bool = False) -> State:
        """One pass of the network, which is told the mask of a state; what it says makes the next one."""
        spec = self._manifest.input
        tensor = encode.clicks_tensor(clicks, view, encode.click_slots(len(clicks), spec.max_clicks))
        kept = self._kept(state)
        told = previous_mask(state, view, self._pixels, kept and kept.mask) if spec.previous_mask else None
        logits = self._pixels.decode(self._backend, self._features(view, local), tensor, told, view)
        return State(clicks, state.initial, view, logits, state)

    def _steadied(self, found: State, view: View, before: State) -> State:
        """A state in which the logits of the one before have their share, away from the newest click."""
        momentum = self._manifest.momentum
        if not momentum or before.view is None:
            return found
        click = found.clicks[-1]
        logits = self._pixels.blend(found.logits, view, before.logits, before.view, momentum, click)
        return replace(found, logits=logits)

    def _seen_closely(self, found: State, view: View) -> State:
        """A state whose newest click is looked at once more: what that says replaces the mask around it."""
        near = self._view_of(close_box(view.box, found.clicks[-1]))
        close = self._look(found, found.clicks, near)
        return replace(found, logits=self._pixels.blend(found.logits, view, close.logits, near))

    def _features(self, view: View, local: bool) -> Features:
        return self._crops.features(view, local and self._manifest.has_local_network)
