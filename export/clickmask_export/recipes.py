"""How a network will be used: the preset's settings, changed by what the user asked for.

A preset names settings around the network (crop policy, sizes, threshold, flips, momentum), none of which a
checkpoint holds. Without ``--preset`` the one whose network the checkpoint has is taken, or the only one of
its family; which of several would be a guess. Pixel Diffusion is part of the network's own configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

from torch import nn

from clickmask.crop import CropPolicy
from clickmask.manifest import ClickMaps, InputSpec, PixelDiffusionSpec
from clickmask.manifest_reader import MAX_ITERATIONS, MAX_SIZE, MIN_SIZE, SIZE_STEP
from clickmask_export.errors import RecipeError
from clickmask_models.config_json import config_to_json
from clickmask_models.pixel_diffusion import PixelDiffusionConfig
from clickmask_models.presets import PRESETS, Preset

# The robot annotator's longest protocol takes 100 clicks; rows beyond those used cost nothing.
MAX_CLICKS = 128


@dataclass(frozen=True)
class Overrides:
    """What a user may change; None leaves the preset's value, and the network's own Pixel Diffusion.

    Attributes:
        preset: name of a preset.
        sizes: sides of the network's input, in pixels.
        diffuse: whether Pixel Diffusion is part of the graph.
        iterations: steps of Pixel Diffusion.
        flip: whether logits are averaged with those of the mirrored input.
    """

    preset: str | None = None
    sizes: Sequence[int] | None = None
    diffuse: bool | None = None
    iterations: int | None = None
    flip: bool | None = None


@dataclass(frozen=True)
class Recipe:
    """All that a manifest says about a network besides its graphs and artefacts.

    Attributes:
        departures: not in the manifest: fields in which the network's configuration is not the preset's,
            but for those marked ``inner``, on which no setting around the network depends.
    """

    family: str
    preset: str
    input: InputSpec
    click_maps: ClickMaps
    crop: CropPolicy
    flip: bool
    threshold: float
    momentum: float
    pixel_diffusion: PixelDiffusionConfig | None
    departures: tuple[str, ...] = ()


def make_recipe(network: nn.Module, overrides: Overrides) -> Recipe:
    """Settles how a network will be used.

    Raises:
        RecipeError: an unknown preset, one for another family, none where several fit, or an override that
            makes no sense.
    """
    name, preset = _preset(network, overrides.preset)
    pipeline = preset.pipeline
    return Recipe(
        family=config_to_json(network.config)["family"],
        preset=name,
        input=InputSpec(
            sizes=_sizes(overrides.sizes if overrides.sizes is not None else pipeline.sizes),
            fit=pipeline.fit,
            pad=network.mean,  # zero once normalised: what convolutions pad with as well
            coordinates=pipeline.coordinates,
            mean=network.mean,
            std=network.std,
            previous_mask=network.takes_previous_mask,
            max_clicks=MAX_CLICKS,
        ),
        click_maps=ClickMaps(network.config.click_map.kind, network.config.click_map.size),
        crop=CropPolicy(**asdict(pipeline.crop)),
        flip=pipeline.flip_averaging if overrides.flip is None else overrides.flip,
        threshold=pipeline.threshold,
        momentum=pipeline.momentum,
        pixel_diffusion=_pixel_diffusion(network, preset, overrides),
        departures=tuple(
            field.name
            for field in fields(preset.network)
            if getattr(preset.network, field.name) != getattr(network.config, field.name)
            and not field.metadata.get("inner")
        ),
    )


def describe_diffusion(config: PixelDiffusionConfig | None) -> PixelDiffusionSpec | None:
    """Pixel Diffusion as the manifest says it, for readers and for the fused kernel."""
    if config is None:
        return None
    named = ("iterations", "dilations", "amplitude", "eps", "norm", "click_map")
    rest = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in named}
    options = {"click_map": config.click_map.kind, "click_map_size": config.click_map.size, **rest}
    return PixelDiffusionSpec(
        iterations=config.iterations,
        dilations=config.dilations,
        amplitude=config.amplitude,
        eps=config.eps,
        norm=config.norm,
        options={key: value for key, value in options.items() if value is not None},
    )


def _preset(network: nn.Module, name: str | None) -> tuple[str, Preset]:
    family = type(network.config)
    fitting = {key: preset for key, preset in PRESETS.items() if type(preset.network) is family}
    if name is None:
        same = [key for key, preset in fitting.items() if preset.network == network.config]
        if not same and len(fitting) > 1:
            raise RecipeError(
                f"the checkpoint's network is none of {', '.join(fitting)}: name the settings with --preset"
            )
        name = (same or list(fitting))[0]  # every family has a preset
    if name not in PRESETS:
        raise RecipeError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    if name not in fitting:
        ours = config_to_json(network.config)["family"]
        raise RecipeError(
            f"preset {name!r} is for networks of another family than this checkpoint's, which is {ours}: "
            f"choose one of {', '.join(fitting)}"
        )
    return name, PRESETS[name]


def _sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    wrong = [size for size in sizes if size % SIZE_STEP or not MIN_SIZE <= size <= MAX_SIZE]
    if wrong or not sizes:
        nearest = sorted(
            {min(MAX_SIZE, max(MIN_SIZE, round(size / SIZE_STEP) * SIZE_STEP)) for size in wrong}
        )
        hint = f"; nearest: {', '.join(map(str, nearest))}" if nearest else ""
        raise RecipeError(
            f"size: expected multiples of {SIZE_STEP} from {MIN_SIZE} to {MAX_SIZE}, got "
            f"{', '.join(map(str, wrong)) or 'none'}{hint}"
        )
    return tuple(sorted(set(sizes)))


def _pixel_diffusion(network: nn.Module, preset: Preset, overrides: Overrides) -> PixelDiffusionConfig | None:
    config = network.config.pixel_diffusion
    if overrides.diffuse is False:
        if overrides.iterations is not None:
            raise RecipeError(
                "iterations are those of Pixel Diffusion, which --pdm none leaves out: drop one of them"
            )
        return None
    if config is None and (overrides.diffuse or overrides.iterations is not None):
        config = preset.network.pixel_diffusion or PixelDiffusionConfig()
    if config is None or overrides.iterations is None:
        return config
    if overrides.iterations > MAX_ITERATIONS:
        raise RecipeError(f"iterations: expected at most {MAX_ITERATIONS}, got {overrides.iterations}")
    try:
        return replace(config, iterations=overrides.iterations)
    except ValueError as exc:
        raise RecipeError(str(exc)) from exc
