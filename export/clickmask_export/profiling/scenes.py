"""What is clicked on: a photograph with clicks, and outlines of objects for a robot that clicks for a person.

The outlines are coarse, drawn by hand on scikit-image's photographs: they need only make a robot correct
what a person would. No figure here is one of accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from clickmask.clicks import Click
from clickmask_export.errors import BuildError
from clickmask_export.parity_cases import load_photo

Image = NDArray[np.uint8]

# The second click zooms in on the helmet, at every input size; the others find that crop encoded.
_SCRIPT = (
    *((0.82, 0.60, True), (0.84, 0.63, True), (0.80, 0.57, True)),
    *((0.76, 0.53, False), (0.85, 0.58, True), (0.92, 0.68, False)),
)


def script(photo: Image) -> tuple[Click, ...]:
    """Six clicks on a photograph (H, W, 3): on and around the helmet beside scikit-image's astronaut."""
    height, width = photo.shape[:2]
    return tuple(Click(round(x * width), round(y * height), positive) for x, y, positive in _SCRIPT)


def photograph(path: Path | None, megapixels: float | None = None) -> Image:
    """A photograph, (H, W, 3) uint8 RGB; None for scikit-image's astronaut.

    Args:
        path: a file.
        megapixels: what it is enlarged to, as 4:3; None leaves it.

    Raises:
        BuildError: there is none.
    """
    photo = load_photo(path)
    if megapixels is None:
        return photo
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    return np.asarray(cv2.resize(photo, (round(height * 4 / 3), height), interpolation=cv2.INTER_CUBIC))


@dataclass(frozen=True)
class Scene:
    """A photograph, (H, W, 3) uint8 RGB, and the object to cut out of it, (H, W) bool."""

    name: str
    photo: Image
    truth: NDArray[np.bool_]


def scenes() -> list[Scene]:
    """Twelve objects on six photographs.

    Raises:
        BuildError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError:
        raise BuildError(
            'the objects to cut out are in scikit-image\'s photographs: pip install "clickmask[examples]"'
        ) from None

    found = []
    for name, outlines in _OUTLINES.items():
        photo = np.asarray(data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)())
        if photo.ndim == 2:
            photo = cv2.cvtColor(photo, cv2.COLOR_GRAY2RGB)
        for label, points in outlines.items():
            mask = np.zeros(photo.shape[:2], np.uint8)
            cv2.fillPoly(mask, [np.asarray(points, np.int32).reshape(-1, 2)], 1)
            found.append(Scene(label, photo, mask.astype(np.bool_)))
    return found


def _ellipse(x: float, y: float, across: float, down: float) -> list[tuple[int, int]]:
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return [(round(x + across * np.cos(a)), round(y + down * np.sin(a))) for a in angles]


_OUTLINES = {
    "astronaut": {
        "person": [
            *((228, 14), (290, 34), (304, 90), (268, 150), (305, 220), (350, 285), (362, 350), (300, 390)),
            *((278, 440), (280, 511), (40, 511), (22, 400), (40, 290), (113, 200), (145, 155), (180, 135)),
            *((152, 75), (180, 36)),
        ],
        "helmet": _ellipse(392, 438, 110, 95),
        "shuttle": [(410, 0), (450, 40), (458, 225), (375, 235), (355, 220), (385, 150), (395, 75)],
    },
    "coffee": {
        "saucer": _ellipse(282, 212, 201, 174),
        "cup": [
            *((185, 55), (225, 25), (330, 20), (400, 60), (405, 110), (375, 215), (300, 275), (235, 300)),
            *((210, 290), (220, 240), (190, 160)),
        ],
        "spoon": [
            *((410, 68), (424, 74), (418, 95), (405, 130), (388, 200), (384, 220), (400, 245), (405, 275)),
            *((395, 305), (370, 324), (345, 322), (328, 300), (326, 275), (340, 255), (362, 240), (376, 225)),
            *((380, 200), (398, 130), (405, 100)),
        ],
    },
    "motorcycle": {
        "motorcycle": [
            *((125, 160), (250, 195), (400, 170), (455, 130), (500, 75), (560, 120), (545, 200), (640, 290)),
            *((680, 380), (655, 445), (600, 440), (520, 360), (450, 390), (350, 370), (250, 395), (160, 390)),
            *((120, 310), (140, 250), (95, 215)),
        ],
        "front wheel": _ellipse(598, 372, 82, 80),
        "rear wheel": _ellipse(200, 320, 78, 83),
    },
    "rocket": {"rocket": [(312, 150), (322, 125), (333, 150), (337, 405), (308, 405)]},
    "camera": {
        "cameraman": [
            *((200, 64), (234, 75), (270, 112), (266, 132), (256, 141), (253, 166), (241, 188), (206, 197)),
            *((241, 216), (275, 209), (294, 200), (325, 169), (332, 188), (312, 219), (294, 241), (304, 272)),
            *((247, 312), (206, 294), (141, 381), (149, 437), (150, 511), (0, 511), (0, 256), (37, 194)),
            *((81, 134), (134, 119), (156, 106), (172, 78)),
        ],
    },
    "coins": {"coin": _ellipse(346, 186, 31, 31)},
}
