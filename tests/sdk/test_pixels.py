"""Images that are not NumPy arrays: where a session looks for their pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sessions import CROP, make_image, make_segmenter

from clickmask import pixels
from clickmask.errors import BackendError, BackendUnavailableError, InvalidInputError, SessionStateError
from clickmask.view import Box, View


class There:
    """Logits that nobody but `Elsewhere` can look into."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.nbytes = array, array.nbytes


class Elsewhere:
    """Stands for a GPU image: pixels and logits that only these methods can reach."""

    def __init__(self, image: np.ndarray) -> None:
        self._here = pixels.HostPixels(image, (0.5, 0.5, 0.5), 0.5)
        self.image_size = self._here.image_size

    def crop(self, view: View) -> np.ndarray:
        return self._here.crop(view)

    def decode(self, *arguments: Any) -> There:
        return There(self._here.decode(*arguments))

    def previous_mask(self, logits: There | None, old: View | None, new: View) -> np.ndarray:
        return self._here.previous_mask(logits and logits.array, old, new)

    def probability(self, logits: There, view: View) -> np.ndarray:
        return self._here.probability(logits.array, view)

    def paint(self, logits: There, view: View) -> Any:
        return self._here.paint(logits.array, view)

    def find(self, logits: There, view: View) -> Any:
        return self._here.find(logits.array, view)

    def device_mask(self, logits: There, view: View, out: Any = None) -> Any:
        return ("mask", logits, view, out)


def test_a_session_looks_at_an_image_and_its_logits_through_pixels_alone(monkeypatch) -> None:
    image = make_image(300, 200)
    segmenter = make_segmenter(crop=CROP, echo=True)
    plain = segmenter.session(image)
    with monkeypatch.context() as patch:
        patch.setattr("clickmask.session.pixels_of", lambda given, _: Elsewhere(given))
        session = segmenter.session(image)
    with pytest.raises(SessionStateError, match="at least one click"):
        session.device_mask()
    for click in ((100, 100), (140, 90), (250, 150)):
        np.testing.assert_array_equal(session.click(*click), plain.click(*click))
        np.testing.assert_array_equal(session.probability, plain.probability)
    for step in ("undo", "redo"):
        np.testing.assert_array_equal(getattr(session, step)(), getattr(plain, step)())
    np.testing.assert_array_equal(session.remove(1), plain.remove(1))
    assert session.rle() == plain.rle()
    what, logits, view, out = session.device_mask("here")
    assert (what, view.box, out) == ("mask", session.crop, "here")
    assert logits is session._history.now.logits
    with pytest.raises(InvalidInputError, match="an image in host memory"):
        session.to_json()


class Fixed:
    """A backend that gives the same logits whatever it is asked."""

    def __init__(self, logits: np.ndarray) -> None:
        self._logits = logits

    def decode(self, *_: Any) -> np.ndarray:
        return self._logits


def test_logits_are_kept_as_they_came_but_not_with_a_whole_batch() -> None:
    here, view = pixels.HostPixels(make_image(64, 32), (0.5, 0.5, 0.5), 0.5), View(Box(0, 0, 64, 32), 64)
    batch = np.random.default_rng(0).normal(0, 1, (3, 1, 64, 64)).astype(np.float32)
    alone, logits = batch[1:2].copy(), batch[1, 0].copy()
    for given, copied in ((batch[1:2], True), (alone, False)):
        kept = here.decode(Fixed(given), None, None, None, view)
        assert kept.nbytes == 4 * 64 * 64
        assert not kept.flags.writeable
        assert np.shares_memory(kept, given) != copied
        given[:] = 0 if copied else given
        np.testing.assert_array_equal(here.paint(kept, view).mask, logits[:32] > 0)
        probability = here.previous_mask(kept, view, view)
        np.testing.assert_allclose(probability[0, 0, :32], 1 / (1 + np.exp(-logits[:32])), atol=1e-6)
        assert not probability[0, 0, 32:].any()


@pytest.mark.parametrize(
    "error", [BackendUnavailableError("no kernels"), BackendError("no memory left")], ids=str
)
def test_an_image_that_a_gpu_has_no_place_for_stays_in_host_memory(
    monkeypatch: pytest.MonkeyPatch, error: BackendError
) -> None:
    def refused(*_: Any) -> None:
        raise error

    backend = make_segmenter().backend
    backend.takes_device_arrays = True
    monkeypatch.setattr("clickmask.backends.device_pixels.uploaded_pixels", refused)
    assert isinstance(pixels.pixels_of(make_image(30, 20), backend), pixels.HostPixels)


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


def test_a_tensor_that_records_gradients_is_known_though_its_property_raises() -> None:
    class Tensor:
        """As torch's: asking for one of the protocols raises."""

        __dlpack__ = None

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        @property
        def __cuda_array_interface__(self) -> None:
            raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")

    with pytest.raises(BackendUnavailableError, match="expected a CUDA device"):
        pixels.pixels_of(Tensor(), make_segmenter().backend)


def test_anything_else_is_told_what_an_image_is() -> None:
    with pytest.raises(InvalidInputError, match="image must be a NumPy array"):
        pixels.pixels_of([[0]], make_segmenter().backend)
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with pytest.raises(InvalidInputError, match=r"a torch tensor \(3, H, W\) with tensor.permute"):
        pixels.pixels_of(torch.zeros(3, 8, 8), make_segmenter().backend)
