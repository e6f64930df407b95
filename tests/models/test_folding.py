"""Folded layers against those as trained, in float64 and with norms' statistics far from 0 and 1."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clickmask_models.cdnet import CDNet
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_models.encode_once_csfp import EncodeOnceCSFP, EncodeOnceCSFPConfig
from clickmask_models.feature_diffusion import FeatureDiffusion, FeatureDiffusionConfig
from clickmask_models.folding import fold_norms
from clickmask_models.presets import preset

SMALL = {"widths": (8, 12, 16, 20), "click_widths": (4, 5, 6, 7)}
CLICKS = torch.tensor(
    [
        [[20.0, 30.0, 1.0], [60.0, 10.0, 0.0], [-1.0, -1.0, -1.0]],
        [[5.0, 3.0, 1.0], [9.0, 40.0, 1.0], [0, 0, 0]],
    ]
)


def lively(network):
    """In float64 and eval mode, with norms that would show if left out."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 2.0),
                (module.bias, -1.0, 1.0),
                (module.running_mean, -1.0, 1.0),
                (module.running_var, 0.2, 3.0),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return network.double().eval()


BUILDERS = {
    "CDNet": lambda: EncodeOnceCDNet(EncodeOnceConfig(**SMALL)),
    "CSFP": lambda: EncodeOnceCSFP(EncodeOnceCSFPConfig(**SMALL)),
    "CSFP without HSGM": lambda: EncodeOnceCSFP(EncodeOnceCSFPConfig(**SMALL, hsgm=False)),
}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS.keys())
def test_the_whole_network_gives_the_same(build):
    torch.manual_seed(0)
    network = lively(build())
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, 64, 96, generator=generator, dtype=torch.float64)
    previous = torch.rand(2, 1, 64, 96, generator=generator, dtype=torch.float64)
    folded = fold_norms(network)
    with torch.no_grad():
        expected = network(image, CLICKS, previous)
        got = folded.decode(folded.encode(image), CLICKS, previous)
    # Logits are float32, and FDM's softmax too: their rounding is what is left.
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    assert expected.std() > 1e-3


def test_the_encoder_gives_the_same():
    torch.manual_seed(0)
    network = EncodeOnceCDNet(EncodeOnceConfig(**SMALL)).double().eval()
    for module in (*network.backbone.modules(), *network.context.modules()):
        if isinstance(module, nn.Conv2d):  # as drawn they would shrink the image to nothing
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        expected, got = network.encode(image), fold_norms(network).encode(image)
    for one, other in zip(got[:3], expected[:3], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    # The context head's mean is float32: its rounding is what is left.
    assert (got[3] - expected[3]).abs().max() < 1e-6 * expected[3].abs().max()
    assert expected[3].std() > 1e-2


def test_every_sum_gives_the_same_to_the_last_digits():
    network = lively(EncodeOnceCDNet(EncodeOnceConfig(**SMALL)))
    folded = fold_norms(network)
    generator = torch.Generator().manual_seed(1)
    sides = (32, 16, 8, 4)

    def draw(channels, side):
        return torch.randn(1, channels, side, side, generator=generator, dtype=torch.float64)

    for level, side in enumerate(sides):
        hint, deep = draw(SMALL["click_widths"][level], side), draw(SMALL["widths"][level], side)
        raw = deep if level == 3 else draw((16, 24, 32)[level], side)
        upper = None if level == 3 else draw(SMALL["widths"][level + 1], side // 2)
        found = []
        for one in (network, folded):
            feature = one.coarse(raw) if level == 3 else one.lateral[level](raw)
            above = None
            if upper is not None:
                above = nn.functional.interpolate(
                    one.decoder.reduction(level)(upper), scale_factor=2.0, mode="bilinear"
                )
            found.append(one.decoder.blend(level, hint, feature, above).detach())
        torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)
        assert not isinstance(folded.decoder.fuse[level], nn.BatchNorm2d)


@pytest.mark.parametrize("variant", ["fdm", "v2", "v3", "non_local", "auxiliary"])
def test_feature_diffusion_with_joined_projections_gives_the_same(variant):
    torch.manual_seed(0)
    module = lively(FeatureDiffusion(12, FeatureDiffusionConfig(variant, inner_channels=6)))
    x, sources = torch.randn(2, 12, 5, 7, dtype=torch.float64), torch.rand(2, 2, 5, 7)
    folded = fold_norms(module)
    with torch.no_grad():
        expected, got = module(x, sources), folded(x, sources)
    torch.testing.assert_close(got.features, expected.features, rtol=1e-6, atol=1e-6)
    if variant != "auxiliary":
        assert len(folded.project) == 1
        assert not torch.allclose(got.features, x, atol=0.1)


def test_the_sparse_form_keeps_the_norms_that_it_folds_itself():
    module = lively(FeatureDiffusion(12, FeatureDiffusionConfig(inner_channels=6)))
    module.use_sparse_keys()
    assert len(fold_norms(module).project) == 2


def test_the_network_itself_stays_as_it_is():
    network = lively(EncodeOnceCDNet(EncodeOnceConfig(**SMALL)))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fold_norms(network)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_published_networks_fold_too():
    network = lively(CDNet(preset("paper")))
    assert len(fold_norms(network).feature_diffusion.project) == 1


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"network\.eval\(\)"):
        fold_norms(FeatureDiffusion(4, FeatureDiffusionConfig()).train())
