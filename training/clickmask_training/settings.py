"""The tables of a training configuration: views, colours, clicks, losses, data and validation.

Each option is a point where recipes differ: the papers', their public code's, and ours, which is the default.
training/configs holds them as named files and docs/training.md compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from clickmask_training.checks import TINY, ConfigError, choice, flag, number, pair, share

ViewKind = Literal["run_time", "scaled_crop", "random_box"]
Auxiliary = Literal["cell_bce", "bce", "nfl"]
_LEVELS = 255


@dataclass(frozen=True)
class ViewSettings:
    """Which part of an image a sample shows: [view].

    Attributes:
        kind: ``run_time``: the whole photo, as a session's first click sees it, and of the rest half zoomed
            boxes around the object as the run time's later crops, half free windows. ``scaled_crop``: the
            image at a random scale, padded where it is too small, cropped anywhere. ``random_box``: a random
            box of the image, its aspect lost (ClickSEG).
        whole: share of the whole photo in ``run_time`` views; never rotated.
        grown: sides of a zoomed box in sides of the object's box.
        scale: of free windows (log-uniform) and of ``scaled_crop`` (uniform): crop pixels per image pixel.
        box: least and largest side of a ``random_box`` in image sides, drawn from a normal distribution of
            mean 0.8 and deviation 0.4 cut there.
        flip: share of the samples that are mirrored.
        vertical_flip: share that are turned upside down.
        rotated: share that are rotated, about their middle.
        rotation: largest angle in degrees.
        antialias: whether shrinking averages areas, as the run time does with half-pixel coordinates, or
            interpolates between the nearest pixels, as with the published networks' ("public").
    """

    kind: ViewKind = "run_time"
    whole: float = 0.25
    grown: tuple[float, float] = (1.1, 2.0)
    scale: tuple[float, float] = (0.5, 1.6)
    box: tuple[float, float] = (0.3, 1.3)
    flip: float = 0.5
    vertical_flip: float = 0.0
    rotated: float = 0.3
    rotation: float = 12.0
    antialias: bool = True

    def __post_init__(self) -> None:
        choice("view.kind", self.kind, get_args(ViewKind))
        pair("view.grown", self.grown, "growths in [1, 5]", 1, 5)
        pair("view.scale", self.scale, "scales in [0.05, 20]", 0.05, 20)
        pair("view.box", self.box, "sides in [0.05, 2]", 0.05, 2)
        for name in ("whole", "flip", "vertical_flip", "rotated"):
            share(f"view.{name}", getattr(self, name))
        number("view.rotation", self.rotation, "degrees in [0, 180]", 0, 180)
        flag("view.antialias", self.antialias)


@dataclass(frozen=True)
class ColourSettings:
    """How colours change: [colour].

    Attributes:
        chance: share of the samples whose colours change at all.
        contrast: least and largest change of the contrast; 0.1 makes differences a tenth larger.
        brightness: largest change of the brightness, in shares of the full range.
        shift: largest change of each channel, in grey levels.
        grey, blur, noise: shares of those that lose their colours, are blurred, get noise.
    """

    chance: float = 1.0
    contrast: tuple[float, float] = (-0.25, 0.3)
    brightness: float = 30 / _LEVELS
    shift: float = 10.0
    grey: float = 0.08
    blur: float = 0.1
    noise: float = 0.1

    def __post_init__(self) -> None:
        for name in ("chance", "brightness", "grey", "blur", "noise"):
            share(f"colour.{name}", getattr(self, name))
        pair("colour.contrast", self.contrast, "changes in [-1, 1]", -1, 1)
        number("colour.shift", self.shift, "grey levels in [0, 255]", 0, _LEVELS)


@dataclass(frozen=True)
class ClickSettings:
    """How a person is simulated: [clicks].

    Attributes:
        positive: most random positive clicks; at least one is made.
        negative: most random negative clicks.
        positive_decay: each further positive click is this many times as likely as the one before.
        negative_decay: the same of negative ones.
        single: share of the samples with one positive click near the middle and nothing else.
        first_near_centre: whether the first random positive click lies near the middle too.
        eroded: share of the samples whose positive clicks keep 3 pixels away from the border.
        near: share of the negative clicks in a ring around the object.
        on_others: share of the negative clicks on other objects; the rest lie anywhere in the background.
        rounds: most corrective clicks; ``iterative_share`` of the samples get 1 to this many.
        same_rounds: whether a batch draws them once for all its samples, as the public code does; each sample
            draws its own otherwise.
        as_sessions: whether samples are states that a session comes to: of the whole photo one click alone,
            or corrected; of any other view corrected ones only, as a session that looks there has a mask.
        midway: whether one more state of a corrected sample is learnt, at the cost of a decoder's pass: that
            after some of its corrective clicks.
        solved_at: IoU above which a sample is solved: from its first corrective click on it gets no further
            one, and the state that it was solved from is learnt. Drawn between these two for each sample; 1
            for never.
        deepest: share of the corrective clicks at the deepest pixel of an error, where the robot annotator
            clicks; the others lie anywhere deeper than half of that.
        moved: share of the corrective clicks before which the crop moved: the mask that they are told is as
            coarse as a larger view's, and in half of them 0 outside a part of the view.
        threshold: probability above which a pixel counts as object when errors are looked for.
    """

    positive: int = 10
    negative: int = 10
    positive_decay: float = 0.7
    negative_decay: float = 0.8
    single: float = 0.25
    first_near_centre: bool = False
    eroded: float = 1.0
    near: float = 0.5
    on_others: float = 0.0
    rounds: int = 3
    same_rounds: bool = False
    as_sessions: bool = False
    midway: bool = False
    solved_at: tuple[float, float] = (1.0, 1.0)
    deepest: float = 0.0
    moved: float = 0.0
    threshold: float = 0.5

    def __post_init__(self) -> None:
        number("clicks.positive", self.positive, "1 to 64 clicks", 1, 64, whole=True)
        number("clicks.negative", self.negative, "0 to 64 clicks", 0, 64, whole=True)
        number("clicks.rounds", self.rounds, "1 to 32 clicks", 1, 32, whole=True)
        for name in ("positive_decay", "negative_decay", "threshold"):
            number(f"clicks.{name}", getattr(self, name), "a positive number below or at 1", TINY, 1)
        pair("clicks.solved_at", self.solved_at, "IoUs in [0, 1]", 0, 1)
        for name in ("single", "eroded", "near", "on_others", "deepest", "moved"):
            share(f"clicks.{name}", getattr(self, name))
        for name in ("first_near_centre", "same_rounds", "as_sessions", "midway"):
            flag(f"clicks.{name}", getattr(self, name))
        if self.as_sessions and self.same_rounds:
            raise ConfigError(
                "clicks.as_sessions: expected no clicks.same_rounds beside it, as how many rounds a sample "
                "has depends on its view"
            )
        if self.near + self.on_others > 1:
            together = self.near + self.on_others
            raise ConfigError(f"clicks.near, clicks.on_others: expected a sum of at most 1, got {together}")

    @property
    def slots(self) -> int:
        """Rows of a sample's click tensor: positive, negative, corrective."""
        return self.positive + self.negative + self.rounds


