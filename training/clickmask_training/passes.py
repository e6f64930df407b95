"""One way to run any network: encode-once ones in two steps, those with clicks at the stem in one.

And corrective clicks: what a person would click next on the network's own errors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from clickmask_models.encode_once import EncodeOnce
from clickmask_models.outputs import Outputs
from clickmask_training.clicks import corrective_click
from clickmask_training.samples import Batch
from clickmask_training.settings import ClickSettings

Features = tuple[Tensor, ...]


def encode(network: nn.Module, image: Tensor) -> Features:
    """What all clicks on an image share: an encode-once network's features, else the image itself."""
    return network.encode(image) if isinstance(network, EncodeOnce) else (image,)


def decode(network: nn.Module, features: Features, clicks: Tensor, previous_mask: Tensor) -> Outputs:
    """Logits and auxiliary logits of some clicks, given what ``encode`` made of the image."""
    if isinstance(network, EncodeOnce):
        return network.decode_with_auxiliary(features, compact(clicks), previous_mask)
    return network.forward_with_auxiliary(*features, compact(clicks), previous_mask)


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
    network: nn.Module, features: Features, batch: Batch, settings: ClickSettings, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Corrective clicks on the network's own errors, one a round; call it in eval mode.

    An encoder is paid once for all rounds. Samples with and without a previous mask stay in one batch, since
    batch norm would otherwise learn statistics that fit neither.

    Returns:
        The batch's clicks and previous masks with those of the rounds, (B, M, 3) and (B, 1, H, W), on the
        features' device.
    """
    device = features[0].device
    clicks, previous = batch.clicks.clone(), batch.previous_mask.to(device, copy=True)
    inside = batch.inside.to(device)
    first = settings.positive + settings.negative
    for round_ in range(int(batch.rounds.max())):
        active = torch.nonzero(batch.rounds > round_).squeeze(1)
        there = active.to(device)
        logits = decode(
            network,
            tuple(feature[there].detach() for feature in features),
            clicks[active].to(device),
            previous[there],
        ).logits
        previous[there] = torch.sigmoid(logits.float()) * inside[there]
        predicted = (previous[there, 0] > settings.threshold).cpu().numpy()
        _add_clicks(clicks, predicted, batch.mask, active.tolist(), first + round_, rng)
    return clicks.to(device), previous


def _add_clicks(
    clicks: Tensor,
    predicted: np.ndarray,
    masks: Tensor,
    samples: Sequence[int],
    slot: int,
    rng: np.random.Generator,
) -> None:
    """One corrective click for each sample, where there is anything to correct."""
    for index, prediction in zip(samples, predicted, strict=True):
        click = corrective_click(prediction, masks[index, 0].cpu().numpy(), rng)
        if click is not None:
            clicks[index, slot] = torch.from_numpy(click)
