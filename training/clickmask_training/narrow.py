"""``python -m clickmask_training.narrow``: a trained encode-once CDNet of fewer channels, to train on.

The backbone's are cut by ``hidden``, as ``allocation`` says or as it is told. Of each set of the decoder's,
those are kept that the layers after them hear most of: the variance of a channel, as a layer gets it, times
the squared norm of that layer's weights for it, summed over the layers. The constant part of what is cut is
made up for by the batch norms, whose statistics are taken anew. What remains learns in a fraction of the time
that a new decoder takes; it is not a network to ship.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clickmask_models.checkpoints import load_checkpoint, save_checkpoint
from clickmask_models.encode_once import EncodeOnceCDNet
from clickmask_training.allocation import allocate
from clickmask_training.checks import TINY, ConfigError, number
from clickmask_training.command import check_output, run_command
from clickmask_training.config import read_config
from clickmask_training.data import TrainingData
from clickmask_training.hidden import cut_hidden
from clickmask_training.samples import Batch, make_batch

_BATCHES = 6


class ChannelSet(NamedTuple):
    """Channels that stay or go together.

    Attributes:
        kept: how many stay.
        made_by: layers whose outputs they are: convolutions, the norms after them, depthwise ones on the way.
        heard_by: convolutions that take them as inputs.
    """

    kept: int
    made_by: Sequence[nn.Module]
    heard_by: Sequence[nn.Conv2d]


def narrow(
    network: nn.Module, widths: Sequence[int], click_widths: Sequence[int], batches: Sequence[Batch]
) -> EncodeOnceCDNet:
    """A copy of an encode-once CDNet whose decoder has fewer channels.

    Args:
        network: in eval mode; not changed.
        widths: of the decoder at strides 2, 4, 8 and 16; none above the network's.
        click_widths: of the click stem at the same strides.
        batches: training samples, on which channels are judged.

    Raises:
        ConfigError: another kind of network, or widths above those it has.
    """
    if not isinstance(network, EncodeOnceCDNet):
        raise ConfigError(f"expected an encode-once CDNet to make narrower, got {type(network).__name__}")
    config = network.config
    for name, old, new in (
        ("--widths", config.widths, widths),
        ("--click-widths", config.click_widths, click_widths),
    ):
        if len(new) != 4 or any(not 1 <= fewer <= have for fewer, have in zip(new, old, strict=True)):
            raise ConfigError(f"{name}: expected four numbers from 1 to {old}, got {tuple(new)}")
    config = replace(config, widths=tuple(widths), click_widths=tuple(click_widths))
    result = EncodeOnceCDNet(config).eval()
    sets = channel_sets(network, config.widths, config.click_widths)
    choices = _choose(network, sets, batches)
    result.load_state_dict(_cut_state(network, sets, choices))
    _renew_statistics(result, batches)
    return result


def channel_sets(
    network: EncodeOnceCDNet, widths: Sequence[int], click_widths: Sequence[int]
) -> list[ChannelSet]:
    """Every set of channels of the decoder, with how many of it stay."""
    decoder = network.decoder
    sets = []
    for level, stem in enumerate(decoder.click_stem):
        heard_by = [decoder.click_lateral[level], *decoder.click_stem[level + 1 : level + 2]]
        sets.append(ChannelSet(click_widths[level], [stem], heard_by))
    for level in range(3):
        blocks = [decoder.refine[0]] if level == 0 else list(decoder.refine[level])
        after = decoder.head if level == 0 else decoder.reduce[level - 1]
        made_by = [*_summed(network, level), decoder.reduce[level]]
        for (depthwise, norm), pointwise in blocks:
            # As wide before a depthwise convolution as after it, which is where the channels are heard.
            sets.append(ChannelSet(widths[level], [*made_by, depthwise, norm], [pointwise[0]]))
            made_by = list(pointwise[:2])
        sets.append(ChannelSet(widths[level], made_by, [after]))
    return sets + _coarse_sets(network, widths[3])


def _summed(network: EncodeOnceCDNet, level: int) -> list[nn.Module]:
    """What is summed at a stride, and the norm of the sum."""
    decoder = network.decoder
    return [network.lateral[level], decoder.click_lateral[level], decoder.fuse[level]]


def _coarse_sets(network: EncodeOnceCDNet, width: int) -> list[ChannelSet]:
    """At stride 16: the residual stream, and what lies inside its blocks."""
    decoder, diffusion = network.decoder, network.decoder.feature_diffusion
    depthwise, (pointwise, norm, _), last = diffusion.destination_head
    made_by, heard_by = [*_summed(network, 3), depthwise], [pointwise, decoder.reduce[2]]
    sets = [ChannelSet(width, [pointwise, norm], [last])]
    for block in decoder.global_blocks:
        expand, middle, project = block.body
        sets.append(ChannelSet(2 * width, [*expand[:2], *middle[:2]], [project[0]]))
        made_by += project[:2]
        heard_by.append(expand[0])
    if hasattr(diffusion, "project"):  # but in the variant that only has the auxiliary head
        made_by += [layer for branch in diffusion.project for layer in branch]
        heard_by += [diffusion.theta, diffusion.phi, diffusion.g]
    return [*sets, ChannelSet(width, made_by, heard_by)]


@torch.no_grad()
def _choose(network: nn.Module, sets: Iterable[ChannelSet], batches: Sequence[Batch]) -> list[Tensor]:
    """Indices of the channels that stay, ascending, of each set."""
    heard: dict[nn.Module, Tensor] = {}

    def listen(conv: nn.Conv2d, inputs: tuple[Tensor]) -> None:
        strength = conv.weight.square().sum(dim=(0, 2, 3)) * inputs[0].float().var(dim=(0, 2, 3))
        heard[conv] = heard.get(conv, 0) + strength

    hooks = [conv.register_forward_pre_hook(listen) for each in sets for conv in each.heard_by]
    _run(network, batches)
    for hook in hooks:
        hook.remove()
    return [sum(heard[conv] for conv in each.heard_by).topk(each.kept).indices.sort().values for each in sets]


def _cut_state(
    network: nn.Module, sets: Iterable[ChannelSet], choices: Iterable[Tensor]
) -> dict[str, Tensor]:
    """The network's state with the channels that stay."""
    outputs: dict[nn.Module, Tensor] = {}
    inputs: dict[nn.Module, Tensor] = {}
    for each, choice in zip(sets, choices, strict=True):
        outputs.update(dict.fromkeys(each.made_by, choice))
        inputs.update(dict.fromkeys(each.heard_by, choice))
    state = network.state_dict()
    for name, module in network.named_modules():
        for key in module.state_dict() if module in outputs or module in inputs else ():
            value = state[f"{name}.{key}"]
            if module in outputs and value.ndim:  # a norm's counter is a number
                value = value[outputs[module]]
            if module in inputs and value.ndim > 1:
                value = value[:, inputs[module]]
            state[f"{name}.{key}"] = value
    return state