@dataclass(frozen=True)
class LossSettings:
    """Weights of the losses: [loss]; 0 leaves one out.

    Attributes:
        bce: binary cross-entropy of the logits.
        dice: soft Dice of the logits.
        nfl: normalised focal loss of the logits.
        auxiliary: loss of the auxiliary head (``auxiliary_weight``): ``cell_bce`` at its own resolution,
            ``bce`` or ``nfl`` at the image's, as in the public code.
        latent_heads: of Diversified Training (CDNet, Eq. 9-11), in training only; the paper has 4.
        latent: the least loss among the latent heads, of the logits' own kind (Eq. 9).
        click: cross-entropy of all latent heads around the clicks (Eq. 10).
        click_map: what "around" is: ``gaussian`` of sigma 10, for each sample apart (paper), or ``disk`` of
            radius 5 with 0.01 elsewhere, over the batch (public code).
        boundary: extra weight of pixels near the object's border in ``bce``.
        clicked: extra weight of the error in which the newest corrective click lies, in ``bce``: few pixels,
            those that a person asks for.
        boundary_width: how near, in pixels.
        distillation: cross-entropy with the probabilities of the network given as --teacher.
        features: distance from the features that the encoder of --teacher gives; encode-once networks only,
            of the same ``widths`` at stride 16. With no loss of masks beside it nothing is decoded: only the
            encoder learns, in less than a third of a step's time, and no setting of clicks or masks is used.
    """

    bce: float = 1.0
    dice: float = 1.0
    nfl: float = 0.0
    auxiliary: Auxiliary = "cell_bce"
    latent_heads: int = 0
    latent: float = 1.0
    click: float = 1.0
    click_map: Literal["gaussian", "disk"] = "gaussian"
    boundary: float = 0.0
    boundary_width: int = 3
    clicked: float = 0.0
    distillation: float = 0.0
    features: float = 0.0

    def __post_init__(self) -> None:
        weights = ("bce", "dice", "nfl", "latent", "click", "boundary", "clicked", "distillation", "features")
        for name in weights:
            number(f"loss.{name}", getattr(self, name), "a weight of at least 0", 0)
        if not self.of_masks and not self.features:
            raise ConfigError("loss: expected a positive weight of bce, dice, nfl or features, got 0 for all")
        choice("loss.auxiliary", self.auxiliary, get_args(Auxiliary))
        choice("loss.click_map", self.click_map, ("gaussian", "disk"))
        number("loss.latent_heads", self.latent_heads, "0 to 16 heads", 0, 16, whole=True)
        number("loss.boundary_width", self.boundary_width, "1 to 64 pixels", 1, 64, whole=True)
        if not self.of_masks and (self.distillation or self.latent_heads):
            raise ConfigError(
                "loss: expected bce, dice or nfl beside distillation and latent_heads, got 0 for all three; "
                "with loss.features alone nothing is decoded"
            )
        for name in ("boundary", "clicked"):
            if getattr(self, name) and not self.bce:
                raise ConfigError(f"loss.{name}: expected bce to weigh, but loss.bce is 0")

    @property
    def of_masks(self) -> bool:
        """Whether the network's logits are compared with masks at all."""
        return self.bce + self.dice + self.nfl > 0


