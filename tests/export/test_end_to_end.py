"""From a checkpoint file to a bundle that a backend runs, through the command itself."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from clickmask.backends import open_backend
from clickmask.bundle import load_bundle
from clickmask_export.command import main
from clickmask_models.checkpoints import load_checkpoint, save_checkpoint
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_models.feature_diffusion import FeatureDiffusionConfig
from clickmask_models.pixel_diffusion import PixelDiffusion


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A small EncodeOnce network, its checkpoint and the bundle made of it."""
    folder = tmp_path_factory.mktemp("end_to_end")
    torch.manual_seed(0)
    config = EncodeOnceConfig(
        widths=(8, 8, 8, 8),
        click_widths=(4, 4, 4, 4),
        feature_diffusion=FeatureDiffusionConfig(inner_channels=4),
    )
    network = EncodeOnceCDNet(config)
    torch.nn.init.normal_(network.decoder.head.weight, std=5)
    save_checkpoint(folder / "tiny.safetensors", network)
    cv2.imwrite(str(folder / "photo.png"), np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
    return folder


@pytest.mark.slow
def test_checkpoint_to_bundle_to_logits(built, capsys):
    output = built / "engines" / "tiny"
    arguments = ["--checkpoint", built / "tiny.safetensors", "--output", output, "--size", 64, 96]
    arguments += ["--iterations", 2, "--parity-image", built / "photo.png"]
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr()
    assert "photograph" in printed.out
    assert f"Wrote {output}" in printed.out
    assert "export the decoder for onnxruntime" in printed.err
    assert "not that of preset 'encode_once_mobilenet_v2'" in printed.err
    assert "differs in widths, click_widths," in printed.err

    bundle = load_bundle(output)
    assert bundle.manifest.encodes_once
    assert bundle.manifest.pixel_diffusion.iterations == 2
    network = load_checkpoint(built / "tiny.safetensors")
    rng = np.random.default_rng(1)
    image = rng.random((2, 3, 96, 96), np.float32)
    clicks = np.float32([[[30, 40, 1], [-1, -1, -1]], [[10.5, 80, 0], [50, 50, 1]]])
    mask = rng.random((2, 1, 96, 96), np.float32)
    with torch.no_grad():
        tensors = [torch.from_numpy(array) for array in (image, clicks, mask)]
        logits = network(*tensors)
        diffusion = PixelDiffusion(replace(network.config.pixel_diffusion, iterations=2))
        expected = diffusion(logits, tensors[0], tensors[1]).numpy()
    backend = open_backend(bundle, "onnxruntime", "cpu")
    got = backend.decode(backend.encode(image), clicks, mask)
    np.testing.assert_allclose(got, expected, atol=5e-3)
    assert ((got > 0) == (expected > 0)).mean() > 0.9999
