"""The tiny network of bundles.py as torch modules; scripted, never used at import time of the tests."""

import torch
from torch import nn


class Encoder(nn.Module):
    """image (B, 3, S, S) to feature_0 (B, 3, S/4, S/4)."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(image, 4, 4)


class DecoderWithoutMask(nn.Module):
    """Body and clicks to logits (B, 1, S, S); the body is the feature when ``enlarge``, else the image."""

    def __init__(self, enlarge: bool, bias: float) -> None:
        super().__init__()
        self.enlarge, self.bias = enlarge, bias

    def forward(self, body: torch.Tensor, clicks: torch.Tensor) -> torch.Tensor:
        if self.enlarge:
            body = body.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
        labels = clicks[:, :, 2].relu().sum(dim=1).reshape(-1, 1, 1, 1)
        return body.mean(dim=1, keepdim=True) + 0.25 * labels + self.bias


class Decoder(nn.Module):
    """The same with the previous mask (B, 1, S, S)."""

    def __init__(self, enlarge: bool, bias: float) -> None:
        super().__init__()
        self.inner = DecoderWithoutMask(enlarge, bias)

    def forward(self, body: torch.Tensor, clicks: torch.Tensor, previous_mask: torch.Tensor) -> torch.Tensor:
        return self.inner(body, clicks) + 0.5 * previous_mask


class PixelDiffusion(nn.Module):
    """Image, clicks and logits to diffused logits (B, 1, S, S)."""

    def forward(self, image: torch.Tensor, clicks: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        labels = clicks[:, :, 2].relu().sum(dim=1).reshape(-1, 1, 1, 1)
        return 0.5 * logits + image.mean(dim=1, keepdim=True) - 0.125 * labels
