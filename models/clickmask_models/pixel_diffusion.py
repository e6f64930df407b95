"""Pixel Diffusion (PDM): clicks and confident pixels spread along similar colours.

CDNet, Eq. 5-8, inference only. With m the normalised logits and G the click maps,

    y <- m + a (G_F - G_B);     n times: y_i <- sum_j w_ij y_j;     result = y + m

over 32 neighbours j (8 directions at dilations 1, 2, 4, 8; the pixel itself is not among them), where w
is a softmax of colour affinity. The weights depend on the image alone: they are computed once.

The paper and the public code differ at nearly every step, so each is an option of
``PixelDiffusionConfig``; ``docs/presets.md`` lists what the presets choose.

Everything runs in float32, whatever comes in: on flat areas the deviation underflows in half precision
and 0 / 0 follows. Neighbours are gathered by one-hot convolutions, which export to few nodes. TensorFloat-32
convolutions round what they copy to 11 bits: switch it off where exact results matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickmask_models.click_maps import ClickMapConfig, click_maps

# The logits form saturates here (probability 0.99995): a click lifts the state beyond any logit's image.
_MAX_LOGIT = 10.0


@dataclass(frozen=True)
class PixelDiffusionConfig:
    """One reading of Eq. 5-8. The defaults are the paper's.

    Attributes:
        iterations: diffusion steps (paper 10, public code 5).
        dilations: distances of the 8 neighbours, in pixels.
        amplitude: a, what a click adds to the source (paper 1, public code 10).
        click_map: shape of G (paper Gaussian, sigma 10; public code disk, radius 5).
        norm: m, Eq. 6. ``tanh_half`` is tanh(raw / 2), range [-1, 1], which the text says and the public
            code computes; ``tanh_twice`` is 2 tanh(raw), as printed.
        cutoff: |m| up to this is set to 0 in the source, not in the residual (public code 0.25); None
            keeps every pixel.
        affinity: Eq. 8, mean over the colour channels. ``paper`` is -|Ii - Ij| / sigma_i^2, ``official``
            the public code's -|Ii - Ij| / (0.1 sigma_i).
        deviation: sigma_i, for each colour channel. ``unbiased_36`` is the sample deviation (n - 1) of the
            neighbours and, once for each dilation, the centre; ``biased_32`` that (n) of the neighbours.
        eps: smallest divisor of the affinity: sigma^2 or 0.1 sigma, of an image in [0, 1].
        output: ``logits`` maps the result back through the inverse of Eq. 6; ``state`` returns it as it is
            (public code), in about [-2 - a, 2 + a].
    """

    iterations: int = 10
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    amplitude: float = 1.0
    click_map: ClickMapConfig = field(default_factory=lambda: ClickMapConfig("gaussian", 10.0))
    norm: Literal["tanh_half", "tanh_twice"] = "tanh_half"
    cutoff: float | None = None
    affinity: Literal["paper", "official"] = "paper"
    deviation: Literal["unbiased_36", "biased_32"] = "unbiased_36"
    eps: float = 1e-4
    output: Literal["logits", "state"] = "logits"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dilations", tuple(self.dilations))  # JSON gives a list
        choices = {
            "norm": ("tanh_half", "tanh_twice"),
            "affinity": ("paper", "official"),
            "deviation": ("unbiased_36", "biased_32"),
            "output": ("logits", "state"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.click_map.kind == "distance":
            raise ValueError("click_map must be 1 at a click and 0 far from all, got kind 'distance'")
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(f"dilations must be positive pixel distances, got {self.dilations}")
        if not 1e-12 <= self.eps <= 1.0:
            raise ValueError(
                f"eps must lie in [1e-12, 1] for float32 divisions to stay finite, got {self.eps}"
            )


class PixelDiffusion(nn.Module):
    """PDM: refines the logits of a network by the image's colours. Has no parameters.

    The sign of the result is the mask: object where it is positive. With ``output="logits"`` it also is
    a logit whose sigmoid means a probability: the state y + m is halved (mean of the diffused and the
    network's opinion) and taken through the inverse of Eq. 6, so that where diffusion changes nothing the
    network's own logits come back; it saturates (``to_logits``), as a click lifts the state beyond 2.
    """

    def __init__(self, config: PixelDiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.affinity = Affinity(config)
        self.stages = nn.ModuleList(DiffusionStage(config.dilations) for _ in range(config.iterations))

    def forward(self, logits: Tensor, image: Tensor, clicks: Tensor) -> Tensor:
        """Diffuses the logits.

        Args:
            logits: (B, 1, H, W) of the network.
            image: (B, 3, H, W) RGB in [0, 1], not normalised, as the network saw it.
            clicks: (B, M, 3) float (x, y, label) in pixels of the image.

        Returns:
            (B, 1, H, W) float32; the mask is where it is above 0.
        """
        kind = logits.device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self._diffuse(logits.float(), image.float(), clicks.float())
        return self._diffuse(logits.float(), image.float(), clicks.float())

    def _diffuse(self, logits: Tensor, image: Tensor, clicks: Tensor) -> Tensor:
        confidence = normalise(logits, self.config.norm)
        state = self.source(confidence, clicks)
        weights, inverse_sum = self.affinity(image)
        for stage in self.stages:
            state = stage(state, weights, inverse_sum)
        result = state + confidence
        return result if self.config.output == "state" else to_logits(result, self.config.norm)

    def source(self, confidence: Tensor, clicks: Tensor) -> Tensor:
        """Eq. 5: what diffusion starts from, (B, 1, H, W); ``confidence`` is m."""
        height, width = confidence.shape[-2:]
        maps = click_maps(clicks, height, width, self.config.click_map)
        if self.config.cutoff is not None:
            confidence = confidence * (confidence.abs() > self.config.cutoff).to(confidence.dtype)
        return confidence + self.config.amplitude * (maps[:, 0:1] - maps[:, 1:2])


class Affinity(nn.Module):
    """Eq. 7-8: how much each pixel takes from each of its neighbours."""

    def __init__(self, config: PixelDiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.neighbours = nn.ModuleList(Neighbours(dilation) for dilation in config.dilations)

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Softmax numerators and the inverse of their sum; the weights are their product.

        Kept apart because one multiplication per step is cheaper than a softmax over the channel axis.

        Returns:
            For each dilation (B, 8, H, W) float32 in [0, 1], and (B, 1, H, W). On a flat area the numerators
            are exactly 1 and the inverse exactly 1 / (8 x dilations).
        """
        logits: list[Tensor] = []
        for channel in torch.split(image, 1, dim=1):
            near = [gather(channel) for gather in self.neighbours]
            scale = -1.0 / (image.shape[1] * self._divisor(self._deviation(channel, near)))
            terms = [(values - channel).abs() * scale for values in near]
            logits = [a + b for a, b in zip(logits, terms, strict=True)] if logits else terms
        peak = logits[0].amax(dim=1, keepdim=True)
        for part in logits[1:]:
            peak = torch.maximum(peak, part.amax(dim=1, keepdim=True))
        weights = [torch.exp(part - peak) for part in logits]
        return weights, 1.0 / sum_neighbours(weights)

    def _deviation(self, channel: Tensor, near: list[Tensor]) -> Tensor:
        """sigma_i (B, 1, H, W) in two passes: mean first, since the squares of nearly equal values cancel."""
        neighbours = 8 * len(near)
        centres = len(near) if self.config.deviation == "unbiased_36" else 0
        mean = (sum_neighbours(near) + centres * channel) / (neighbours + centres)
        squares = sum_neighbours([(values - mean).square() for values in near])
        if self.config.deviation == "biased_32":
            return torch.sqrt(squares / neighbours)
        return torch.sqrt((squares + centres * (channel - mean).square()) / (neighbours + centres - 1))

    def _divisor(self, deviation: Tensor) -> Tensor:
        # clamp, not `+ eps`: the ONNX optimiser deletes additions of 1e-8, and flat areas turn into NaN.
        divisor = deviation.square() if self.config.affinity == "paper" else 0.1 * deviation
        return divisor.clamp(min=self.config.eps)


class DiffusionStage(nn.Module):
    """One step of Eq. 7: each pixel becomes the weighted mean of its neighbours."""

    def __init__(self, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.neighbours = nn.ModuleList(Neighbours(dilation) for dilation in dilations)

    def forward(self, state: Tensor, weights: list[Tensor], inverse_sum: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, 1, H, W); ``weights`` and ``inverse_sum`` are the affinity's."""
        taken = [gather(state) * weight for gather, weight in zip(self.neighbours, weights, strict=True)]
        return sum_neighbours(taken) * inverse_sum


class Neighbours(nn.Module):
    """The 8 neighbours at one distance as channels, row-major; beyond the border the edge repeats."""

    kernel: Tensor

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        one_hot = torch.eye(9).view(9, 1, 3, 3)
        self.register_buffer("kernel", torch.cat([one_hot[:4], one_hot[5:]]), persistent=False)

    def forward(self, plane: Tensor) -> Tensor:
        """(B, 1, H, W) float32 -> (B, 8, H, W)."""
        padded = F.pad(plane, (self.dilation,) * 4, mode="replicate")
        return F.conv2d(padded, self.kernel.to(padded.dtype), dilation=self.dilation)  # after module.half()


def sum_neighbours(parts: list[Tensor]) -> Tensor:
    """Sum over all neighbours at all distances: [(B, 8, H, W)] -> (B, 1, H, W)."""
    total = parts[0].sum(dim=1, keepdim=True)
    for part in parts[1:]:
        total = total + part.sum(dim=1, keepdim=True)
    return total


def normalise(logits: Tensor, norm: str) -> Tensor:
    """Eq. 6, m: logits to [-1, 1] (``tanh_half``) or [-2, 2] (``tanh_twice``)."""
    return 2.0 * torch.sigmoid(logits) - 1.0 if norm == "tanh_half" else 2.0 * torch.tanh(logits)


def to_logits(result: Tensor, norm: str) -> Tensor:
    """Inverse of Eq. 6 at half of ``result`` = y + m, saturating at +-10; keeps the sign.

    With ``tanh_twice`` at +-8.7, since tanh(10) is 1 in float32, and the inverse of that infinite.
    """
    gain, bound = (2.0, 1.0) if norm == "tanh_half" else (1.0, 2.0)  # raw = gain * atanh(m / bound)
    limit = min(math.tanh(_MAX_LOGIT / gain), 1.0 - 2.0**-24)  # the float32 number before 1
    return gain * torch.atanh((result / (2.0 * bound)).clamp(-limit, limit))