def _renew_statistics(network: nn.Module, batches: Sequence[Batch]) -> None:
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over the batches
    network.train()
    _run(network, batches)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def _run(network: nn.Module, batches: Sequence[Batch]) -> None:
    for batch in batches:
        network(batch.image, batch.clicks, batch.previous_mask)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m clickmask_training.narrow", description=__doc__)
    four = partial(parser.add_argument, type=int, nargs=4, metavar=("S2", "S4", "S8", "S16"))
    parser.add_argument("checkpoint", type=Path, help="a trained encode-once CDNet (.safetensors)")
    four("--widths", help="channels of the decoder at strides 2, 4, 8 and 16 (default: as they are)")
    four("--click-widths", help="channels of the click stem at the same strides (default: as they are)")
    backbone = parser.add_mutually_exclusive_group()
    backbone.add_argument(
        "--hidden", type=int, nargs="+", metavar="N", help="channels inside each of the backbone's 17 blocks"
    )
    backbone.add_argument(
        "--backbone",
        type=float,
        metavar="SHARE",
        help="share of its multiplications that is left; cut where the features move least (some minutes)",
    )
    parser.add_argument("--config", type=Path, required=True, help="whose samples the channels are judged on")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--output", type=Path, required=True, help="where the narrower network is written")
    parser.set_defaults(run=_run_command)
    return run_command(parser.parse_args(arguments))


def _run_command(options: argparse.Namespace) -> None:
    if options.backbone is not None:
        number("--backbone", options.backbone, "a share in (0, 1]", TINY, 1)
    if not (options.hidden or options.backbone or options.widths or options.click_widths):
        raise ConfigError("expected what to cut: --hidden, --backbone, --widths or --click-widths")
    check_output("--output", options.output, ".safetensors")
    config = read_config(options.config)
    data = TrainingData(options.data, config.mixture, config.data)
    batches = [make_batch(data, config, index) for index in range(_BATCHES)]
    narrower = network = load_checkpoint(options.checkpoint)
    if options.hidden or options.backbone:
        images = [batch.image for batch in batches]
        narrower = cut_hidden(narrower, options.hidden or allocate(network, options.backbone, images), images)
    if options.widths or options.click_widths:
        widths = options.widths or network.config.widths
        narrower = narrow(narrower, widths, options.click_widths or network.config.click_widths, batches)
    save_checkpoint(options.output, narrower, {"narrowed_from": options.checkpoint.name})
    before, after = (sum(p.numel() for p in each.parameters()) for each in (network, narrower))
    print(f"wrote {options.output}: {after:,} of {before:,} parameters")


if __name__ == "__main__":
    sys.exit(main())
