"""HRNet with a stem for clicks: branches at strides 4 to 32 that stay side by side to the end.

Three 3x3 stages exchange features between branches of ``width``, 2, 4 and 8 times ``width`` channels; all
four, at stride 4, are the output. Resizes are bilinear and align corners, as in the click networks' code.
Module names are the published ones, whose weights load as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickmask_models.backbones.resnet import BasicBlock, Bottleneck
from clickmask_models.deeplab import resize
from clickmask_models.layers import conv_norm_act

# Published forms: name -> width, and whether it is the small one.
HRNETS: dict[str, tuple[int, bool]] = {"hrnet18s": (18, True), "hrnet18": (18, False), "hrnet32": (32, False)}


class HRNet(nn.Module):
    """The backbone: ``features = hrnet(hrnet.stem(image, addition))``; odd sizes round up at every stride.

    Args:
        width: channels of the finest branch: 18, 32, 48, ...
        small: half the blocks in every branch, and fewer exchanges between them (HRNet-18s).
    """

    def __init__(self, width: int, small: bool = False) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"HRNet width must be at least 1 channel, got {width}")
        self.stem_channels, self.channels = 64, 15 * width
        blocks = 2 if small else 4
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        first = [Bottleneck(64 if index == 0 else 256, 64, 1, (1, 1)) for index in range(blocks)]
        self.layer1 = nn.Sequential(*first)
        self.transition1 = _transition([256], widths[:2])
        self.stage2 = _stage(1, widths[:2], blocks)
        self.transition2 = _transition(widths[:2], widths[:3])
        self.stage3 = _stage(3 if small else 4, widths[:3], blocks)
        self.transition3 = _transition(widths[:3], widths)
        self.stage4 = _stage(2 if small else 3, widths, blocks)

    def stem(self, image: Tensor, addition: Tensor) -> Tensor:
        """First convolution of the image, plus features of the clicks after its ReLU.

        Args:
            image: (B, 3, H, W), normalised by ``resnet.MEAN`` and ``resnet.STD``.
            addition: (B, 64, H/2, W/2).

        Returns:
            (B, 64, H/2, W/2).
        """
        return F.relu(self.bn1(self.conv1(image))) + addition

    def forward(self, stem: Tensor) -> Tensor:
        """(B, 64, H/2, W/2) of ``stem`` -> (B, channels, H/4, W/4), the four branches, finest first."""
        x = F.relu(self.bn2(self.conv2(stem)))
        branches = _pass(self.transition1, [self.layer1(x)])
        branches = _pass(self.transition2, self.stage2(branches))
        branches = _pass(self.transition3, self.stage3(branches))
        finest, *coarser = self.stage4(branches)
        return torch.cat([finest, *(resize(branch, finest.shape[-2:], True) for branch in coarser)], dim=1)


class _Exchange(nn.Module):
    """Blocks in every branch, then to each branch the sum of all, brought to its size and width."""

    def __init__(self, widths: list[int], blocks: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width, 1, (1, 1)) for _ in range(blocks))) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_route(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        branches = [blocks(x) for blocks, x in zip(self.branches, inputs, strict=True)]
        outputs = []
        for target, routes in enumerate(self.fuse_layers):
            total = branches[target]
            size = total.shape[-2:]
            for source, (route, x) in enumerate(zip(routes, branches, strict=True)):
                if source != target:
                    routed = route(x)
                    total = total + (routed if source < target else resize(routed, size, True))
            outputs.append(F.relu(total))
        return outputs


def _stage(repeats: int, widths: list[int], blocks: int) -> nn.Sequential:
    return nn.Sequential(*(_Exchange(widths, blocks) for _ in range(repeats)))


def _route(widths: list[int], source: int, target: int) -> nn.Module:
    """What a branch passes through on its way to another; a coarser one is enlarged afterwards."""
    if source == target:
        return nn.Identity()
    if source > target:
        return conv_norm_act(widths[source], widths[target], 1, activation=False)
    halvings = [
        conv_norm_act(widths[source], widths[source], 3, stride=2) for _ in range(target - source - 1)
    ]
    last = conv_norm_act(widths[source], widths[target], 3, stride=2, activation=False)
    return nn.Sequential(*halvings, last)


def _transition(old: list[int], new: list[int]) -> nn.ModuleList:
    """One module per new branch; a branch that was there and keeps its width passes unchanged."""
    modules: list[nn.Module] = []
    for index, width in enumerate(new):
        if index >= len(old):  # the published names wrap it once more: it could halve more than once
            modules.append(nn.Sequential(conv_norm_act(old[-1], width, 3, stride=2)))
        elif old[index] == width:
            modules.append(nn.Identity())
        else:
            modules.append(conv_norm_act(old[index], width, 3))
    return nn.ModuleList(modules)


def _pass(transition: nn.ModuleList, branches: list[Tensor]) -> list[Tensor]:
    """A new branch starts from the coarsest old one."""
    return [module(branches[min(i, len(branches) - 1)]) for i, module in enumerate(transition)]
