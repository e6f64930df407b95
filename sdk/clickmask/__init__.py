"""clickmask: click on an object, get its mask.

>>> import clickmask
>>> segmenter = clickmask.Segmenter.load()        # doctest: +SKIP
>>> session = segmenter.session(image)            # doctest: +SKIP
>>> mask = session.click(x=120, y=80)             # doctest: +SKIP

Importing needs NumPy and OpenCV only; a runtime is imported when a bundle is loaded on it.
"""

from .clicks import Click
from .crop import CropPolicy
from .errors import (
    BackendError,
    BackendUnavailableError,
    BundleError,
    ClickmaskError,
    InvalidInputError,
    SessionStateError,
)
from .mask import rle_decode
from .outlines import Region
from .segmenter import Segmenter
from .session import Session
from .view import Box

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "BackendUnavailableError",
    "Box",
    "BundleError",
    "Click",
    "ClickmaskError",
    "CropPolicy",
    "InvalidInputError",
    "Region",
    "Segmenter",
    "Session",
    "SessionStateError",
    "__version__",
    "rle_decode",
]
