"""Feature Diffusion (FDM): clicked features spread to similar positions.

CDNet, Eq. 1-4: with A = theta(X)^T phi(X) over the N = h*w positions, source weights S in [0, 1]
from the clicks and destination weights D from an auxiliary segmentation head,

    CA[i, j] = softmax_j(S[j] * A[i, j]) * D[i],     y = CA g(X)

for foreground and background. S scales columns of A and D rows of the softmax, so

    y = D * attention(Q = theta(X), K = S * phi(X), V = g(X), scale = 1)

and the N x N matrix is never built. S multiplies logits, it does not mask: a position with S = 0 keeps
the weight exp(0).

All positions with S = 0 have the same logit, 0. Together they weigh as one key with the logit log(their
number) and the mean of their values; and since phi and g are linear, those are phi and g of their mean
feature. Where S is a sum of narrow spots, that leaves for each branch the cells around its own clicks and one
more: the sparse form, for inference (``FeatureDiffusion.use_sparse_keys``), exact for an S that is cut off
there. So few values are projected before they are summed rather than after.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickmask_models.click_windows import WindowKeys, window_keys
from clickmask_models.layers import conv_norm_act

Variant = Literal[
    "auxiliary", "non_local", "source2full", "des2des", "source2des_unsupervised", "fdm", "v1", "v2", "v3"
]
VARIANTS: tuple[Variant, ...] = Variant.__args__  # type: ignore[attr-defined]

# Their S is the click map itself and so 0 but for a few cells.
_COMPACT: tuple[Variant, ...] = ("fdm", "source2full", "source2des_unsupervised")
# A window reaches four sigmas from the cell nearest to the click; beyond it S is below 4e-5.
_REACH = 4.0


@dataclass(frozen=True)
class FeatureDiffusionConfig:
    """Which rows of Table 5 (or versions of the public code) to compute.

    Attributes:
        variant: ``fdm`` is Eq. 4. ``auxiliary``, ``non_local``, ``source2full``, ``des2des`` and
            ``source2des_unsupervised`` are the other rows of Table 5; ``v1``, ``v2``, ``v3`` the
            public code's versions (v3: S + 1[D > 0.8], the one its checkpoints use).
        inner_channels: width of theta, phi and g; None keeps the input's.
        source_size: sigma (or radius) of a click in S, in cells of the feature map.
        source_kind: shape of a click in S; ``disk_24px`` is the public code's map, a disk of radius
            24 input pixels resized to the feature map.
    """

    variant: Variant = "fdm"
    inner_channels: int | None = None
    source_kind: Literal["gaussian", "disk_24px"] = "gaussian"
    source_size: float = 1.0

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"FDM variant must be one of {', '.join(VARIANTS)}, got {self.variant!r}")
        if self.source_kind not in ("gaussian", "disk_24px"):
            raise ValueError(f"source_kind must be 'gaussian' or 'disk_24px', got {self.source_kind!r}")
        if not self.source_size > 0:
            raise ValueError(f"source_size must be positive, got {self.source_size}")
        if self.inner_channels is not None and self.inner_channels < 1:
            raise ValueError(f"inner_channels must be None or at least 1, got {self.inner_channels}")


class FeatureDiffusionOutput(NamedTuple):
    """``features`` (B, C, h, w); ``destination_logits`` (B, 1, h, w), the auxiliary head's, or None."""

    features: Tensor
    destination_logits: Tensor | None


