"""Diversified Training (CDNet, Eq. 9-11): latent heads that share the work of ambiguous clicks.

Beside the network's own logits a second head gives several more, each free to be right in its own way: only
the best of them is asked to fit the truth (Eq. 9), while around the clicks all must (Eq. 10). The heads see
what the network's last layers see and are gone with the training: a saved network never has them.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickmask_models.click_maps import ClickMapConfig, click_maps
from clickmask_models.deeplab import initialise
from clickmask_training.losses import bce, normalised_focal, valid_and_target
from clickmask_training.settings import LossSettings

# Where the networks' last layers are.
_LAST = ("head", "decoder.head", "ocr.cls_head")
_ELSEWHERE = 0.01  # weight of pixels away from clicks in the public code's mask


class LatentHeads(nn.Module):
    """Logits (B, K, h, w) of what a network's last layers saw in its latest pass.

    Args:
        network: any network of clickmask_models.
        count: number K of heads.
    """

    def __init__(self, network: nn.Module, count: int) -> None:
        super().__init__()
        self.layers = copy.deepcopy(_last_layers(network))
        convolutions = [layer for layer in self.layers.modules() if isinstance(layer, nn.Conv2d)]
        old = convolutions[-1]
        new = nn.Conv2d(old.in_channels, count, 1)
        if isinstance(self.layers, nn.Conv2d):
            self.layers = new
        else:
            self.layers[-1] = new
        initialise(self.layers)
        self._seen: Tensor | None = None
        _last_layers(network).register_forward_pre_hook(self._remember)

    def forward(self) -> Tensor:
        """The heads' logits for the network's latest pass; they flow back into the network."""
        if self._seen is None:
            raise RuntimeError("expected the network to have run once, but it has not")
        seen, self._seen = self._seen, None  # not kept longer than it is needed
        return self.layers(seen)

    def _remember(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen = inputs[0] if torch.is_grad_enabled() else None


def latent_losses(
    latent: Tensor, mask: Tensor, clicks: Tensor, settings: LossSettings, *, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """(Eq. 9, Eq. 10): the least loss among the heads, and that of all of them around the clicks.

    Args:
        latent: (B, K, h, w) logits of ``LatentHeads``.
        mask: (B, 1, H, W) of 0, 1, 255.
        clicks: (B, M, 3).
        settings: the kinds of loss and of click map.
        align_corners: of the resize to (H, W), as the network's own logits have it.
    """
    size = mask.shape[-2:]
    latent = F.interpolate(latent.float(), size=size, mode="bilinear", align_corners=align_corners)
    per_head = (normalised_focal if settings.nfl else bce)(latent, mask).reshape(len(latent), -1)
    diverse = per_head.amin(dim=1).mean()

    valid, target = valid_and_target(mask)
    disk = settings.click_map == "disk"
    shape = ClickMapConfig("disk", 5.0) if disk else ClickMapConfig("gaussian", 10.0)
    near = click_maps(clicks, size[0], size[1], shape).amax(dim=1, keepdim=True)
    if disk:
        near = near * (1 - _ELSEWHERE) + _ELSEWHERE
    weight = near * valid
    per_pixel = F.binary_cross_entropy_with_logits(latent, target.expand_as(latent), reduction="none")
    weighed = (per_pixel * weight).sum(dim=(1, 2, 3))  # over the heads too
    total = weight.sum(dim=(1, 2, 3))
    if disk:  # the public code normalises over the batch
        return diverse, weighed.sum() / total.sum().clamp(min=1e-6)
    return diverse, (weighed / total.clamp(min=1e-6)).mean()


def _last_layers(network: nn.Module) -> nn.Module:
    for name in _LAST:
        try:
            return network.get_submodule(name)
        except AttributeError:
            continue
    raise TypeError(f"expected a network with one of {', '.join(_LAST)}, got {type(network).__name__}")
