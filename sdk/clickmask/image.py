"""Images as every other module expects them: (H, W, 3) uint8 RGB, C-contiguous."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError

MAX_SIDE = 1 << 20
"""Most pixels of an image along a side: what the native library counts with."""

_EXPECTED = "image must be a NumPy array of shape (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey, dtype uint8"


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bring an image to (H, W, 3) RGB.

    Args:
        image: (H, W, 3) RGB, (H, W, 4) RGBA, (H, W) or (H, W, 1) grey; uint8, [0, 255]; any strides.
            The alpha channel is dropped, not blended. OpenCV reads BGR: convert it with
            `cv2.cvtColor(image, cv2.COLOR_BGR2RGB)`.

    Returns:
        (H, W, 3) uint8 RGB, C-contiguous: **the same memory** where the image already is so, else a copy.

    Raises:
        InvalidInputError: another type, dtype or shape, or no pixels; the message names the conversion.
    """
    array = _checked(image)
    if array.ndim == 2 or array.shape[2] == 1:
        grey = np.ascontiguousarray(array.reshape(array.shape[:2]))
        return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), dtype=np.uint8)
    if array.shape[2] == 4 and array.strides[1:] == (4, 1):
        return np.asarray(cv2.cvtColor(array, cv2.COLOR_RGBA2RGB), dtype=np.uint8)
    if array.strides[1:] == (3, -1):  # OpenCV's BGR seen backwards
        return np.asarray(cv2.cvtColor(array[:, :, ::-1], cv2.COLOR_BGR2RGB), dtype=np.uint8)
    return np.ascontiguousarray(array[:, :, :3])


def image_size(image: NDArray[np.uint8]) -> tuple[int, int]:
    """(width, height) in pixels of an (H, W, 3) uint8 image."""
    return int(image.shape[1]), int(image.shape[0])


def image_sha256(image: NDArray[np.uint8]) -> str:
    """Hex SHA-256 of the pixels of an (H, W, 3) uint8 C-contiguous image, row by row, without the size."""
    import hashlib  # OpenSSL, slow to load

    return hashlib.sha256(image.data).hexdigest()


def _checked(image: Any) -> NDArray[np.uint8]:
    if not isinstance(image, np.ndarray):
        raise InvalidInputError(
            f"{_EXPECTED}, but got {type(image).__module__}.{type(image).__name__}; "
            'a PIL image converts with numpy.asarray(image.convert("RGB")), '
            "a torch tensor (3, H, W) with tensor.permute(1, 2, 0).cpu().numpy()"
        )
    if image.dtype != np.uint8:
        raise InvalidInputError(f"{_EXPECTED}, but got dtype {image.dtype}; {_dtype_hint(image.dtype)}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise InvalidInputError(f"{_EXPECTED}, but got shape {image.shape}; {_shape_hint(image.shape)}")
    if image.size == 0:
        raise InvalidInputError(f"{_EXPECTED} with at least one pixel, but got shape {image.shape}")
    if max(image.shape[:2]) > MAX_SIDE:
        raise InvalidInputError(
            f"{_EXPECTED} with at most {MAX_SIDE} pixels a side, but got shape {image.shape}; cut it up"
        )
    return image


def _dtype_hint(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "f":
        return "if it is in [0, 1], convert with (image * 255).round().astype(numpy.uint8)"
    if dtype == np.uint16:
        return (
            "scale the levels low to high that matter to 8 bits, for example with "
            "numpy.interp(image, (low, high), (0, 255)).astype(numpy.uint8)"
        )
    if dtype == np.bool_:
        return "convert with image.astype(numpy.uint8) * 255"
    return "if its values are in [0, 255], convert with image.astype(numpy.uint8)"


def _shape_hint(shape: tuple[int, ...]) -> str:
    if len(shape) == 4:
        return "pass one image at a time, for example batch[0]"
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return "channels come last: convert with image.transpose(1, 2, 0)"
    return "channels must be the last of two or three axes"
