"""Predictor: from one state of an annotation to the next, the one place that runs the network.

A click costs one pass of the network over the view that the crop policy chooses, or two where the policy
looks twice (the global-to-local strategy of the CSFP paper): the whole image first, then a crop around what
that pass found, with its probability as the previous mask.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from . import encode
from .clicks import Click
from .crop import Box, Coordinates, CropPolicy, View, choose_size, next_box
from .image import image_size
from .mask import Mask, mask_box
from .state import State, paint, previous_mask

if TYPE_CHECKING:
    from .backends.base import Features
    from .segmenter import Segmenter


class Predictor:
    """What a click does to one image, given a bundle and a session's options.

    `advance` and `mask` are functions of the state. All that changes here are two caches, whose entries carry
    their key, so that a stale one is never wrong; they are replaced and never changed, so that `copy.copy`
    gives an independent predictor. One thread at a time: the session sees to it.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        image: NDArray[np.uint8],
        policy: CropPolicy,
        size: int | None,
        coordinates: Coordinates,
    ) -> None:
        """See `Segmenter.session`; image is (H, W, 3) uint8 RGB, and all is checked already."""
        self._backend = segmenter.backend
        self._manifest = segmenter.bundle.manifest
        self._image = image
        self._image_size = image_size(image)
        self._policy = policy
        self._size = size
        self._coordinates = coordinates
        self._encoded: dict[tuple[View, bool], Features] = {}
        self._painted: tuple[State, Mask] | None = None

    def advance(self, state: State, click: Click) -> State:
        """The state after one more click.

        Raises:
            InvalidInputError: more clicks than the network takes.
            BackendError: the runtime failed.
        """
        clicks = (*state.clicks, click)
        if not self._policy.looks_twice(len(clicks)):
            return self._look(state, clicks, self._view(state, clicks))
        found = self._look(state, clicks, self._whole_view)
        local = self._look(found, clicks, self._view(found, clicks), local=True)
        return replace(local, before=state)  # the first pass is not kept

    def mask(self, state: State) -> Mask:
        """The mask of a state, (H, W) bool, read-only."""
        self._painted = (state, self._paint(state))
        return self._painted[1]

    def _paint(self, state: State) -> Mask:
        """The same without keeping it, as masks are large: for those between passes and replayed clicks."""
        if self._painted is not None and self._painted[0] is state:
            return self._painted[1]
        return paint(state, self._image_size, self._manifest.threshold)

    @property
    def _whole_view(self) -> View:
        return self._view_of(Box(0, 0, *self._image_size))

    def _view(self, state: State, clicks: tuple[Click, ...]) -> View:
        """Where the policy looks for the newest of the clicks, given the mask so far."""
        found = mask_box(self._paint(state)) if self._policy.wants_crop(len(clicks)) else None
        previous = state.view.box if state.view else None
        return self._view_of(
            next_box(self._policy, self._image_size, clicks, Box(*found) if found else None, previous)
        )

    def _view_of(self, box: Box) -> View:
        spec = self._manifest.input
        return View(box, self._size or choose_size(box, spec.sizes), spec.fit, self._coordinates)

    def _look(self, state: State, clicks: tuple[Click, ...], view: View, local: bool = False) -> State:
        """One pass of the network, which is told the mask of a state; what it says makes the next one."""
        spec = self._manifest.input
        tensor = encode.clicks_tensor(clicks, view, encode.click_slots(len(clicks), spec.max_clicks))
        previous = previous_mask(state, view) if spec.previous_mask else None
        logits = self._backend.decode(self._features(view, local), tensor, previous)
        width, height = view.valid_size
        valid = logits[0, 0, :height, :width].astype(np.float32)  # a copy: the padding is not kept
        valid.setflags(write=False)
        return State(clicks, state.initial, view, valid, state)

    def _features(self, view: View, local: bool) -> Features:
        """Of the newest crop and, where each click begins with the whole image, of that."""
        key = (view, local and self._manifest.has_local_network)
        if key not in self._encoded:
            stays = (self._whole_view, False) if self._policy.kind == "global_to_local" else None
            # before, not after: never two crops in memory
            self._encoded = {other: kept for other, kept in self._encoded.items() if other == stays}
            image = encode.image_tensor(self._image, view, self._manifest.input.pad)
            self._encoded = {**self._encoded, key: self._backend.encode(image, local=key[1])}
        return self._encoded[key]
