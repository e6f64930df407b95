"""The export wrappers: flat tensors, flip averaging, Pixel Diffusion, float32 at the edges."""

from __future__ import annotations

import pytest
import torch
from export_stand_ins import EarlyFusion, EncodeOnce, flipped_average, inputs

from clickmask.backends.click_rows import by_label
from clickmask.manifest import TensorSpec
from clickmask_export.errors import LintError, RecipeError
from clickmask_export.graphs import diffusion_graph, make_graphs
from clickmask_export.networks import with_sparse_keys
from clickmask_export.precision import in_half
from clickmask_models.cdnet import CDNet, CDNetConfig
from clickmask_models.pixel_diffusion import PixelDiffusion, PixelDiffusionConfig


def run(graphs, image, clicks, mask):
    """A pipeline as a backend runs it, by name: the last output."""
    tensors = {"image": image, "clicks": clicks, "previous_mask": mask}
    with torch.no_grad():
        for graph in graphs:
            outputs = graph.module(*(tensors[spec.name] for spec in graph.spec.inputs))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            tensors |= {spec.name: out for spec, out in zip(graph.spec.outputs, outputs, strict=True)}
    return outputs[-1]


@pytest.mark.parametrize("kind", [EarlyFusion, EncodeOnce])
@pytest.mark.parametrize("previous_mask", [True, False])
def test_flips_average_logits(kind, previous_mask):
    network = kind(previous_mask)
    image, clicks, mask = inputs(batch=3, clicks=4, size=64)
    mask = mask if previous_mask else None
    got = run(make_graphs(network, flip=True, precision="fp32"), image, clicks, mask)
    torch.testing.assert_close(got, flipped_average(network, image, clicks, mask), atol=1e-5, rtol=0)
    straight = run(make_graphs(network, flip=False, precision="fp32"), image, clicks, mask)
    assert not torch.allclose(got, straight, atol=1e-2)


@pytest.mark.parametrize("kind", [EarlyFusion, EncodeOnce])
def test_pixel_diffusion_is_a_graph_that_follows_the_averaged_logits(kind):
    network, diffusion = kind(), PixelDiffusion(PixelDiffusionConfig(iterations=2))
    image, clicks, mask = inputs(batch=3, clicks=4, size=64)
    graphs = [*make_graphs(network, flip=True, precision="fp32"), diffusion_graph(diffusion)]
    expected = diffusion(flipped_average(network, image, clicks, mask), image, clicks)
    torch.testing.assert_close(run(graphs, image, clicks, mask), expected, atol=1e-5, rtol=0)


def test_without_flips_a_pipeline_is_the_network():
    image, clicks, mask = inputs(batch=2, clicks=3, size=64)
    for network in (EarlyFusion(), EncodeOnce()):
        got = run(make_graphs(network, flip=False, precision="fp32"), image, clicks, mask)
        torch.testing.assert_close(got, network(image, clicks, mask).detach())


def test_an_absent_click_stays_absent_in_the_mirror():
    network = EarlyFusion()
    image, clicks, mask = inputs(batch=1, clicks=1, size=64)
    clicks[:] = -1
    graphs = make_graphs(network, flip=True, precision="fp32")
    padded = torch.cat([clicks, torch.full((1, 5, 3), -1.0)], dim=1)
    torch.testing.assert_close(run(graphs, image, clicks, mask), run(graphs, image, padded, mask))


def test_specifications_name_features_by_stride_and_double_their_channels_with_flips():
    straight, _ = make_graphs(EncodeOnce(), flip=False, precision="fp32")
    assert [(t.name, t.shape) for t in straight.spec.outputs] == [
        ("feature_0", ("B", 6, "S/2", "S/2")),
        ("feature_1", ("B", 4, "S/4", "S/4")),
    ]
    flipped, decoder = make_graphs(EncodeOnce(), flip=True, precision="fp32")
    assert [t.shape[1] for t in flipped.spec.outputs] == [12, 8]
    assert [t.name for t in decoder.spec.inputs] == ["feature_0", "feature_1", "clicks", "previous_mask"]