class FeatureDiffusion(nn.Module):
    """FDM as a residual block: X + BN(z(foreground)) + BN(z(background)).

    The paper prints the sum of the two products alone; the projections and the residual are the
    public code's, without which deeper layers would lose X.
    """

    def __init__(self, channels: int, config: FeatureDiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.sparse = False
        inner = config.inner_channels or channels
        if config.variant != "non_local":
            self.destination_head = nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
                conv_norm_act(channels, channels, 1),
                nn.Conv2d(channels, 1, 1),
            )
        if config.variant != "auxiliary":
            self.theta = nn.Conv2d(channels, inner, 1, bias=False)
            self.phi = nn.Conv2d(channels, inner, 1, bias=False)
            self.g = nn.Conv2d(channels, inner, 1, bias=False)
            branches = 1 if config.variant == "non_local" else 2
            self.project = nn.ModuleList(
                nn.Sequential(nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels))
                for _ in range(branches)
            )

    def use_sparse_keys(self) -> None:
        """From now on only the cells around clicks are keys of their own; see the module's docstring.

        81 M + 1 keys for sigma = 1 and M rows of clicks of a label, in place of N. Clicks must then come by
        label; see ``forward``.

        Raises:
            ValueError: S is not 0 away from the clicks, so that the result would be another.
        """
        config = self.config
        if config.variant not in _COMPACT:
            raise ValueError(
                f"Feature Diffusion {config.variant!r} has sources everywhere, so that every position is a "
                f"key; the sparse form is for {', '.join(_COMPACT)}"
            )
        if config.source_kind != "gaussian":
            raise ValueError(
                "Feature Diffusion's sparse form is for sources of kind 'gaussian', got "
                f"{config.source_kind!r}"
            )
        self.sparse = True

    def forward(self, x: Tensor, sources: Tensor, centres: Tensor | None = None) -> FeatureDiffusionOutput:
        """Diffuses clicked features.

        Args:
            x: (B, C, h, w) features.
            sources: (B, 2, h, w) float32 source weights S from the clicks, foreground first.
            centres: (B, 2 M, 3) float32 clicks (x, y, label) in cells, for the sparse form: M rows with the
                positive clicks, then M with the negative ones.
        """
        variant = self.config.variant
        if variant == "non_local":
            return FeatureDiffusionOutput(
                self._added(x, self._attend(x, torch.ones_like(sources[:, :1]))), None
            )

        destination_logits = self.destination_head(x)
        if variant == "auxiliary":
            return FeatureDiffusionOutput(x, destination_logits)

        destination = torch.sigmoid(destination_logits.float())
        if variant != "source2des_unsupervised":
            destination = destination.detach()
        source_weights, row_weights = diffusion_weights(variant, sources.float(), destination)
        if self.sparse:
            return FeatureDiffusionOutput(
                x + self._near_clicks(x, source_weights, row_weights, centres), destination_logits
            )
        messages = self._attend(x, source_weights) * _as_rows(row_weights)
        return FeatureDiffusionOutput(self._added(x, messages), destination_logits)

    def _attend(self, x: Tensor, source_weights: Tensor) -> Tensor:
        """softmax_j(S[j] * A[i, j]) g for each S of (B, branches, h, w); (B, branches, C', N) float32.

        A is not scaled by 1/sqrt(C): the paper's logits must be free to grow until a click outweighs
        the N - 1 other positions. They leave half precision's range, so S scales K before the product
        and the product itself is float32.
        """
        keys = self.phi(x).float().flatten(2).unsqueeze(1) * _as_rows(source_weights)  # (B, branches, C', N)
        query, values = _tokens(self.theta(x)).float(), _tokens(self.g(x)).float()
        with torch.autocast(x.device.type, enabled=False):
            messages = [_attention(query, key, values) for key in keys.split(1, dim=1)]
            return torch.cat(messages, dim=1).transpose(2, 3)

    def _added(self, x: Tensor, messages: Tensor) -> Tensor:
        """X and the projections of the branches' messages, (B, branches, C', N)."""
        maps = messages.to(x.dtype).reshape(x.shape[0], -1, *x.shape[2:])
        if len(self.project) == 1:  # of one branch, or of both (folding.py)
            return x + self.project[0](maps)
        for project, branch in zip(self.project, maps.chunk(len(self.project), dim=1), strict=True):
            x = x + project(branch)
        return x

    def _near_clicks(
        self, x: Tensor, source_weights: Tensor, row_weights: Tensor, centres: Tensor | None
    ) -> Tensor:
        """What both branches add to X, each with the cells around its clicks and one more as keys; see
        ``forward``. As in ``_attend``, all from the logits on is float32.
        """
        if centres is None:
            raise ValueError("Feature Diffusion's sparse form needs the clicks in cells, (B, 2 M, 3)")
        height, width = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2).contiguous()  # (B, N, C)
        keys = self._windows(centres, height, width)
        near = _with_rest(tokens, keys)  # (B, 2, K + 1, C)
        sources = source_weights.flatten(2).gather(2, keys.index)  # (B, 2, K)
        query = _linear(self.theta, tokens).float().unsqueeze(1)
        key = _linear(self.phi, near).float() * F.pad(sources, (0, 1)).unsqueeze(-1)
        projections = [_folded(*project) for project in self.project]
        matrix = torch.stack([weight for weight, _ in projections])  # (2, C', C)
        value = _linear(self.g, near).float() @ matrix
        rows = row_weights.flatten(2).unsqueeze(-1)  # (B, 2, N, 1)
        with torch.autocast(x.device.type, enabled=False):
            attention = torch.softmax(query @ key.transpose(2, 3) + keys.bias.unsqueeze(2), dim=-1)
            added = (attention @ value * rows).sum(dim=1) + sum(shift for _, shift in projections)
        return added.transpose(1, 2).unflatten(2, (height, width)).to(x.dtype)

    def _windows(self, centres: Tensor, height: int, width: int) -> WindowKeys:
        """Around the clicks of each label; (B, 2, ...)."""
        rows = centres.float().reshape(centres.shape[0], 2, centres.shape[1] // 2, 3)
        present = torch.stack([rows[:, 0, :, 2] == 1, rows[:, 1, :, 2] == 0], dim=1)
        radius = math.ceil(_REACH * self.config.source_size)
        return window_keys(rows[..., :2], present, height, width, radius)


def diffusion_weights(variant: Variant, sources: Tensor, destination: Tensor) -> tuple[Tensor, Tensor]:
    """Source weights S and destination weights D of both branches, (B, 2, h, w) (Table 5; code v1-v3).

    Args:
        variant: any but ``auxiliary`` and ``non_local``.
        sources: (B, 2, h, w) click weights.
        destination: (B, 1, h, w) foreground probability; the background's is 1 - it (Eq. 3).
    """
    d = torch.cat([destination, 1.0 - destination], dim=1)
    if variant == "source2full":
        return sources, torch.ones_like(d)
    if variant == "des2des":
        return d, d
    if variant == "v1":
        return 0.9 * sources + 0.1, 0.9 * d + 0.1
    if variant == "v2":
        return torch.cat([sources[:, :1], 0.5 * sources[:, 1:] + 0.5 * d[:, 1:]], dim=1), d
    if variant == "v3":
        return sources + (d > 0.8).to(sources.dtype), d
    return sources, d


def _attention(query: Tensor, key: Tensor, values: Tensor) -> Tensor:
    """softmax(query key) values, unscaled; (B, 1, N, C') each, but the key (B, 1, C', N)."""
    if torch.compiler.is_exporting():  # as the exporter writes it, without transposing keys there and back
        return torch.softmax(query @ key, dim=-1) @ values
    # Contiguous: a strided view would take a path that builds the N x N matrix.
    return F.scaled_dot_product_attention(query, key.transpose(2, 3).contiguous(), values, scale=1.0)


def _as_rows(weights: Tensor) -> Tensor:
    """(B, branches, h, w) -> (B, branches, 1, N)."""
    return weights.reshape(*weights.shape[:2], 1, -1)


def _tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, 1, N, C), contiguous."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], 1, -1, x.shape[1]).contiguous()


