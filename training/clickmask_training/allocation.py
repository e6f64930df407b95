"""How many hidden channels each block of a backbone keeps, so that a share of its work is left.

Blocks differ: the last one of a MobileNetV2 loses four fifths of its channels for what an early one pays
for a sixth, since all that follows builds on the early ones. So each block alone is cut to several sizes and
what that does to the encoder's features is measured. The distances are taken to add up; every block then has
the size that is best at one price of work for all of them, the lowest that leaves no more than the share.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clickmask.evaluation.progress import Progress
from clickmask_models.encode_once import EncodeOnce
from clickmask_training.checks import ConfigError
from clickmask_training.hidden import check_encode_once, cut_hidden
from clickmask_training.losses import feature_distance

_KEPT = (5 / 6, 2 / 3, 1 / 2, 3 / 8, 1 / 4, 1 / 6)  # shares of a block's channels that are tried
_STEM_INPUTS = 27  # 3 x 3 x RGB
_MULTIPLE = 16  # processors compute on channels in groups of their vectors' width


class Size(NamedTuple):
    """What a block may have.

    Attributes:
        hidden: channels inside it.
        work: its multiplications for each pixel of the image; with the first block, the stem's too.
        distance: of the encoder's features (``feature_distance``), if only this block is cut.
    """

    hidden: int
    work: float
    distance: float


def allocate(network: EncodeOnce, share: float, images: Sequence[Tensor]) -> tuple[int, ...]:
    """Hidden channels of each block, for ``cut_hidden``; shows how far it is, and what it found.

    Args:
        network: in eval mode; not changed.
        share: of the backbone's work that is left at most, in (0, 1].
        images: (B, 3, H, W) RGB in [0, 1] each, two or more.

    Raises:
        ConfigError: another kind of network, or a share that no sizes have.
    """
    check_encode_once(network)
    count = len(network.config.hidden)
    progress = Progress("cut each block alone", 0, count)
    blocks = []
    for index in range(count):
        blocks.append(block_sizes(network, index, images))
        progress.update(index + 1)
    progress.close()
    hidden = choose(blocks, share)
    print(f"--hidden {' '.join(map(str, hidden))}")
    return hidden


@torch.no_grad()
def block_sizes(network: EncodeOnce, index: int, images: Sequence[Tensor]) -> list[Size]:
    """Sizes that a block may have, the uncut one first; of the first block, which the stem feeds, that alone.

    Args:
        network: in eval mode; not changed.
        index: of the block, 0 to 16.
        images: (B, 3, H, W) RGB in [0, 1] each, two or more: the block is cut on all but the last, and
            features are compared on that.
    """
    hidden = network.config.hidden
    whole = hidden[index]
    work = works(network.backbone)[index] / whole
    found = [Size(whole, work * whole, 0.0)]
    if index == 0:
        return found
    uncut = network.encode(images[-1])
    counts = {_MULTIPLE * max(1, round(share * whole / _MULTIPLE)) for share in _KEPT}
    for count in sorted(count for count in counts if count < whole):
        cut = cut_hidden(network, (*hidden[:index], count, *hidden[index + 1 :]), images[:-1])
        found.append(Size(count, work * count, float(feature_distance(cut.encode(images[-1]), uncut))))
    return found


def works(backbone: nn.Module) -> list[float]:
    """Multiplications of each block of a MobileNetV2 for each pixel; the first has the stem's too."""
    area, found = 1 / 4, []  # of the maps, for each pixel of the image
    for block in backbone.features[1:]:
        depthwise, last = block.conv[-2][0], block.conv[-1]
        inputs = block.conv[0][0].in_channels if len(block.conv) == 3 else _STEM_INPUTS
        before = area * inputs
        area /= depthwise.stride[0] ** 2
        found.append(last.in_channels * (before + area * (9 + last.out_channels)))
    return found


def choose(blocks: Sequence[Sequence[Size]], share: float) -> tuple[int, ...]:
    """Hidden channels of each block, for ``cut_hidden``.

    Args:
        blocks: the sizes that each may have, the uncut one first.
        share: of the work that is left at most.

    Raises:
        ConfigError: no sizes leave as little.
    """
    chosen = [sizes[0] for sizes in blocks]
    whole = sum(size.work for size in chosen)
    cuts = [(price, index, size) for index, sizes in enumerate(blocks) for price, size in _cuts(sizes)]
    for _, index, size in sorted(cuts, key=lambda cut: cut[0]):
        if sum(size.work for size in chosen) <= share * whole:
            break
        chosen[index] = size
    least = sum(size.work for size in chosen) / whole
    if least > share:
        limit = math.ceil(100 * least) / 100
        raise ConfigError(
            f"--backbone: expected a share of {limit:.2f} to 1, as the least sizes do, got {share}"
        )
    return tuple(size.hidden for size in chosen)


def _cuts(sizes: Sequence[Size]) -> Iterator[tuple[float, Size]]:
    """The sizes that are best at some price of work, and from which on; ever smaller, at rising prices."""
    at = sizes[0]
    while smaller := [size for size in sizes if size.work < at.work]:
        price, at = min(((size.distance - at.distance) / (at.work - size.work), size) for size in smaller)
        yield price, at
