"""The text form of a session: what it was made of, so that replaying it gives the same masks.

A session's state follows from its image, bundle, options, initial mask and clicks; the text holds those (the
image and bundle by hash) and no pixels of the image. The undo history is not part of it. The mask is, for the
day when the bundle is another.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from .clicks import Click
from .crop import CropKind, CropPolicy
from .errors import BundleError, InvalidInputError
from .mask import Mask, Rle, rle_decode
from .strict_json import MAX_INTEGER, Node, parse
from .view import Coordinates

if TYPE_CHECKING:
    from .manifest import Manifest

FORMAT = "clickmask-session"
VERSION = 2  # options may gain keys without another one: `_begun_from_mask` reads none of them

_MOST = 1_000_000  # as in CropPolicy
_COUNTS = re.compile("[0-o]+")  # the characters of COCO's run lengths


@dataclass(frozen=True)
class BundleIdentity:
    """Which network and settings made a session. name: for people; sha256: hex, what is compared."""

    name: str
    sha256: str


@dataclass(frozen=True)
class SessionRecord:
    """Everything that a session's text holds.

    Attributes:
        image_size: (width, height) in pixels.
        image_sha256: hex digest of the RGB pixels.
        bundle: the bundle's identity.
        policy: the crop rules in force.
        size: fixed network input size, None to choose by crop.
        coordinates: the coordinate option in force.
        clicks: in order.
        initial: the mask the session started from, compressed COCO run lengths; None for none.
        mask: what it came to, likewise.
    """

    image_size: tuple[int, int]
    image_sha256: str
    bundle: BundleIdentity
    policy: CropPolicy
    size: int | None
    coordinates: Coordinates
    clicks: tuple[Click, ...]
    initial: Rle | None
    mask: Rle

    def to_json(self) -> str:
        """The record as JSON text."""
        return json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "image": {"size": list(self.image_size), "sha256": self.image_sha256},
                "bundle": dataclasses.asdict(self.bundle),
                "options": {
                    "crop": dataclasses.asdict(self.policy),
                    "size": self.size,
                    "coordinates": self.coordinates,
                },
                "clicks": [dataclasses.asdict(click) for click in self.clicks],
                "initial_mask": self.initial,
                "mask": self.mask,
            }
        )

    @classmethod
    def from_json(
        cls, text: str | bytes, bundle: BundleIdentity, manifest: Manifest, *, other_bundle: bool = False
    ) -> SessionRecord:
        """Read and check a record, which may come from a stranger, to go on with a bundle.

        Args:
            text: from ``to_json``.
            bundle: which bundle that is.
            manifest: what it holds.
            other_bundle: whether a record of another bundle is one that begins from its mask, with this
                bundle's options. Its own options and clicks are not read then: they need not be ones
                that this clickmask knows.

        Raises:
            InvalidInputError: not JSON, not a session, of another version or bundle, or a value that cannot
                be; the message names the place.
        """
        if not isinstance(text, (str, bytes)):
            raise InvalidInputError(
                f"a session is restored from its JSON text, but got {type(text).__name__}"
            )
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        try:
            root = parse(data, "session")
            made_with = _bundle(root)
            if made_with.sha256 == bundle.sha256:
                return _record(root, made_with)
            if other_bundle:
                return _begun_from_mask(root, bundle, manifest)
        except BundleError as error:  # strict_json's
            raise InvalidInputError(str(error)) from None
        go_on = ", or go on from the mask with other_bundle=True" if manifest.input.previous_mask else ""
        raise InvalidInputError(
            f"this session was made with the bundle {made_with.name!r:.80} ({made_with.sha256}), but the "
            f"segmenter holds {bundle.name!r:.80} ({bundle.sha256}); load that bundle{go_on}"
        )

    def check_image(self, image_size: tuple[int, int], image_sha256: str) -> None:
        """Make sure that the record belongs to an image.

        Raises:
            InvalidInputError: it was made on another.
        """
        if self.image_size != image_size:
            raise InvalidInputError(
                f"this session was made on an image of {_by(self.image_size)} pixels, but got one of "
                f"{_by(image_size)}; pass the original image"
            )
        if self.image_sha256 != image_sha256:
            raise InvalidInputError(
                f"this session was made on an image with sha256 {self.image_sha256}, but got one of the same "
                f"size with {image_sha256}; pass the original pixels (a JPEG saved again and BGR have others)"
            )

    def first_mask(self) -> Mask | None:
        """The mask to begin from, (H, W) bool; None for the untouched image, which an empty one is as well.

        Raises:
            InvalidInputError: `rle_decode`'s.
        """
        mask = None if self.initial is None else rle_decode(self.initial)
        return mask if mask is not None and mask.any() else None


def _bundle(root: Node) -> BundleIdentity:
    """Which bundle made the session; format and version first: one of another version may have other keys."""
    head = root.members()
    form, version = head.get("format"), head.get("version")
    if form is None or form.value != FORMAT:
        raise root.error(f'"format": "{FORMAT}", as Session.to_json() writes')
    if version is None or type(version.value) is not int or version.value != VERSION:
        raise (version or root).error(f'"version": {VERSION} (restore it with the clickmask that wrote it)')
    keys = root.fields(("bundle",), optional=head)["bundle"].fields(("name", "sha256"))
    return BundleIdentity(keys["name"].text(), keys["sha256"].sha256())


def _record(root: Node, bundle: BundleIdentity) -> SessionRecord:
    keys = root.fields(("format", "version", "image", "bundle", "options", "clicks", "initial_mask", "mask"))
    options = keys["options"].fields(("crop", "size", "coordinates"))
    (width, height), image_sha256 = _image(keys["image"])
    return SessionRecord(
        image_size=(width, height),
        image_sha256=image_sha256,
        bundle=bundle,
        policy=_policy(options["crop"]),
        size=None if options["size"].value is None else options["size"].integer(1, _MOST),
        coordinates=options["coordinates"].choice(get_args(Coordinates)),
        clicks=tuple(_click(node, width, height) for node in keys["clicks"].items()),
        initial=None if keys["initial_mask"].value is None else _rle(keys["initial_mask"], width, height),
        mask=_rle(keys["mask"], width, height),
    )


def _begun_from_mask(root: Node, bundle: BundleIdentity, manifest: Manifest) -> SessionRecord:
    keys = root.fields(("image", "mask"), optional=root.members())
    (width, height), image_sha256 = _image(keys["image"])
    mask = _rle(keys["mask"], width, height)
    return SessionRecord(
        image_size=(width, height),
        image_sha256=image_sha256,
        bundle=bundle,
        policy=manifest.crop,
        size=None,
        coordinates=manifest.input.coordinates,
        clicks=(),
        initial=mask,
        mask=mask,
    )


def _image(node: Node) -> tuple[tuple[int, int], str]:
    keys = node.fields(("size", "sha256"))
    return _pair(keys["size"]), keys["sha256"].sha256()


def _pair(node: Node) -> tuple[int, int]:
    first, second = (side.integer(1, MAX_INTEGER) for side in node.items(2, 2))
    return first, second


def _policy(node: Node) -> CropPolicy:
    keys = node.fields([field.name for field in dataclasses.fields(CropPolicy)])
    return CropPolicy(
        kind=keys["kind"].choice(get_args(CropKind)),
        start_click=keys["start_click"].integer(1, _MOST),
        expansion=keys["expansion"].number(1, _MOST),
        small_object_expansion=keys["small_object_expansion"].number(1, _MOST),
        min_size=keys["min_size"].integer(1, _MOST),
        min_fraction=keys["min_fraction"].number(0, 1),
        hysteresis_iou=keys["hysteresis_iou"].number(0, 1),
        close_above=None if keys["close_above"].value is None else keys["close_above"].number(0, _MOST),
    )


def _click(node: Node, width: int, height: int) -> Click:
    keys = node.fields(("x", "y", "positive"))
    x, y = keys["x"].number(-0.5, width - 0.5), keys["y"].number(-0.5, height - 0.5)
    return Click(x, y, keys["positive"].flag())


def _rle(node: Node, width: int, height: int) -> Rle:
    keys = node.fields(("size", "counts"))
    if _pair(keys["size"]) != (height, width):
        raise keys["size"].error(f"the image's {[height, width]}")
    counts, most = keys["counts"].value, 2 * width * height + 1  # no mask takes more characters
    if not isinstance(counts, str) or len(counts) > most or not _COUNTS.fullmatch(counts):
        raise keys["counts"].error(f"COCO's string of run lengths, at most {most} characters")
    return {"size": [height, width], "counts": counts}


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