@dataclass(frozen=True)
class DataSettings:
    """What is drawn from the data sets: [data].

    Attributes:
        min_area: pixels of the smallest object worth a click.
        things: how many times as often as stuff (regions marked ``"thing": false``) things are drawn.
        area_power: objects of an image are drawn in proportion to their area to this power.
        merge: share of the samples where two objects of an image count as one.
        in_memory: whether all images are decoded once and kept, or decoded whenever they are drawn, as
            COCO's always are.
        splits: data-set folder -> list or annotation files, such as "train" (SBD, Pascal VOC; the default)
            or "train2017+lvis_v1_train" (COCO; "train2017" is the default).
        scores: data-set folder -> JSON file {image file: score in [0, 1]}; an image is drawn in proportion
            to (1 - score)^score_power.
        score_power: see ``scores``.
        copy_paste: share of the samples into which an object of another image is pasted.
        synthetic: share of the samples that are composed of random shapes with the textures of two images.
    """

    min_area: int = 150
    things: float = 3.0
    area_power: float = 0.5
    merge: float = 0.15
    in_memory: bool = True
    splits: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, str] = field(default_factory=dict)
    score_power: float = 1.25
    copy_paste: float = 0.0
    synthetic: float = 0.0

    def __post_init__(self) -> None:
        number("data.min_area", self.min_area, "at least 20 pixels", 20, whole=True)
        for name in ("things", "score_power"):
            number(f"data.{name}", getattr(self, name), "a positive number", TINY)
        number("data.area_power", self.area_power, "a power in [0, 2]", 0, 2)
        for name in ("merge", "copy_paste", "synthetic"):
            share(f"data.{name}", getattr(self, name))
        if self.copy_paste + self.synthetic > 1:
            raise ConfigError(
                "data.copy_paste, data.synthetic: expected a sum of at most 1, got "
                f"{self.copy_paste + self.synthetic}"
            )
        flag("data.in_memory", self.in_memory)
        for name in ("splits", "scores"):
            table = getattr(self, name)
            if not isinstance(table, Mapping) or not all(isinstance(text, str) for text in table.values()):
                raise ConfigError(f"data.{name}: expected data-set folders and their names, got {table!r}")


@dataclass(frozen=True)
class ValidationSettings:
    """The robot annotator on held-out images, through a session as applications have it: [validation].

    Attributes:
        objects: how many it annotates; 0 for none.
        clicks: most clicks for each.
        every: steps between two validations; a validation waits for the next save.
    """

    objects: int = 0
    clicks: int = 10
    every: int = 500

    def __post_init__(self) -> None:
        number("validation.objects", self.objects, "a number of at least 0", 0, whole=True)
        number("validation.clicks", self.clicks, "1 to 100 clicks", 1, 100, whole=True)
        number("validation.every", self.every, "a positive number of steps", 1, whole=True)
