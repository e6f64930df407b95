"""Images that are not NumPy arrays: where a session looks for their pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sessions import CROP, make_image, make_segmenter

from clickmask import encode, paste, pixels
from clickmask.errors import BackendUnavailableError, InvalidInputError, SessionStateError
from clickmask.view import View


class Elsewhere:
    """Stands for a GPU image: pixels that only these methods can reach."""

    def __init__(self, image: np.ndarray) -> None:
        self._image = image
        self.image_size = (image.shape[1], image.shape[0])

    def crop(self, view: View) -> np.ndarray:
        return encode.image_tensor(self._image, view, (0.5, 0.5, 0.5))

    def paint(self, logits: np.ndarray, view: View) -> Any:
        return paste.paste_with_box(logits, view, self.image_size, 0.5)

    def find(self, logits: np.ndarray, view: View) -> Any:
        return paste.paste_box(logits, view, 0.5)

    def device_mask(self, logits: np.ndarray, view: View, out: Any = None) -> Any:
        return ("mask", logits, view, out)


def test_a_session_needs_no_more_of_an_image_than_size_crops_and_masks(monkeypatch) -> None:
    image = make_image(300, 200)
    segmenter = make_segmenter(crop=CROP)
    plain = segmenter.session(image)
    with monkeypatch.context() as patch:
        patch.setattr("clickmask.session.pixels_of", lambda given, _: Elsewhere(given))
        session = segmenter.session(image)
    with pytest.raises(SessionStateError, match="at least one click"):
        session.device_mask()
    for click in ((100, 100), (140, 90), (250, 150)):
        np.testing.assert_array_equal(session.click(*click), plain.click(*click))
    what, logits, view, out = session.device_mask("here")
    assert (what, view.box, out) == ("mask", session.crop, "here")
    np.testing.assert_array_equal(logits, session._history.now.logits)
    with pytest.raises(InvalidInputError, match="an image in host memory"):
        session.to_json()


def test_a_host_image_has_no_mask_on_a_device() -> None:
    session = make_segmenter().session(make_image(30, 20))
    session.click(10, 10)
    with pytest.raises(InvalidInputError, match="in host memory"):
        session.device_mask()


@pytest.mark.parametrize("name", ["__cuda_array_interface__", "__dlpack__"])
def test_device_arrays_are_known_by_their_protocols_and_want_a_cuda_backend(name: str) -> None:
    array = type("Array", (), {name: None})()
    with pytest.raises(BackendUnavailableError, match="expected a CUDA device"):
        pixels.pixels_of(array, make_segmenter().backend)


def test_anything_else_is_told_what_an_image_is() -> None:
    with pytest.raises(InvalidInputError, match="image must be a NumPy array"):
        pixels.pixels_of([[0]], make_segmenter().backend)
