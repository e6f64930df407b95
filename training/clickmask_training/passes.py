"""One way to run any network: encode-once ones in two steps, those with clicks at the stem in one.

And corrective clicks: what a person would click next on the network's own errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from clickmask.blend import REACH
from clickmask.evaluation.metrics import iou
from clickmask.evaluation.truths import IGNORED
from clickmask_models.encode_once import EncodeOnce
from clickmask_models.outputs import Outputs
from clickmask_training.clicks import corrective_click
from clickmask_training.moved import as_moved
from clickmask_training.samples import Batch
from clickmask_training.settings import ClickSettings

Features = tuple[Tensor, ...]


class Prompts(NamedTuple):
    """What a network is told of images, beside their features.

    Attributes:
        rows: (N,) int64, of the batch, on the host: whose image it is.
        clicks: (N, M, 3).
        previous: (N, 1, H, W) float32.
    """

    rows: Tensor
    clicks: Tensor
    previous: Tensor


def encode(network: nn.Module, image: Tensor) -> Features:
    """What all clicks on an image share: an encode-once network's features, else the image itself."""
    return network.encode(image) if isinstance(network, EncodeOnce) else (image,)


def decode(network: nn.Module, features: Features, clicks: Tensor, previous_mask: Tensor) -> Outputs:
    """Logits and auxiliary logits of some clicks, given what ``encode`` made of the image."""
    if isinstance(network, EncodeOnce):
        return network.decode_with_auxiliary(features, compact(clicks), previous_mask)
    return network.forward_with_auxiliary(*features, compact(clicks), previous_mask)


def told(features: Features, prompts: Prompts) -> Features:
    """The features of the images that prompts are about, in the prompts' order."""
    rows = prompts.rows.tolist()
    if rows == list(range(len(features[0]))):
        return features
    # Cut and joined: on a CPU an index costs ten times as much on the way back.
    cut = [feature.split(1) for feature in features]
    return tuple(torch.cat([parts[row] for row in rows]) for parts in cut)


def align_corners(network: nn.Module) -> bool:
    """Whether a network's resizes align corners: the published do, unless their configuration says no."""
    return getattr(network.config, "align_corners", not isinstance(network, EncodeOnce))


def compact(clicks: Tensor) -> Tensor:
    """Clicks with the used rows first and columns of absent ones cut: maps cost time per row."""
    used = clicks[..., 2] >= 0
    order = torch.argsort(used.int(), dim=1, descending=True, stable=True)
    return clicks.gather(1, order.unsqueeze(-1).expand_as(clicks))[:, : max(1, int(used.sum(1).max()))]


@torch.no_grad()
def correct(
    network: nn.Module,
    features: Features,
    batch: Batch,
    settings: ClickSettings,
    rng: np.random.Generator,
    momentum: float = 0.0,
) -> Prompts:
    """Corrective clicks on the network's own errors, one a round; call it in eval mode.

    An encoder is paid once for all rounds. Samples with and without a previous mask stay in one batch, since
    batch norm would otherwise learn statistics that fit neither. From the second round on logits have the
    ``momentum`` of a session's, and a sample that is solved then keeps the state that it was solved from.

    Returns:
        What is to be learnt: the batch after its rounds, and then the states midway.
    """
    device = features[0].device
    clicks, previous = batch.clicks.clone(), batch.previous_mask.to(device, copy=True)
    inside, left = batch.inside.to(device), batch.rounds.clone()
    first = settings.positive + settings.negative
    solved_at = rng.uniform(*settings.solved_at, size=len(clicks))
    states, before = [], torch.zeros_like(previous)
    for round_ in range(int(left.max())):
        active = torch.nonzero(left > round_).squeeze(1)
        if not len(active):
            break
        states.append((clicks.clone(), previous.clone()))
        there = active.to(device)
        logits = decode(
            network,
            tuple(feature[there].detach() for feature in features),
            clicks[active].to(device),
            previous[there],
        ).logits.float()
        if momentum and round_:
            newest = clicks[active, first + round_ - 1].to(device)
            logits = steadied(logits, before[there], newest, momentum)
        logits, shown = as_moved(logits, settings.moved, rng)
        before[there] = logits
        probability = torch.sigmoid(logits) * inside[there] * shown
        predicted = (probability[:, 0] > settings.threshold).cpu().numpy()
        if round_:
            solved = _above(solved_at, predicted, batch.mask, active)
            left[active[solved]] = round_
            active, predicted, probability = active[~solved], predicted[~solved], probability[~solved]
        previous[active.to(device)] = probability
        _add_clicks(clicks, predicted, batch.mask, active.tolist(), first + round_, rng, settings.deepest)
    places = _midway(batch.midway, left)
    rows = torch.cat([torch.arange(len(clicks)), torch.nonzero(places >= 0).squeeze(1)])
    midway = [
        [part[row : row + 1] for part in states[place]] for row, place in enumerate(places) if place >= 0
    ]
    clicks, previous = (torch.cat(column) for column in zip((clicks, previous), *midway, strict=True))
    return Prompts(rows, clicks.to(device), previous)


