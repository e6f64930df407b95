"""Segmenter: a loaded engine bundle, shared by any number of sessions."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .clicks import Click, as_clicks
from .crop import CropPolicy
from .encoded_crops import CROPS_BYTES, EncodedCrops
from .errors import InvalidInputError
from .mask import Mask
from .prefetch import Prefetcher
from .session import Session
from .view import Coordinates, SizeRule, choose_size

if TYPE_CHECKING:
    from .backends.base import Backend
    from .backends.diffusion import Place
    from .bundle import Bundle
    from .replay import BundleIdentity


class Segmenter:
    """A network ready to run. It knows no image: one serves many sessions, from many threads at once.

    Attributes:
        bundle: what was loaded; `bundle.manifest` tells its sizes, crop policy, threshold and momentum.
        backend: what runs it; `name`, `device` and `reason` tell what was chosen and why.
        prefetch: whether sessions encode ahead unless told otherwise.
        crops: what all sessions share of encoded crops; `nbytes` of its `budget` are in use.
        prefetcher: the thread that encodes ahead.
        size_rule: chooses a view's input size where a session fixes none; studies try others.

    Example:
        >>> segmenter = Segmenter.load()                     # doctest: +SKIP
        >>> session = segmenter.session(image)               # doctest: +SKIP
        >>> mask = session.click(x=120, y=80)                # doctest: +SKIP
        >>> mask = session.click(40, 60, positive=False)     # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        prefetch: bool = False,
        crops: EncodedCrops | None = None,
        size_rule: SizeRule = choose_size,
    ) -> None:
        """Join a bundle and an open backend; applications call `load`, which explains the rest."""
        self.bundle = bundle
        self.backend = backend
        self.prefetch = prefetch
        self.crops = crops or EncodedCrops()
        self.prefetcher = Prefetcher()
        self.size_rule = size_rule
        weakref.finalize(self, self.prefetcher.stop).atexit = False

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        backend: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        pixel_diffusion: Place = "auto",
        *,
        prefetch: bool = True,
        crops_bytes: int = CROPS_BYTES,
        max_batch: int = 1,
        max_delay_ms: float = 10.0,
        trust_host_code: bool = False,
    ) -> Segmenter:
        """Load an engine bundle.

        Args:
            path: the bundle's folder; None for the one that ships with clickmask.
            backend: "auto", or the runtime to use: "onnxruntime", "torchscript", "tensorrt". An explicit one
                that cannot be had is an error.
            device: "auto", "cpu", "cuda" or "cuda:N", the graphics card number N.
            threads: CPU threads of the runtime; None leaves it to the runtime.
            pixel_diffusion: "graph", the bundle's own; "native", the fused kernel for the device; or "auto",
                the kernel where it can be had. Both give the same masks; `backend.pixel_diffusion` tells
                which it is, and `backend.pixel_diffusion_reason` why.
            prefetch: encode ahead, on one background thread: the image when a session begins, and after each
                click the crop that the next one will want. The masks are the same without.
            crops_bytes: how much memory encoded crops may take, of all sessions together; at least 0. The
                newest one is kept even if it has more.
            max_batch: most clicks of different sessions that run as one batch (`batching.batched`); 1 for no
                batches.
            max_delay_ms: how long a click may wait for others while another batch is running; a click that is
                alone never waits. About the time of one batch is a good value.
            trust_host_code: load TensorRT plans that carry a lean runtime, which is code that this process
                runs: only for bundles whose maker is trusted.

        Raises:
            BundleError: no bundle there, or a damaged one.
            BackendUnavailableError: the wanted runtime, device or kernel is not usable here; the message
                says what is missing.
            InvalidInputError: an option is none of the above.
        """
        # What only an open bundle needs: importing clickmask takes little more than NumPy and OpenCV do.
        from .backends import open_backend
        from .batching import batched, check_batching
        from .bundle import default_bundle_path, load_bundle

        crops = EncodedCrops(crops_bytes)
        check_batching(max_batch, max_delay_ms)
        bundle = load_bundle(default_bundle_path() if path is None else path)
        opened = open_backend(
            bundle, backend, device, threads, pixel_diffusion, trust_host_code=trust_host_code
        )
        return cls(bundle, batched(opened, max_batch, max_delay_ms), prefetch, crops)

    def session(
        self,
        image: NDArray[np.uint8],
        crop_policy: str | CropPolicy | None = None,
        size: int | None = None,
        coordinates: Coordinates | None = None,
        *,
        prefetch: bool | None = None,
    ) -> Session:
        """Begin the annotation of an image.

        Args:
            image: (H, W, 3) RGB, (H, W, 4) RGBA (alpha is dropped) or (H, W) grey; uint8, [0, 255]; any
                strides. It is copied only where it is not C-contiguous (H, W, 3): do not change it while the
                session lives. An array of PyCUDA, CuPy, torch or DLPack on the backend's GPU stays there
                and is never copied; such a session has no JSON.
            crop_policy: "paper", "fbrs", "stable", "global_to_local" or "none" with the numbers of their
                source (`CropPolicy.named`), or a `CropPolicy`; None for the bundle's own.
            size: one of the bundle's input sizes for every click; None chooses among them by the crop's long
                side.
            coordinates: "half_pixel" or "public" (docs/coordinates.md); None for the bundle's own.
            prefetch: whether to encode ahead in the background; None for what `load` was told.

        Raises:
            InvalidInputError: not such an image or option.
        """
        return Session(self, image, crop_policy, size, coordinates, prefetch=prefetch)

    def predict(self, image: NDArray[np.uint8], clicks: Iterable[Click | tuple[float, float, bool]]) -> Mask:
        """The mask of some clicks, without a session to keep.

        The clicks are made one after the other, so the mask is the one that a session would show; each costs
        what it does there: one run of the network, or two where it is looked at closely.

        Args:
            image: as for `session`.
            clicks: at least one `Click` or (x, y, positive), in image pixels, in order.

        Returns:
            (H, W) bool, read-only.

        Raises:
            InvalidInputError: not such an image or clicks.
            SessionStateError: more clicks than the bundle takes.
            BackendError: the runtime failed.
        """
        points = as_clicks(clicks)
        if not points:
            raise InvalidInputError("predict needs at least one click, but got none")
        return self.session(image, prefetch=False).replay(points)

    def warmup(self) -> None:
        """Run each network once with each shape that a click can give it (`Backend.warmup`).

        Afterwards no click pays for a runtime's first use.
        """
        self.backend.warmup()

    @cached_property
    def identity(self) -> BundleIdentity:
        """What decides the masks: everything in the manifest but the artefacts and the date.

        So a bundle that gains an engine for another machine stays the same, and a session moves between them.
        """
        import hashlib
        import json

        from .replay import BundleIdentity

        document = json.loads(self.bundle.manifest.to_json())
        content = {key: value for key, value in document.items() if key not in ("artefacts", "created")}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return BundleIdentity(self.bundle.manifest.name, hashlib.sha256(text.encode()).hexdigest())

    def close(self) -> None:
        """Give the memory of runtime and encoded crops back; the next clicks raise BackendError.

        Sessions keep their masks. May be repeated. A click under way in another thread is not waited for; a
        process that ends while a runtime works in one of its daemon threads may crash, so join them first.
        """
        self.prefetcher.close()
        self.backend.close()
        self.crops.clear()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Segmenter({self.bundle.manifest.name!r}, {self.backend.name} on {self.backend.device})"
