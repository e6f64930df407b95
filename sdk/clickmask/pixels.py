"""The pixels of a session's image, wherever they are: in host memory, or on the GPU of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import encode, paste
from .blend import blend_into
from .clicks import Click
from .errors import BackendError, InvalidInputError
from .image import as_rgb, image_sha256, image_size
from .mask_memory import MaskMemory
from .paste import Painted
from .view import Box, View

if TYPE_CHECKING:
    from .backends.base import Backend, Features
    from .backends.cuda_memory import DeviceArray


class Pixels(Protocol):
    """What a session needs of its image. Safe from many threads.

    Logits are where the image is, and only these methods look into them: what `decode` and `blend` give the
    others take, with the view that it is on.

    Attributes:
        image_size: (width, height) in pixels.
    """

    image_size: tuple[int, int]

    def crop(self, view: View) -> NDArray[np.float32] | DeviceArray:
        """The network's image, (1, 3, S, S) float32 RGB in [0, 1]; see `encode.image_tensor`."""
        ...

    def decode(
        self,
        backend: Backend,
        features: Features,
        clicks: NDArray[np.float32],
        previous: NDArray[np.float32] | DeviceArray | None,
        view: View,
    ) -> Any:
        """Logits of one image's features, which are of the view; see `Backend.decode`. `nbytes` is theirs."""
        ...

    def previous_mask(
        self, logits: Any | None, old: View | None, new: View
    ) -> NDArray[np.float32] | DeviceArray:
        """What the network is told on a new view: the probability that logits of an old one give.

        Returns:
            (1, 1, S, S) float32 in [0, 1]; zeros outside the old view, in the padding, and without one.
        """
        ...

    def blend(
        self,
        logits: Any,
        view: View,
        other: Any,
        seen: View,
        largest: float = 1.0,
        click: Click | None = None,
    ) -> Any:
        """The logits of a view with others blended in, as new ones; see `blend.blend_into`."""
        ...

    def probability(self, logits: Any, view: View) -> NDArray[np.float32]:
        """The probability that logits give, at the image's size in host memory; `paste.paste_probability`."""
        ...

    def paint(self, logits: Any, view: View) -> Painted:
        """The mask of some logits, in host memory; see `paste.paste_with_box`."""
        ...

    def find(self, logits: Any, view: View) -> Box | None:
        """That box alone; see `paste.paste_box`."""
        ...

    def device_mask(self, logits: Any, view: View, out: Any = None) -> Any:
        """The mask of some logits, in the memory of the GPU that the image is on."""
        ...