def _above(limits: np.ndarray, predicted: np.ndarray, masks: Tensor, samples: Tensor) -> np.ndarray:
    """Whose predictions' IoU lies above the sample's limit: (N,) bool."""
    truths = masks[samples, 0].cpu().numpy()
    ious = [iou(one, truth == 1, truth == IGNORED) for one, truth in zip(predicted, truths, strict=True)]
    return np.array(ious) > limits[samples.numpy()]


def _midway(midway: Tensor, made: Tensor) -> Tensor:
    """Where a sample was solved before its state midway, an earlier one, if it has one; else -1."""
    earlier = 1 + (midway - 1) % (made - 1).clamp(min=1)
    return torch.where(midway < made, midway, torch.where(made > 1, earlier, -1))


def steadied(logits: Tensor, before: Tensor, clicks: Tensor, momentum: float) -> Tensor:
    """Logits in which those before a click have their share away from it, as ``blend_into`` has it.

    Args:
        logits: (N, 1, H, W) float32 after the clicks, on the same view as ``before``.
        before: likewise.
        clicks: (N, 3) the newest ones; where the label is -1 there was none.
        momentum: the largest share.
    """
    height, width = logits.shape[2:]
    place = clicks.view(-1, 3, 1, 1)
    rows, columns = torch.meshgrid(
        torch.arange(height, device=clicks.device), torch.arange(width, device=clicks.device), indexing="ij"
    )
    away = torch.maximum((columns - place[:, :1]).abs(), (rows - place[:, 1:2]).abs())
    away = torch.where(place[:, 2:] < 0, float("inf"), away)
    share = momentum * (away / (REACH * max(height, width))).clamp(max=1)
    return logits + share * (before - logits)


def clicked_errors(prompts: Prompts, mask: Tensor, settings: ClickSettings) -> Tensor:
    """Where the newest corrective clicks ask for another answer: the piece of the error that each lies in.

    Args:
        prompts: N of them.
        mask: (N, 1, H, W) uint8 of 0, 1, 255.
        settings: those that ``correct`` had.

    Returns:
        (N, 1, H, W) float32 of 0 and 1, on the previous masks' device; 0 for those without such a click.
    """
    first = settings.positive + settings.negative
    found = np.zeros((len(mask), *mask.shape[2:]), np.float32)
    predicted = (prompts.previous[:, 0] > settings.threshold).cpu().numpy()
    for piece, rows, prediction, truth in zip(
        found, prompts.clicks[:, first:].cpu().numpy(), predicted, mask[:, 0].cpu().numpy(), strict=True
    ):
        made = rows[rows[:, 2] >= 0]
        if len(made):
            wrong = (prediction != (truth == 1)) & (truth != IGNORED)
            _, pieces = cv2.connectedComponents(wrong.view(np.uint8), connectivity=4)
            x, y = made[-1, :2].astype(int)
            piece[:] = wrong & (pieces == pieces[y, x])
    return torch.from_numpy(found).unsqueeze(1).to(prompts.previous.device)


def _add_clicks(
    clicks: Tensor,
    predicted: np.ndarray,
    masks: Tensor,
    samples: Sequence[int],
    slot: int,
    rng: np.random.Generator,
    deepest: float,
) -> None:
    """One corrective click for each sample, where there is anything to correct."""
    for index, prediction in zip(samples, predicted, strict=True):
        click = corrective_click(prediction, masks[index, 0].cpu().numpy(), rng, deepest)
        if click is not None:
            clicks[index, slot] = torch.from_numpy(click)
