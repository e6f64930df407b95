"""TorchScript artefacts: truly dynamic, reproducible, and honest about precision."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from export_stand_ins import EarlyFusion, EncodeOnce, flipped_average, inputs

from clickmask_export.errors import BuildError, TargetUnavailableError
from clickmask_export.graphs import Graph, diffusion_graph, make_graphs
from clickmask_export.torchscript import export_torchscript, is_half, trace_device
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_models.pixel_diffusion import PixelDiffusion, PixelDiffusionConfig


def load(archive):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(io.BytesIO(archive))


@pytest.mark.parametrize("extents", [(1, 1, 64), (2, 4, 96), (3, 7, 160)])
def test_every_extent_equals_torch(extents):
    image, clicks, mask = inputs(*extents)
    (graph,) = make_graphs(EarlyFusion(), flip=True, precision="fp32")
    logits = load(export_torchscript(graph, "cpu"))(image, clicks, mask)
    expected = flipped_average(EarlyFusion(), image, clicks, mask)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    diffusion = PixelDiffusion(PixelDiffusionConfig(iterations=2))
    got = load(export_torchscript(diffusion_graph(diffusion), "cpu"))(image, clicks, expected)
    torch.testing.assert_close(got, diffusion(expected, image, clicks), atol=2e-4, rtol=0)


def test_two_graphs_run_one_after_the_other():
    image, clicks, mask = inputs(2, 5, 128)
    encoder, decoder = make_graphs(EncodeOnce(), flip=True, precision="fp32")
    features = load(export_torchscript(encoder, "cpu"))(image)
    got = load(export_torchscript(decoder, "cpu"))(*features, clicks, mask)
    torch.testing.assert_close(got, flipped_average(EncodeOnce(), image, clicks, mask), atol=1e-5, rtol=0)


@pytest.mark.parametrize("extents", [(1, 1, 64), (3, 7, 160)])
def test_the_default_s_kind_of_network_equals_torch(extents):
    torch.manual_seed(0)
    network = EncodeOnceCDNet(EncodeOnceConfig(widths=(8, 8, 8, 8), click_widths=(4, 4, 4, 4))).eval()
    image, clicks, mask = inputs(*extents)
    encoder, decoder = (
        load(export_torchscript(graph, "cpu")) for graph in make_graphs(network, flip=False, precision="fp32")
    )
    with torch.no_grad():
        expected = network(image, clicks, mask)
    torch.testing.assert_close(decoder(*encoder(image), clicks, mask), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 1e-3


def test_the_same_network_gives_the_same_bytes_without_paths():
    archives = []
    for _ in range(2):
        (graph,) = make_graphs(EarlyFusion(), flip=True, precision="fp32")
        archives.append(export_torchscript(graph, "cpu"))
    assert archives[0] == archives[1]
    assert b".debug_pkl" not in archives[0]
    assert b"/site-packages" not in archives[0]


@pytest.mark.parametrize(("precision", "half"), [("fp32", False), ("fp16", True)])
def test_the_precision_of_an_archive_is_read_off_its_weights(precision, half):
    (graph,) = make_graphs(EarlyFusion(), flip=False, precision=precision)
    assert is_half(export_torchscript(graph, "cpu")) is half


def test_no_convolution_may_compute_in_tf32_whatever_torch_is_set_to():
    assert torch.backends.cudnn.allow_tf32  # torch's default
    graphs = [*make_graphs(EncodeOnce(), flip=True, precision="fp32")]
    graphs.append(diffusion_graph(PixelDiffusion(PixelDiffusionConfig(iterations=2))))
    for graph in graphs:
        traced = load(export_torchscript(graph, "cpu")).inlined_graph
        calls = list(traced.findAllNodes("aten::_convolution"))
        assert calls
        assert not traced.findAllNodes("aten::conv2d")  # which asks the process
        assert [list(call.inputs())[12].toIValue() for call in calls] == [False] * len(calls)
    assert torch.backends.cudnn.allow_tf32


def test_half_precision_without_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert trace_device("fp32") == "cpu"
    with pytest.raises(TargetUnavailableError, match="no CUDA device"):
        trace_device("fp16")


def test_an_exception_without_words_is_named():
    class Silent(torch.nn.Module):
        def forward(self, *_):
            raise AssertionError

    (graph,) = make_graphs(EarlyFusion(), flip=False, precision="fp32")
    with pytest.raises(BuildError, match=r"cannot trace the network: AssertionError$"):
        export_torchscript(Graph("network", Silent(), graph.spec), "cpu")


def test_a_module_that_cannot_be_traced_is_a_build_error():
    class Broken(torch.nn.Module):
        def forward(self, *_):
            raise RuntimeError("not like this\nmore lines")

    (graph,) = make_graphs(EarlyFusion(), flip=False, precision="fp32")
    with pytest.raises(BuildError, match=r"cannot trace the network: not like this$"):
        export_torchscript(Graph("network", Broken(), graph.spec), "cpu")
