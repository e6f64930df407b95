"""Fewer channels inside the blocks of a trained MobileNetV2, with last convolutions that are fitted anew.

Block after block, the hidden channel goes that the others make up for best, one at a time until as many are
left as were asked for (optimal brain surgeon, Hassibi and Stork 1993, on the least squares of the block's
last convolution, where it is exact). That convolution is then solved anew: the block gives, on what the
blocks cut before it hand on, what the uncut one gives in the uncut network. So little is lost before it
learns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from clickmask_models.encode_once import EncodeOnce
from clickmask_training.checks import ConfigError

_POSITIONS = 100  # of each image and block on which its last convolution is fitted
_RIDGE = 1e-4  # of the mean square of a hidden channel


@torch.no_grad()
def cut_hidden(network: EncodeOnce, hidden: Sequence[int], images: Sequence[Tensor]) -> EncodeOnce:
    """A copy of an encode-once network whose backbone has fewer hidden channels.

    Args:
        network: in eval mode; not changed.
        hidden: channels inside each of the 17 blocks, see ``MobileNetV2``; none above the network's.
        images: (B, 3, H, W) RGB in [0, 1] each, on which channels are judged.

    Raises:
        ConfigError: another kind of network, or more channels than it has.
    """
    check_encode_once(network)
    before = network.config.hidden
    if len(hidden) != len(before) or any(
        not 1 <= fewer <= have for fewer, have in zip(hidden, before, strict=True)
    ):
        raise ConfigError(f"--hidden: expected {len(before)} numbers from 1 to {before}, got {tuple(hidden)}")
    result = type(network)(replace(network.config, hidden=tuple(hidden))).eval()
    rest = {name: value for name, value in network.state_dict().items() if not name.startswith("backbone.")}
    result.load_state_dict(rest, strict=False)
    _cut_blocks(network.backbone.features, result.backbone.features, [2 * image - 1 for image in images])
    return result


def check_encode_once(network: nn.Module) -> None:
    """Raises ConfigError unless the network is an ``EncodeOnce``."""
    if not isinstance(network, EncodeOnce):
        raise ConfigError(
            f"--hidden, --backbone: expected an encode-once network, got {type(network).__name__}"
        )


def _cut_blocks(old: nn.ModuleList, new: nn.ModuleList, images: Sequence[Tensor]) -> None:
    """Fills the blocks of ``new`` from those of ``old``, which have as many hidden channels or more."""
    theirs = ours = [old[0](image) for image in images]  # block 1 chooses among the stem's channels
    for index in range(1, len(old)):
        block, count = old[index], new[index].conv[-1].in_channels
        if ours is theirs and count == block.conv[-1].in_channels:  # before the first cut
            for same in (0, 1) if index == 1 else (index,):  # block 1 has the stem's channels
                new[same].load_state_dict(old[same].state_dict())
            theirs = ours = [block(x) for x in ours]
            continue
        places = [_places(x, seed=index) for x in ours]
        hidden = torch.cat([_at(block.conv[:-1](x), p) for x, p in zip(ours, places, strict=True)])
        theirs, before = [block(x) for x in theirs], ours
        target = torch.cat([_at(x, p) for x, p in zip(theirs, places, strict=True)])
        if block.residual:
            target -= torch.cat([_at(x, p) for x, p in zip(before, places, strict=True)])
        kept, weight, bias = keep_channels(hidden, target, count)
        for whole, cut in zip(_inner(old, index), _inner(new, index), strict=True):
            cut.weight.copy_(whole.weight[kept])
            cut.bias.copy_(whole.bias[kept])
        new[index].conv[-1].weight.copy_(weight[..., None, None])
        new[index].conv[-1].bias.copy_(bias)
        if index == 1:
            ours = [new[0](image) for image in images]
        ours = [new[index](x) for x in ours]


def keep_channels(hidden: Tensor, target: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which channels a linear map should read, and the map, so that it misses its targets least.

    Args:
        hidden: (N, C) float32 samples of the channels.
        target: (N, D) float32 that the map should give.
        count: how many channels stay.

    Returns:
        Indices of those that stay, ascending (``count``,), and the map's weight (D, ``count``) and bias (D,).
    """
    x = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1).double()
    gram, moment = x.T @ x / len(x), x.T @ target.double() / len(x)
    gram.diagonal()[:-1] += _RIDGE * gram.diagonal()[:-1].mean()
    inverse = torch.linalg.inv(gram)
    solution = inverse @ moment
    alive = torch.ones(len(gram), dtype=torch.bool)
    for _ in range(hidden.shape[1] - count):
        loss = solution.square().sum(dim=1) / inverse.diagonal()
        loss[~alive] = loss[-1] = torch.inf  # the constant stays
        gone = int(loss.argmin())
        alive[gone] = False
        row = inverse[gone].clone()
        solution.addr_(row, solution[gone].clone(), alpha=-1 / float(row[gone]))
        inverse.addr_(row, row, alpha=-1 / float(row[gone]))
        inverse[gone, gone] = 1  # its row and column are zero now
    rows = torch.nonzero(alive).squeeze(1)
    solution = torch.linalg.solve(gram[rows][:, rows], moment[rows]).to(target.dtype)
    return rows[:-1], solution[:-1].T, solution[-1]


def _inner(features: nn.ModuleList, index: int) -> Iterator[nn.Conv2d]:
    """The convolutions that make a block's hidden channels; block 1 gets its from the stem."""
    yield features[0][0] if index == 1 else features[index].conv[0][0]
    yield features[index].conv[-2][0]


def _places(x: Tensor, seed: int) -> Tensor:
    """Random positions of each image of a batch, in shares of its area: (B, positions)."""
    return torch.rand(len(x), _POSITIONS, generator=torch.Generator().manual_seed(seed))


def _at(x: Tensor, places: Tensor) -> Tensor:
    """A map's values (B, C, h, w) at some positions: (B * positions, C)."""
    flat = x.flatten(2)
    index = (places * flat.shape[2]).long().unsqueeze(1).expand(-1, flat.shape[1], -1)
    return flat.gather(2, index).transpose(1, 2).flatten(0, 1)
