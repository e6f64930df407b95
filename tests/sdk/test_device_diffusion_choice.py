"""Where the network is on CUDA: which Pixel Diffusion runs there, and what is said where it is the graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clickmask.backends import device_diffusion, device_library, diffusion
from clickmask.backends.device_diffusion import Call, DeviceDiffusion
from clickmask.bundle import default_bundle_path, load_bundle
from clickmask.errors import BackendError, BackendUnavailableError
from clickmask.manifest import Manifest
from clickmask.native_diffusion import DiffusionOptions


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """The default bundle's, whose settings the kernel knows."""
    return load_bundle(default_bundle_path()).manifest


def library(weights: int = 64, planes: int = 8, status: int = 0) -> Any:
    """A library that does what it is told, in bytes a pixel; of no size above 512."""
    return SimpleNamespace(
        clickmask_cuda_affinity_bytes=lambda _, height, width: weights * height * width * (height <= 512),
        clickmask_cuda_scratch_bytes=lambda height, width: planes * height * width,
        clickmask_cuda_affinity=lambda *_: status,
        clickmask_cuda_diffuse=lambda *_: status,
    )


def sized(manifest: Manifest, *sizes: int) -> Manifest:
    return replace(manifest, input=replace(manifest.input, sizes=sizes))


@pytest.mark.parametrize("place", ["auto", "native"])
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_the_kernel_is_chosen_where_it_can_be_had(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, place: diffusion.Place, device: str
) -> None:
    monkeypatch.setattr(diffusion, "diffusion_library", library)
    choice = diffusion.choose(sized(manifest, 384, 512), place, device)

    assert str(choice) == "native (CUDA)"
    assert choice.kernel is None
    assert choice.device_kernel is not None
    assert choice.device_kernel.scratch_bytes(384) == 72 * 384 * 384
    assert [choice.opens(graph) for graph in ("decoder", "pixel_diffusion")] == [True, False]


def test_the_graph_is_run_where_it_is_asked_for(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion, "diffusion_library", library)
    choice = diffusion.choose(manifest, "graph", "cuda")

    assert (str(choice), choice.device_kernel) == ("graph (asked for)", None)


def refusal(manifest: Manifest) -> str:
    """Of "native", whose reason the graph has, too, where the choice is free."""
    with pytest.raises(
        BackendUnavailableError, match="expected to run Pixel Diffusion in the native"
    ) as caught:
        diffusion.choose(manifest, "native", "cuda")
    choice = diffusion.choose(manifest, "auto", "cuda")
    assert (choice.place, choice.device_kernel) == ("graph", None)
    assert choice.reason in str(caught.value)
    return choice.reason


def test_without_the_library_the_command_that_builds_it_is_named(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(device_library, "_LIBRARY", tmp_path / "none.so")
    device_diffusion.diffusion_library.cache_clear()

    reason = refusal(manifest)

    assert f"in {tmp_path}, got none; " in reason
    assert "cmake --install build/native --prefix sdk/clickmask --component cuda" in reason


def test_a_library_that_does_not_load_leaves_the_graph(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "junk.so").write_bytes(b"junk")
    monkeypatch.setattr(device_library, "_LIBRARY", tmp_path / "junk.so")
    device_diffusion.diffusion_library.cache_clear()

    assert "junk.so does not load" in refusal(manifest)


def test_settings_and_sizes_that_it_does_not_do_leave_the_graph(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusion, "diffusion_library", library)
    spec = manifest.pixel_diffusion
    assert spec is not None

    assert "got a refusal of [608]" in refusal(sized(manifest, 384, 608))
    monkeypatch.setattr(diffusion, "diffusion_library", lambda: library(planes=0))
    assert "got a refusal of [384]" in refusal(sized(manifest, 384))
    unknown = replace(spec, options={**spec.options, "colours": "lab"})
    assert "unknown ['colours']" in refusal(replace(manifest, pixel_diffusion=unknown))
    far = replace(spec, dilations=(500,))
    assert "distances up to 128 pixels" in refusal(replace(manifest, pixel_diffusion=far))


def test_a_bundle_without_pixel_diffusion_has_none(manifest: Manifest) -> None:
    graphs = {name: graph for name, graph in manifest.graphs.items() if name != "pixel_diffusion"}
    without = replace(manifest, graphs=graphs, pixel_diffusion=None)

    assert str(diffusion.choose(without, "auto", "cuda")) == "none (the bundle has no Pixel Diffusion)"
    with pytest.raises(BackendUnavailableError, match="the bundle has no Pixel Diffusion"):
        diffusion.choose(without, "native", "cuda")


@pytest.mark.parametrize(
    ("status", "message"), [(1209, "failed with CUDA error 209"), (2, r"refused an argument \(2\)")]
)
def test_a_launch_that_fails_says_so(manifest: Manifest, status: int, message: str) -> None:
    assert manifest.pixel_diffusion is not None
    kernel = DeviceDiffusion(library(status=status), DiffusionOptions.from_spec(manifest.pixel_diffusion))

    with pytest.raises(BackendError, match=f"device Pixel Diffusion: .*{message}"):
        kernel.run(Call(1, 2, 3, 4, 5, batch=1, slots=4, size=64), 0)
