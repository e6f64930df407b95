"""The pixels of a session's image, wherever they are: in host memory, or on the GPU of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import encode
from .backends.base import Backend
from .crop import View
from .errors import InvalidInputError
from .image import as_rgb, image_sha256, image_size


class Pixels(Protocol):
    """What a session needs of its image. Safe from many threads.

    Attributes:
        image_size: (width, height) in pixels.
    """

    image_size: tuple[int, int]

    def crop(self, view: View) -> NDArray[np.float32]:
        """The network's image, (1, 3, S, S) float32 RGB in [0, 1]; see `encode.image_tensor`."""
        ...

    def device_mask(self, logits: NDArray[np.float32], view: View, out: Any = None) -> Any:
        """The mask of some logits, (h', w'), of a view, in the memory of the GPU that the image is on."""
        ...


class HostPixels:
    """An image in host memory; the `Pixels` of a NumPy array."""

    def __init__(self, image: NDArray[np.uint8], pad: Sequence[float]) -> None:
        """See `image.as_rgb`; pad: RGB of the padding, each in [0, 1]."""
        self._image, self._pad = as_rgb(image), pad
        self.image_size = image_size(self._image)

    def crop(self, view: View) -> NDArray[np.float32]:
        """See `Pixels`."""
        return encode.image_tensor(self._image, view, self._pad)

    def device_mask(self, logits: NDArray[np.float32], view: View, out: Any = None) -> Any:
        """Always an InvalidInputError."""
        del logits, view, out
        raise InvalidInputError(
            "expected a session whose image is on a GPU, but this one's is in host memory; take session.mask"
        )

    def sha256(self) -> str:
        """Of the RGB pixels; see `image.image_sha256`."""
        return image_sha256(self._image)


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
    spec = backend.manifest.input
    on_device = hasattr(image, "__cuda_array_interface__") or hasattr(image, "__dlpack__")
    if isinstance(image, np.ndarray) or not on_device:
        return HostPixels(image, spec.pad)  # whose error names what it expects
    from .backends.device_pixels import device_pixels

    return device_pixels(image, backend.device, spec.pad, backend.manifest.threshold)


def sha256(pixels: Pixels) -> str:
    """Hash of the pixels of an image in host memory.

    Raises:
        InvalidInputError: it is on a GPU.
    """
    if isinstance(pixels, HostPixels):
        return pixels.sha256()
    raise InvalidInputError(
        "expected an image in host memory, whose pixels a session's JSON names by their hash, but got one on "
        "a GPU; begin the session with a NumPy array"
    )
