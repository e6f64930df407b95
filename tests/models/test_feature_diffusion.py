"""Feature Diffusion against the explicit N x N form of the paper's equations, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from clickmask_models.feature_diffusion import VARIANTS, FeatureDiffusion, FeatureDiffusionConfig

CHANNELS, HEIGHT, WIDTH = 12, 7, 9


def build(variant: str, channels: int = CHANNELS) -> FeatureDiffusion:
    """A module whose affinities spread over several units and whose D spans (0, 1)."""
    torch.manual_seed(1)
    module = FeatureDiffusion(channels, FeatureDiffusionConfig(variant)).eval()
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if "theta" in name or "phi" in name:
                tensor.mul_(3.0)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(0.0, 0.3)
            elif name == "destination_head.2.weight":
                tensor.mul_(20.0)
    return module


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, CHANNELS, HEIGHT, WIDTH, generator=generator)
    sources = torch.rand(2, 2, HEIGHT, WIDTH, generator=generator)
    return x, sources * (sources > 0.7)


def explicit(module: FeatureDiffusion, variant: str, x: torch.Tensor, sources: torch.Tensor) -> np.ndarray:
    """Eq. 1-4 for one image: A, S and D as written, with every N x N matrix."""
    wide = module.double()
    x, sources = x.double(), sources.double()
    channels, height, width = x.shape[1:]
    n = height * width
    features = x[0].reshape(channels, n).numpy()
    theta, phi, g = (
        getattr(wide, k).weight.detach()[:, :, 0, 0].numpy() @ features for k in ("theta", "phi", "g")
    )
    affinity = theta.T @ phi  # [i, j]: row i is the destination, column j the source
    ones = np.ones(n)
    if variant == "non_local":
        branches = [(ones, ones)]
    else:
        d = torch.sigmoid(wide.destination_head(x)).detach().numpy().reshape(n)
        branches = []
        for s, dx in zip(sources[0].reshape(2, n).numpy(), (d, 1 - d), strict=True):
            weights = {
                "fdm": (s, dx),
                "source2des_unsupervised": (s, dx),
                "source2full": (s, ones),
                "des2des": (dx, dx),
                "v1": (0.9 * s + 0.1, 0.9 * dx + 0.1),
                "v2": (s if not branches else 0.5 * s + 0.5 * dx, dx),
                "v3": (s + (dx > 0.8), dx),
            }
            branches.append(weights[variant])
    out = features.copy()
    for (source, destination), project in zip(branches, wide.project, strict=True):
        logits = source[None, :] * affinity
        exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
        matrix = exponent / exponent.sum(axis=1, keepdims=True) * destination[:, None]
        message = torch.from_numpy((matrix @ g.T).T.reshape(1, channels, height, width))
        out += project(message).detach().numpy().reshape(channels, n)
    return out.reshape(channels, height, width)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "auxiliary"])
def test_attention_form_equals_the_explicit_matrices(variant):
    x, sources = inputs()
    with torch.no_grad():
        got = build(variant)(x, sources).features
    for index in range(2):
        expected = explicit(build(variant), variant, x[index : index + 1], sources[index : index + 1])
        np.testing.assert_allclose(got[index], expected, rtol=1e-4, atol=1e-4)


def test_variants_differ_from_each_other():
    x, sources = inputs()
    with torch.no_grad():
        results = {v: build(v)(x, sources).features for v in VARIANTS if v != "source2des_unsupervised"}
    names = list(results)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            assert not torch.allclose(results[first], results[second]), (first, second)


def test_auxiliary_leaves_features_alone_and_gives_the_head_s_logits():
    x, sources = inputs()
    features, logits = build("auxiliary")(x, sources)
    assert torch.equal(features, x)
    assert logits.shape == (2, 1, HEIGHT, WIDTH)


def test_non_local_has_no_auxiliary_head():
    x, sources = inputs()
    assert build("non_local")(x, sources).destination_logits is None


def gradient_into_the_head(variant: str) -> bool:
    module = build(variant).train()
    module(*inputs()).features.square().sum().backward()
    return module.destination_head[2].weight.grad is not None


def test_destination_map_is_detached_unless_unsupervised():
    assert not gradient_into_the_head("fdm")
    assert not gradient_into_the_head("v3")
    assert gradient_into_the_head("source2des_unsupervised")


def test_without_clicks_every_position_is_an_equal_source():
    """S = 0 multiplies the logits, it does not mask: the message is the mean of g, not NaN."""
    module = build("source2full")
    x, sources = inputs()
    with torch.no_grad():
        got = module(x, torch.zeros_like(sources)).features
        mean = module.g(x).mean(dim=(2, 3), keepdim=True).expand_as(x)
        expected = x + sum(project(mean) for project in module.project)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_huge_affinities_stay_finite_under_autocast():
    module = build("fdm")
    x, sources = inputs()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(module(300 * x, sources).features).all()


def largest_allocation(run) -> int:
    """Bytes of the largest single operator's memory."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record, torch.no_grad():
        run()
    return max(event.self_cpu_memory_usage for event in record.events())


def test_no_n_by_n_matrix_at_128_by_128_cells():
    module = build("fdm", channels=8)
    x, sources = torch.randn(1, 8, 128, 128), torch.rand(1, 2, 128, 128)
    matrix = 4 * (128 * 128) ** 2  # 1.07 GB
    assert largest_allocation(lambda: module(x, sources)) < matrix / 50


def test_the_memory_measure_sees_a_matrix():
    x = torch.randn(8, 1024)
    assert largest_allocation(lambda: torch.softmax(x.T @ x, dim=1)) >= 4 * 1024**2


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="variant"):
        FeatureDiffusionConfig("v4")


@pytest.mark.parametrize(
    ("name", "value"),
    [("source_kind", "disk"), ("source_size", 0.0), ("source_size", float("nan")), ("inner_channels", 0)],
)
def test_bad_option_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        FeatureDiffusionConfig(**{name: value})
