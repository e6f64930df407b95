"""What the published networks share: clicks at the stem, normalisation inside, logits at the image's size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clickmask_models.click_maps import click_maps
from clickmask_models.deeplab import initialise, resize
from clickmask_models.outputs import Outputs

RGB = tuple[float, float, float]


class ClickNetwork(nn.Module):
    """A network whose clicks, and previous mask if it takes one, enter at the stem of its ``backbone``.

    A subclass builds its layers, calls ``_initialise`` and defines ``_segment``.

    Args:
        config: of the subclass, with ``click_map`` and ``previous_mask``.
        mean: of the images that the backbone expects, per colour, of values in [0, 1].
        std: likewise.
        align_corners: of the last resize; the published networks align.

    Attributes:
        config, mean, std: as given.
        takes_previous_mask: whether ``previous_mask`` must be given.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(self, config: Any, mean: RGB, std: RGB, *, align_corners: bool = True) -> None:
        super().__init__()
        self.config = config
        self.takes_previous_mask: bool = config.previous_mask
        self._map_channels = 3 if config.previous_mask else 2
        self.mean, self.std = mean, std
        self._align_corners = align_corners
        self.register_buffer("_mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor, clicks: Tensor, previous_mask: Tensor | None = None) -> Tensor:
        """Segments what the clicks say.

        Args:
            image: (B, 3, H, W) float RGB in [0, 1].
            clicks: (B, M, 3) float (x, y, label) in pixels of the image.
            previous_mask: (B, 1, H, W) probability; ignored by a network that does not take one.

        Returns:
            (B, 1, H, W) float32 logits, before Pixel Diffusion if there is any.

        Raises:
            ValueError: there is no previous mask for a network that takes one.
        """
        return self.forward_with_auxiliary(image, clicks, previous_mask).logits

    def forward_with_auxiliary(
        self, image: Tensor, clicks: Tensor, previous_mask: Tensor | None = None
    ) -> Outputs:
        """As ``forward``, with the logits (B, 1, h, w) of the auxiliary head at its own stride, if any."""
        size = image.shape[-2:]
        maps = self._maps(clicks, size, previous_mask)
        logits, auxiliary = self._segment((image - self._mean) / self._std, maps, clicks)
        return Outputs(resize(logits.float(), size, self._align_corners), auxiliary)

    def _segment(self, image: Tensor, maps: Tensor, clicks: Tensor) -> Outputs:
        """Logits at any stride, of a normalised image, the maps of ``_maps``, and the clicks themselves."""
        raise NotImplementedError

    def _maps(self, clicks: Tensor, size: tuple[int, ...], previous_mask: Tensor | None) -> Tensor:
        """(B, C, H, W) float32 in [0, 1]: the previous mask where C = 3, positive clicks, negative clicks."""
        maps = click_maps(clicks, size[0], size[1], self.config.click_map)
        if not self.takes_previous_mask:
            return maps
        if previous_mask is None:
            raise ValueError("this network takes a previous mask (B, 1, H, W); zeros stand for none")
        return torch.cat([previous_mask.float(), maps], dim=1)

    def _initialise(self) -> None:
        """Starts all layers but the backbone's, which begin from pretrained weights."""
        for name, part in self.named_children():
            if name != "backbone":
                initialise(part)
