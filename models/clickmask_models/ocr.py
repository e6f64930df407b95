"""Object-contextual representation (OCR) for one class, object, as RITM and CSFP use it after HRNet.

Source: Yuan et al., "Object-Contextual Representations for Semantic Segmentation" (ECCV 2020), Eq. 2-4. The
auxiliary logits weigh pixels into one vector, the object's context, which every pixel then sees.

The general form lets each pixel attend to one context per class, softmax over classes. Over one class that
softmax is exactly 1 whatever the queries and keys, so every pixel gets the same context; the published
networks' query and key layers (``f_pixel``, ``f_object``) reach neither output nor gradient and are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clickmask_models.layers import conv_norm_act


class OCR(nn.Module):
    """Auxiliary head, context and classification head.

    ::

        auxiliary = ocr.aux_head(features)  # where the object seems to be
        logits = ocr(features, auxiliary)

    The two may see features at different strides; ``forward`` takes the auxiliary logits at its own.

    Args:
        in_channels: of the features.
        channels: of the context; pixels have twice as many.
        dropout: before the classification head.
        auxiliary_channels: of the features that the auxiliary head sees; None where they are the same.
    """

    def __init__(
        self, in_channels: int, channels: int, dropout: float, auxiliary_channels: int | None = None
    ) -> None:
        super().__init__()
        wide, seen = 2 * channels, auxiliary_channels or in_channels
        self.aux_head = nn.Sequential(*conv_norm_act(seen, seen, 1, bias=True), nn.Conv2d(seen, 1, 1))
        self.conv3x3_ocr = conv_norm_act(in_channels, wide, 3, bias=True)
        self.f_down = conv_norm_act(wide, channels, 1)
        self.f_up = conv_norm_act(channels, wide, 1)
        self.conv_bn_dropout = nn.Sequential(*conv_norm_act(2 * wide, wide, 1), nn.Dropout2d(dropout))
        self.cls_head = nn.Conv2d(wide, 1, 1)

    def forward(self, features: Tensor, auxiliary: Tensor) -> Tensor:
        """Classifies pixels, knowing the object.

        Args:
            features: (B, in_channels, h, w).
            auxiliary: (B, 1, h, w) logits of ``aux_head``.

        Returns:
            (B, 1, h, w) logits.
        """
        pixels = self.conv3x3_ocr(features)
        # Batch norm cannot train on one value per channel: a batch of one image needs eval mode here.
        context = self.f_up(self.f_down(gather(pixels, auxiliary)))
        joined = torch.cat([context.expand_as(pixels), pixels], dim=1)
        return self.cls_head(self.conv_bn_dropout(joined))


def gather(pixels: Tensor, auxiliary: Tensor) -> Tensor:
    """The object's context: mean of (B, C, h, w) weighted by softmax over (B, 1, h, w) logits; (B, C, 1, 1).

    In float32: beyond 128 x 128 cells an average weight, 1 / (h w), is too small for half precision.
    """
    with torch.autocast(pixels.device.type, enabled=False):
        weights = torch.softmax(auxiliary.float().flatten(2), dim=2)  # (B, 1, h w)
        context = pixels.float().flatten(2) @ weights.mT  # (B, C, 1)
    return context.unsqueeze(3).to(pixels.dtype)
