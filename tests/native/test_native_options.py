"""What of the binding needs no library: reading a manifest's options, and being without the library."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from clickmask import native_diffusion, native_library
from clickmask.errors import BackendUnavailableError, InvalidInputError
from clickmask.manifest import PixelDiffusionSpec
from clickmask.native_diffusion import Affinity, DiffusionOptions
from clickmask_export.recipes import describe_diffusion
from clickmask_models.pixel_diffusion import PixelDiffusionConfig
from clickmask_models.presets import PRESETS

CONFIGS = {name: preset.network.pixel_diffusion for name, preset in PRESETS.items()}


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config is not None])
def test_the_options_of_every_preset_survive_the_manifest(name):
    config = CONFIGS[name]
    options = DiffusionOptions.from_spec(describe_diffusion(config))
    for field in dataclasses.fields(PixelDiffusionConfig):
        if field.name != "click_map":
            assert getattr(options, field.name) == getattr(config, field.name), field.name
    assert (options.click_map, options.click_map_size) == (config.click_map.kind, config.click_map.size)
    assert options.problem() is None


def test_the_library_has_every_choice_of_the_configuration():
    for name, allowed in native_diffusion._CHOICES.items():
        for value in allowed:
            if name == "click_map":
                continue
            assert getattr(dataclasses.replace(PixelDiffusionConfig(), **{name: value}), name) == value


def spec(**options):
    named = {"click_map": "disk", "click_map_size": 5.0, "affinity": "paper", "deviation": "unbiased_36"}
    return PixelDiffusionSpec(10, (1, 2), 1.0, 1e-4, "tanh_half", {**named, **options})


def test_options_that_the_library_does_not_know_are_refused():
    assert DiffusionOptions.from_spec(spec(output="state")).cutoff is None
    with pytest.raises(InvalidInputError, match=r"missing \['output'\]"):
        DiffusionOptions.from_spec(spec())
    with pytest.raises(InvalidInputError, match=r"unknown \['colours'\]"):
        DiffusionOptions.from_spec(spec(output="state", colours="lab"))


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("click_map", 3, "a string"),
        ("output", True, "a string"),
        ("click_map_size", "5", "a number"),
        ("click_map_size", True, "a number"),
        ("cutoff", "none", "a number"),
    ],
)
def test_options_of_the_wrong_type_are_refused(name, value, kind):
    with pytest.raises(InvalidInputError, match=rf"expected {kind} as {name}, got {value!r}; use the graph"):
        DiffusionOptions.from_spec(spec(**{"output": "state", name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [("click_map_size", 0), ("click_map_size", 1e300), ("cutoff", -1.0), ("eps", 1e-300)],
)
def test_numbers_that_the_library_does_not_take_are_named(name, value):
    options = dataclasses.replace(DiffusionOptions.from_spec(spec(output="state")), **{name: value})
    assert f"{name}: expected a number from" in (options.problem() or "")


def forget_library():
    native_library.library.cache_clear()
    native_library.unavailable_because.cache_clear()


@pytest.mark.parametrize("content", [None, b"not a library"])
def test_without_a_library_it_says_what_to_do(monkeypatch, tmp_path, content):
    path = tmp_path / "libclickmask_native.so"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(native_library, "_LIBRARY", str(path))
    forget_library()
    try:
        assert not native_library.available()
        assert "install" in (native_library.unavailable_because() or "")
        with pytest.raises(BackendUnavailableError, match="libclickmask_native"):
            Affinity(np.zeros((3, 4, 4), np.float32), DiffusionOptions.from_spec(spec(output="state")))
    finally:
        forget_library()
