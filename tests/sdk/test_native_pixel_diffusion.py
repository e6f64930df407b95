"""The default engine with the fused Pixel Diffusion in the place of its graph."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import DIFFUSION, artefact, change_manifest, file_entry, make_bundle, prompt, read_manifest
from skimage import data

from clickmask import Segmenter, Session, cli, native_library
from clickmask.backends import diffusion, open_backend
from clickmask.backends.diffusion import Place
from clickmask.bundle import default_bundle_path, load_bundle
from clickmask.doctor import examine
from clickmask.errors import BackendError, BackendUnavailableError, InvalidInputError

CLICKS = [
    (230, 110, True),
    (170, 330, True),
    (400, 450, False),
    (300, 420, True),
    (60, 60, False),
    (250, 60, True),
]
OPTIONS = {
    "click_map": "disk",
    "click_map_size": 5.0,
    "affinity": "paper",
    "deviation": "unbiased_36",
    "output": "logits",
}


@pytest.fixture(scope="module", autouse=True)
def library() -> None:
    """The kernel's library; where it was not built these tests skip, or fail if it was asked for."""
    if reason := native_library.unavailable_because():
        if os.environ.get("CLICKMASK_NATIVE") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def native() -> Iterator[Segmenter]:
    with Segmenter.load(device="cpu", pixel_diffusion="native") as segmenter:
        yield segmenter


