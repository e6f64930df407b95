"""Where a backbone is cut: its work is what is done, and no other sizes lose less for as little of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from clickmask_models.backbones.mobilenet_v2 import HIDDEN, MobileNetV2
from clickmask_models.encode_once import EncodeOnceCDNet
from clickmask_models.presets import build_network, preset
from clickmask_training import allocation
from clickmask_training.allocation import Size, allocate, block_sizes, choose, works
from clickmask_training.checks import ConfigError


def test_works_are_the_multiplications_that_are_done() -> None:
    hidden = tuple(count - 8 * (index % 3) for index, count in enumerate(HIDDEN))
    backbone = MobileNetV2(hidden)
    done = {index: 0 for index in range(len(backbone.features))}
    for index, block in enumerate(backbone.features):
        for layer in block.modules():
            if isinstance(layer, nn.Conv2d):

                def count(layer: nn.Module, _: object, output: torch.Tensor, index: int = index) -> None:
                    done[index] += layer.weight[0].numel() * output.numel()

                layer.register_forward_hook(count)
    backbone(torch.zeros(1, 3, 64, 96))
    expected = [done[0] + done[1], *(done[index] for index in range(2, 18))]
    np.testing.assert_allclose(np.array(works(backbone)) * 64 * 96, expected)


def random_blocks(rng: np.random.Generator) -> list[list[Size]]:
    return [
        [
            Size(64, 4.0, 0.0),
            *(Size(hidden, hidden / 16, float(rng.exponential())) for hidden in (48, 32, 16)),
        ]
        for _ in range(4)
    ]


@pytest.mark.parametrize("share", [0.9, 0.6, 0.3])
def test_no_other_sizes_lose_less_with_as_little_work(share: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        blocks = random_blocks(rng)
        hidden = choose(blocks, share)
        chosen = [next(s for s in sizes if s.hidden == h) for sizes, h in zip(blocks, hidden, strict=True)]
        work, distance = sum(s.work for s in chosen), sum(s.distance for s in chosen)
        assert share * 16 - 3 < work <= share * 16  # 3: the most that one size less saves
        assert all(
            sum(s.distance for s in other) >= distance - 1e-9
            for other in itertools.product(*blocks)
            if sum(s.work for s in other) <= work
        )


def test_all_is_kept_where_all_may_be() -> None:
    blocks = random_blocks(np.random.default_rng(4))
    assert choose(blocks, 1.0) == (64, 64, 64, 64)


def test_the_least_share_is_reached_to_the_last_digit() -> None:
    rng = np.random.default_rng(6)
    for _ in range(50):
        blocks = [
            [Size(3, 3 * unit, 0.0), Size(1, unit, 1.0), Size(2, 2 * unit, rng.uniform())]
            for unit in rng.uniform(size=5)
        ]
        assert choose(blocks, 1 / 3 + 1e-12) == (1, 1, 1, 1, 1)


def test_a_share_that_no_sizes_leave_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected a share of 0.25 to 1, .* got 0.2"):
        choose(random_blocks(np.random.default_rng(5)), 0.2)


@torch.no_grad()
def test_a_block_that_says_all_twice_loses_nothing_at_half_its_size() -> None:
    torch.manual_seed(0)
    network = EncodeOnceCDNet().eval()
    for layer in network.backbone.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)  # else little of the image comes through
    block = network.backbone.features[17]
    for layer in (block.conv[0][0], block.conv[1][0]):
        layer.weight[1::2] = layer.weight[::2]
        layer.bias[1::2] = layer.bias[::2]
    images = [torch.rand(16, 3, 128, 128) for _ in range(4)]  # more places than channels
    sizes = block_sizes(network, 16, images)
    assert sizes[0] == (960, sizes[0].work, 0.0)
    at = {size.hidden: size for size in sizes}
    assert list(at) == [960, 160, 240, 352, 480, 640, 800]
    assert at[480].distance < 0.05 * at[160].distance
    assert at[480].work == pytest.approx(sizes[0].work / 2)
    assert len(block_sizes(network, 0, images)) == 1  # the stem's channels stay


def test_what_was_chosen_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {index: [Size(count, count, 0.0), Size(16, 16, 17 - index)] for index, count in enumerate(HIDDEN)}
    monkeypatch.setattr(allocation, "block_sizes", lambda _network, index, _images: sizes[index])
    hidden = allocate(EncodeOnceCDNet(), 0.9, [])
    assert hidden == (*HIDDEN[:16], 16)  # the cheapest for its work
    assert capsys.readouterr().out == f"--hidden {' '.join(map(str, hidden))}\n"


def test_other_networks_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected an encode-once network, got CDNet"):
        allocate(build_network(preset("official")), 0.5, [])