def _with_rest(tokens: Tensor, keys: WindowKeys) -> Tensor:
    """Features of the keys, (B, 2, K + 1, C): of the cells listed and, last, the mean of those not listed."""
    batch, count, channels = tokens.shape
    first = torch.arange(batch, device=tokens.device).view(-1, 1, 1) * count
    cells = tokens.flatten(0, 1).index_select(0, (keys.index + first).flatten())  # whole rows at once
    number = keys.rest.sum(dim=2, keepdim=True).clamp(min=1.0)
    mean = (keys.rest @ tokens.float() / number).to(tokens.dtype)
    return torch.cat([cells.view(*keys.index.shape, channels), mean.unsqueeze(2)], dim=2)


def _linear(conv: nn.Conv2d, rows: Tensor) -> Tensor:
    """A 1x1 convolution without bias, of rows (..., C), in its own precision."""
    return F.linear(rows.to(conv.weight.dtype), conv.weight.flatten(1))


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A 1x1 convolution and its batch norm as a matrix (C, C'), to be multiplied from the right, and a shift
    (C',); in evaluation, float32.
    """
    scale = norm.weight.float() * torch.rsqrt(norm.running_var.float() + norm.eps)
    return conv.weight.float().flatten(1).T * scale, norm.bias.float() - norm.running_mean.float() * scale