@pytest.fixture(scope="module")
def graph() -> Iterator[Segmenter]:
    with Segmenter.load(device="cpu", pixel_diffusion="graph") as segmenter:
        yield segmenter


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where the library was not built."""
    monkeypatch.setattr(diffusion, "unavailable_because", lambda: "expected a library, got none.")


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    """Both forms round: a pixel on the very edge may change sides."""
    assert expected.any()
    assert not expected.all()
    assert (got != expected).sum() <= max(4, 1e-5 * expected.size)


def clicked(segmenter: Segmenter, clicks: list[tuple[int, int, bool]] = CLICKS, **options: Any) -> Session:
    session = segmenter.session(data.astronaut(), **options)
    for x, y, positive in clicks:
        session.click(x, y, positive)
    return session


# The same masks


@pytest.mark.parametrize("size", [None, 384, 608])
def test_masks_of_six_clicks(native: Segmenter, graph: Segmenter, size: int | None) -> None:
    sessions = [segmenter.session(data.astronaut(), size=size) for segmenter in (native, graph)]
    for click in CLICKS:
        assert_same(*(session.click(*click) for session in sessions))
    first, second = (session.probability for session in sessions)
    np.testing.assert_allclose(first, second, atol=2e-3)


@pytest.mark.parametrize("policy", ["paper", "global_to_local", "none"])
def test_masks_under_other_crop_policies(native: Segmenter, graph: Segmenter, policy: str) -> None:
    assert_same(*(clicked(s, CLICKS[:3], crop_policy=policy).mask for s in (native, graph)))


def test_undo_redo_and_fork(native: Segmenter, graph: Segmenter) -> None:
    ours, theirs = (clicked(segmenter) for segmenter in (native, graph))
    whole = ours.probability.tobytes()
    for session in (ours, theirs):
        session.undo()
        session.undo()
    assert_same(ours.mask, theirs.mask)
    forks = [session.fork() for session in (ours, theirs)]
    assert_same(*(fork.click(120, 300, False) for fork in forks))
    ours.redo()
    ours.redo()
    assert ours.probability.tobytes() == whole


def test_replay_is_bit_identical(native: Segmenter) -> None:
    session = clicked(native)
    session.remove(1)
    with Segmenter.load(device="cpu", pixel_diffusion="native") as fresh:
        again = Session.from_json(fresh, data.astronaut(), session.to_json())
    assert again.probability.tobytes() == session.probability.tobytes()


def test_sessions_in_two_threads_do_not_meet(native: Segmenter) -> None:
    orders = [CLICKS[:3], CLICKS[3:]]
    alone = [clicked(native, order).probability.tobytes() for order in orders]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda order: clicked(native, order).probability.tobytes(), orders * 2))
    assert together == alone * 2


def test_a_batch_is_its_images_one_by_one(native: Segmenter) -> None:
    image, clicks, mask = prompt(2, 384)
    backend = native.backend
    both = backend.decode(backend.encode(image), clicks, mask)
    for i in range(2):
        one = backend.decode(backend.encode(image[i : i + 1]), clicks[i : i + 1], mask[i : i + 1])
        # As confidences: near saturation the next float32 of one is a logit's 1e-3 away.
        np.testing.assert_allclose(np.tanh(both[i : i + 1] / 2), np.tanh(one / 2), rtol=0, atol=1e-5)


# Which one runs


def test_the_kernel_is_chosen_where_it_can_be_had(graph: Segmenter) -> None:
    backend = open_backend(load_bundle(default_bundle_path()), device="cpu")
    assert (backend.pixel_diffusion, backend.pixel_diffusion_reason) == (
        "native",
        native_library.instruction_sets()[0],
    )
    assert (graph.backend.pixel_diffusion, graph.backend.pixel_diffusion_reason) == ("graph", "asked for")


@pytest.mark.parametrize("backend", ["onnxruntime", "torchscript"])
@pytest.mark.parametrize("place", ["graph", "native"])
def test_the_graph_is_opened_only_where_it_runs(tmp_path: Path, backend: str, place: Place) -> None:
    if backend == "torchscript":
        pytest.importorskip("torch", reason="TorchScript needs torch")
    folder = make_bundle(tmp_path, backends=(backend,), pixel_diffusion=DIFFUSION | {"options": OPTIONS})
    path = next(folder.glob("pixel_diffusion.*"))
    path.write_bytes(b"no graph")  # whoever opens it fails
    files = read_manifest(folder)["artefacts"][0]["files"] | {"pixel_diffusion": file_entry(path)}
    change_manifest(folder, artefacts=[artefact(backend, files)])
    bundle = load_bundle(folder)

    if place == "graph":
        with pytest.raises(BackendError, match=f"does not load '{path.name}'"):
            open_backend(bundle, backend, "cpu", pixel_diffusion=place)
    else:
        opened = open_backend(bundle, backend, "cpu", threads=1, pixel_diffusion=place)
        image, clicks, mask = prompt(2, 64)
        assert np.isfinite(opened.decode(opened.encode(image), clicks, mask)).all()


@pytest.mark.usefixtures("no_library")
def test_without_the_library_the_graph_runs(graph: Segmenter) -> None:
    with Segmenter.load(device="cpu") as segmenter:
        assert segmenter.backend.pixel_diffusion == "graph"
        assert segmenter.backend.pixel_diffusion_reason == "expected a library, got none"
        assert clicked(segmenter).probability.tobytes() == clicked(graph).probability.tobytes()


@pytest.mark.usefixtures("no_library")
def test_native_without_the_library_is_an_error_that_says_why() -> None:
    with pytest.raises(
        BackendUnavailableError, match=r"native kernel, got: expected a library, got none; or"
    ):
        Segmenter.load(device="cpu", pixel_diffusion="native")


def native_error(folder: Path) -> str:
    with pytest.raises(BackendUnavailableError) as caught:
        open_backend(load_bundle(folder), device="cpu", pixel_diffusion="native")
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (None, "the bundle has no Pixel Diffusion"),
        (DIFFUSION, "missing ['affinity', 'click_map', 'click_map_size', 'deviation', 'output']"),
        (DIFFUSION | {"options": OPTIONS | {"colours": "lab"}}, "unknown ['colours']"),
        (DIFFUSION | {"options": OPTIONS | {"iterations": 0, "norm": "x"}}, "unknown ['iterations', 'norm']"),
        (DIFFUSION | {"options": OPTIONS | {"output": 1}}, "expected a string as output, got 1"),
        (DIFFUSION | {"options": OPTIONS | {"output": "mask"}}, "output: expected one of logits, state, got"),
        (DIFFUSION | {"options": OPTIONS, "dilations": [500]}, "distances up to 128 pixels"),
    ],
    ids=["none", "missing", "unknown", "the_manifests_own", "type", "choice", "dilations"],
)
def test_bundles_that_the_kernel_does_not_serve(
    tmp_path: Path, settings: dict[str, Any] | None, reason: str
) -> None:
    folder = make_bundle(tmp_path, pixel_diffusion=settings)

    assert reason in native_error(folder)
    opened = open_backend(load_bundle(folder), device="cpu")
    assert opened.pixel_diffusion == ("none" if settings is None else "graph")
    assert reason in opened.pixel_diffusion_reason


def test_a_place_that_is_none_is_refused() -> None:
    with pytest.raises(
        InvalidInputError, match="pixel_diffusion: expected one of auto, graph, native, got 'c'"
    ):
        Segmenter.load(pixel_diffusion="c")  # type: ignore[arg-type]


def test_doctor_and_info_name_the_instruction_set(capsys: pytest.CaptureFixture[str]) -> None:
    named = f"native ({native_library.instruction_sets()[0]})"
    report = examine(default_bundle_path())

    assert any(f.status == "ok" and f"Pixel Diffusion: {named}" in f.text for f in report.findings)
    assert cli.main(["info", "default"]) == 0
    assert f"10 iterations; on a CPU of this machine: {named}" in capsys.readouterr().out


# What goes wrong


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["graph", "native"])
def test_logits_that_are_not_finite_are_an_error(tmp_path: Path, value: float, place: Place) -> None:
    folder = make_bundle(tmp_path, bias=value, pixel_diffusion=DIFFUSION | {"options": OPTIONS})
    backend = open_backend(load_bundle(folder), device="cpu", pixel_diffusion=place)
    image, clicks, mask = prompt(1, 64)

    with pytest.raises(BackendError, match="expected finite logits"):
        backend.decode(backend.encode(image), clicks, mask)


def test_features_of_a_backend_without_the_kernel_are_refused(native: Segmenter, graph: Segmenter) -> None:
    features = graph.backend.encode(np.zeros((1, 3, 384, 384), np.float32))

    with pytest.raises(InvalidInputError, match=r"features: expected affinities of 1 image\(s\).* got 0"):
        native.backend.decode(features, np.float32([[[1, 1, 1]]]))


def test_calls_after_close_are_refused() -> None:
    backend = open_backend(load_bundle(default_bundle_path()), device="cpu", pixel_diffusion="native")
    features = backend.encode(np.zeros((1, 3, 384, 384), np.float32))
    backend.close()

    with pytest.raises(BackendError, match="after close"):
        backend.decode(features, np.float32([[[1, 1, 1]]]))