def test_a_decoder_takes_the_image_only_where_nothing_else_tells_the_mirror_its_width():
    _, decoder = make_graphs(EncodeOnce(previous_mask=False), flip=True, precision="fp32")
    assert [t.name for t in decoder.spec.inputs][-2:] == ["clicks", "image"]
    _, decoder = make_graphs(EncodeOnce(previous_mask=False), flip=False, precision="fp32")
    assert [t.name for t in decoder.spec.inputs][-1] == "clicks"


def test_features_that_a_bundle_cannot_describe_are_refused():
    network = EncodeOnce()
    network.encode = lambda image: (image.mean((2, 3)),)
    with pytest.raises(RecipeError, match="feature 0 has the shape"):
        make_graphs(network, flip=False, precision="fp32")


@pytest.mark.parametrize("kind", [EarlyFusion, EncodeOnce])
def test_half_precision_keeps_the_edges_float32_and_the_original_untouched(kind):
    network = kind()
    graphs = make_graphs(network, flip=True, precision="fp16")
    image, clicks, mask = inputs(batch=2, clicks=3, size=64)
    seen = []
    for graph in graphs:
        seen += [out.dtype for out in _outputs(graph)]
    assert set(seen) == {torch.float32}
    body = graphs[0].module.network
    assert {p.dtype for p in body.parameters()} == {torch.float16}
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    full = run(make_graphs(network, flip=True, precision="fp32"), image, clicks, mask)
    half = run(make_graphs(network, flip=True, precision="fp16"), image, clicks, mask)
    assert 0 < (full - half).abs().max() < 0.05


def _outputs(graph):
    with torch.no_grad():
        outputs = graph.module(*graph.example())
    return outputs if isinstance(outputs, tuple) else (outputs,)


def test_clicks_reach_a_half_precision_body_in_float32():
    network = EarlyFusion()
    seen = []
    forward = EarlyFusion.forward

    class Spy(EarlyFusion):
        def forward(self, image, clicks, previous_mask):
            seen.append((image.dtype, clicks.dtype))
            return forward(self, image, clicks, previous_mask)

    network.__class__ = Spy
    (graph,) = make_graphs(network, flip=False, precision="fp16")
    graph.module(*graph.example())
    assert seen == [(torch.float16, torch.float32)]


@pytest.mark.parametrize(("flip", "precision", "tolerance"), [(True, "fp32", 1e-4), (False, "fp16", 0.05)])
def test_sparse_feature_diffusion_takes_clicks_by_label_and_gives_the_same(flip, precision, tolerance):
    torch.manual_seed(0)
    network = CDNet(CDNetConfig(backbone="mobilenet_v2", channels=8, pixel_diffusion=None)).eval()
    diffusion = network.feature_diffusion
    with torch.no_grad():  # affinities and messages that count
        for layer in (diffusion.theta, diffusion.phi, *(conv for conv, _ in diffusion.project)):
            layer.weight.mul_(20)
    image, clicks, _ = inputs(batch=2, clicks=7, size=256)  # 16 x 16 cells: windows of 9 leave most over
    graphs = make_graphs(with_sparse_keys(network), flip=flip, precision=precision)
    assert graphs[0].spec.inputs[1] == TensorSpec("clicks_by_label", "float32", ("B", 2, "M", 3))
    with torch.no_grad():
        apart = torch.from_numpy(by_label(clicks.numpy()))
        got = graphs[0].module(image, apart)
        expected, silent = (
            flipped_average(network, image, rows, None) if flip else network(image, rows)
            for rows in (clicks, torch.full_like(clicks, -1))
        )
    size = (expected - silent).abs().max()
    assert size > 0.02 * expected.abs().max()
    assert (got - expected).abs().max() < tolerance * size


@pytest.mark.parametrize(("value", "message"), [(1e5, "beyond half precision"), (1e-9, "all zeros")])
def test_weights_that_half_precision_cannot_hold_are_named(value, message):
    network = EarlyFusion()
    torch.nn.init.constant_(network.head.weight, value)
    with pytest.raises(LintError, match=rf"head\.weight.*{message}"):
        in_half(network)
