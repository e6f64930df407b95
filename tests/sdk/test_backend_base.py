"""The base class, through backends that misbehave, and the backend that needs no runtime."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import DIFFUSION, prompt

from clickmask.backends.fake import FakeBackend, fake_manifest
from clickmask.errors import BackendError


class Misbehaving(FakeBackend):
    """Gives whatever ``answer`` returns."""

    def __init__(self, answer: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self.answer = answer

    def _run(self, *_: Any) -> dict[str, Any]:
        return self.answer()


def _fail() -> dict[str, Any]:
    raise RuntimeError("device lost")


class HidesWhatIsNotFinite(FakeBackend):
    """Pixel Diffusion of a bounded state: whatever comes in, what comes out is finite."""

    def __init__(self, value: float) -> None:
        super().__init__(fake_manifest(pixel_diffusion=DIFFUSION))
        self.value = value

    def _run(self, graph: str, _: dict[str, Any]) -> dict[str, Any]:
        if graph == "pixel_diffusion":
            return {"diffused_logits": np.zeros((1, 1, 64, 64), np.float32)}
        return {"logits": np.full((1, 1, 64, 64), self.value, np.float32)}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixel_diffusion_does_not_hide_what_is_not_finite(value: float) -> None:
    backend = HidesWhatIsNotFinite(value)

    with pytest.raises(BackendError, match="finite logits"):
        backend.decode(backend.encode(np.zeros((1, 3, 64, 64), np.float32)), np.zeros((1, 4, 3), np.float32))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda: {}, "does not do what the manifest says of 'network': no logits"),
        (lambda: {"logits": np.zeros((1, 1, 32, 32), np.float32)}, "logits: expected .*S = 64"),
        (lambda: {"logits": np.zeros((1, 1, 64, 64), np.float16)}, "got float16"),
        (lambda: {"logits": np.full((1, 1, 64, 64), np.nan, np.float32)}, "finite logits"),
        (_fail, "fake on cpu failed: device lost"),
    ],
    ids=["no_output", "shape", "dtype", "nan", "exception"],
)
def test_what_a_runtime_does_wrong_is_a_backend_error(answer: Any, message: str) -> None:
    backend = Misbehaving(answer)
    features = backend.encode(np.zeros((1, 3, 64, 64), np.float32))

    with pytest.raises(BackendError, match=message):
        backend.decode(features, np.zeros((1, 4, 3), np.float32))


def test_the_runtime_s_own_exception_is_the_cause() -> None:
    backend = Misbehaving(_fail)

    with pytest.raises(BackendError) as caught:
        backend.decode(backend.encode(np.zeros((1, 3, 64, 64), np.float32)), np.zeros((1, 4, 3), np.float32))

    assert isinstance(caught.value.__cause__, RuntimeError)


# The fake


def test_fake_example_of_the_document_runs() -> None:
    document = Path(__file__).parents[2] / "docs" / "bundle.md"
    _, _, rest = document.read_text(encoding="utf-8").partition("```python\n")
    example = rest.partition("```")[0]

    assert "FakeBackend(" in example
    exec(compile(example, str(document), "exec"), {})  # noqa: S102


def test_fake_counts_calls_from_many_threads() -> None:
    backend = FakeBackend()
    image, clicks, _ = prompt(1, 64)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: backend.decode(backend.encode(image), clicks), range(40)))

    assert (backend.encode_calls, backend.decode_calls) == (40, 40)


def test_fake_mask_is_the_disk_around_a_positive_click() -> None:
    backend = FakeBackend(radius=10)
    clicks = np.array([[[30, 20, 1], [-1, -1, -1]]], np.float32)

    logits = backend.decode(backend.encode(np.zeros((1, 3, 64, 64), np.float32)), clicks)

    rows, columns = np.nonzero(logits[0, 0] > 0)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (21, 39, 11, 29)


def test_fake_last_of_two_clicks_at_one_place_decides() -> None:
    backend = FakeBackend()
    features = backend.encode(np.zeros((1, 3, 64, 64), np.float32))

    erased = backend.decode(features, np.array([[[30, 20, 1], [30, 20, 0]]], np.float32))
    drawn = backend.decode(features, np.array([[[30, 20, 0], [30, 20, 1]]], np.float32))

    assert erased.max() < 0 < drawn[0, 0, 20, 30]


def test_fake_manifest_merges_the_keys_of_a_section() -> None:
    manifest = fake_manifest(input={"sizes": [64]}, threshold=0.3)

    assert (manifest.input.sizes, manifest.input.max_clicks, manifest.threshold) == ((64,), 32, 0.3)