class HostPixels:
    """An image in host memory; the `Pixels` of a NumPy array. Logits are (S, S), with the padding."""

    def __init__(self, image: NDArray[np.uint8], pad: Sequence[float], threshold: float) -> None:
        """See `image.as_rgb`; pad: RGB of the padding, each in [0, 1]; threshold: of the mask, in (0, 1)."""
        self._image, self._pad, self._threshold = as_rgb(image), pad, threshold
        self.image_size = image_size(self._image)
        self._masks = MaskMemory((self.image_size[1], self.image_size[0]))

    def crop(self, view: View) -> NDArray[np.float32]:
        """See `Pixels`."""
        return encode.image_tensor(self._image, view, self._pad)

    def decode(
        self,
        backend: Backend,
        features: Features,
        clicks: NDArray[np.float32],
        previous: NDArray[np.float32] | DeviceArray | None,
        view: View,
    ) -> NDArray[np.float32]:
        """See `Pixels`; read-only."""
        del view
        logits = backend.decode(features, clicks, previous)
        plane: NDArray[np.float32] = logits[0, 0]
        if logits.base is not None:  # of a batch, say, all of which it would keep
            plane = plane.copy()
        plane.setflags(write=False)
        return plane

    def previous_mask(
        self, logits: NDArray[np.float32] | None, old: View | None, new: View
    ) -> NDArray[np.float32]:
        """See `Pixels`."""
        tensor, valid = encode.blank_previous(new)
        if logits is None or old is None:
            valid[:] = 0
        elif old == new:
            encode.sigmoid(_valid(logits, old), out=valid)
        else:
            encode.resample(encode.sigmoid(_valid(logits, old)), old, new, out=valid)
        return tensor

    def blend(
        self,
        logits: NDArray[np.float32],
        view: View,
        other: NDArray[np.float32],
        seen: View,
        largest: float = 1.0,
        click: Click | None = None,
    ) -> NDArray[np.float32]:
        """See `Pixels`; read-only."""
        out = logits.copy()
        blend_into(_valid(out, view), view, _valid(other, seen), seen, largest, click)
        out.setflags(write=False)
        return out

    def probability(self, logits: NDArray[np.float32], view: View) -> NDArray[np.float32]:
        """See `Pixels`."""
        return paste.paste_probability(_valid(logits, view), view, self.image_size)

    def paint(self, logits: NDArray[np.float32], view: View) -> Painted:
        """See `Pixels`."""
        return paste.paste_with_box(_valid(logits, view), view, self.image_size, self._threshold, self._masks)

    def find(self, logits: NDArray[np.float32], view: View) -> Box | None:
        """See `Pixels`."""
        return paste.paste_box(_valid(logits, view), view, self._threshold)

    def uploaded(self, backend: Backend) -> Pixels:
        """A copy on the GPU of a backend, where crops are cut and masks painted; without one, this one."""
        if not backend.takes_device_arrays:
            return self
        from .backends.device_pixels import uploaded_pixels

        try:
            return uploaded_pixels(self._image, backend)
        except BackendError as exc:  # no compiled kernels, no cuda-python, or no memory left
            import logging  # with all that it imports: 2 ms

            log = logging.getLogger("clickmask")
            log.info("crops are cut and masks painted on the CPU: %s", exc)
            return self

    def device_mask(self, logits: NDArray[np.float32], view: View, out: Any = None) -> Any:
        """Always an InvalidInputError."""
        del logits, view, out
        raise InvalidInputError(
            "expected a session whose image is on a GPU, but this one's is in host memory; take session.mask"
        )

    def sha256(self) -> str:
        """Of the RGB pixels; see `image.image_sha256`."""
        return image_sha256(self._image)


def _valid(logits: NDArray[np.float32], view: View) -> NDArray[np.float32]:
    """Without the padding: (h', w')."""
    width, height = view.valid_size
    return logits[:height, :width]


def pixels_of(image: Any, backend: Backend) -> Pixels:
    """An image as a session takes it.

    Args:
        image: as for `Segmenter.session`: a NumPy array, or one of PyCUDA, CuPy, torch or DLPack on the
            backend's GPU.
        backend: what will run the network.

    Raises:
        InvalidInputError: no such image.
        BackendUnavailableError: a GPU image where that cannot be used; the message says what to do.
    """
    from .backends.dlpack import in_host_memory

    # In this order: of a tensor that records gradients, torch has the first and raises at the second.
    exports = hasattr(image, "__dlpack__") or hasattr(image, "__cuda_array_interface__")
    if in_host_memory(image) or not exports:
        manifest = backend.manifest  # what is no image is told what one is
        return HostPixels(image, manifest.input.pad, manifest.threshold).uploaded(backend)
    from .backends.device_pixels import device_pixels

    return device_pixels(image, backend)


def sha256(pixels: Pixels) -> str:
    """Hash of the pixels of an image that came from host memory.

    Raises:
        InvalidInputError: it was on a GPU.
    """
    hashed = getattr(pixels, "sha256", None)
    if hashed is not None:
        return str(hashed())
    raise InvalidInputError(
        "expected an image in host memory, whose pixels a session's JSON names by their hash, but got one on "
        "a GPU; begin the session with a NumPy array"
    )
