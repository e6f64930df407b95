"""MobileNetV2 with the published weights, against an independent run and on photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from clickmask_models.backbones.mobilenet_v2 import ContextHead, MobileNetV2

FILES = {
    "imagenet": "mobilenet_v2_1.0_imagenet_bnfolded_fp16.safetensors",
    "voc": "mobilenet_v2_1.0_deeplab_voc_bnfolded_fp16.safetensors",
}
# Strides and depthwise dilations of features.0 to features.17 in the DeepLab form.
STRIDES = {0: 2, 2: 2, 4: 2, 7: 2}
DILATIONS = {15: 2, 16: 2, 17: 2}


def weights(shared: Path, name: str) -> dict[str, torch.Tensor]:
    return {key: value.float() for key, value in load_file(shared / "weights" / FILES[name]).items()}


def backbone(tensors: dict[str, torch.Tensor]) -> MobileNetV2:
    network = MobileNetV2()
    wanted = {k: v for k, v in tensors.items() if k.startswith("features.") and ".18." not in k}
    network.load_state_dict(wanted)
    return network.eval()


def same(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int, dilation: int
) -> torch.Tensor:
    """TensorFlow's SAME rule: ceil(n / stride) outputs, the odd pad after."""
    pads = []
    for size, kernel in zip(x.shape[:1:-1], weight.shape[:1:-1], strict=True):
        reach = dilation * (kernel - 1) + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        pads += [total // 2, total - total // 2]
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(F.pad(x, pads), weight, bias, stride, 0, dilation, groups)


def independent(tensors: dict[str, torch.Tensor], x: torch.Tensor) -> dict[int, torch.Tensor]:
    """Outputs of features.0 to features.17, block by block from the file's names alone."""
    outputs = {}
    for index in range(18):
        prefix = f"features.{index}."
        names = sorted({k.rsplit(".", 1)[0] for k in tensors if k.startswith(prefix)})
        y = x
        for position, name in enumerate(names):
            weight = tensors[f"{name}.weight"]
            spatial = weight.shape[-1] == 3
            stride = STRIDES.get(index, 1) if spatial else 1
            dilation = DILATIONS.get(index, 1) if spatial else 1
            y = same(y, weight, tensors[f"{name}.bias"], stride, dilation)
            if index == 0 or position < len(names) - 1:
                y = y.clamp(0, 6)
        x = x + y if x.shape == y.shape else y
        outputs[index] = x
    return outputs


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_pyramid_equals_an_independent_run_of_the_file(shared, name, size):
    tensors = weights(shared, name)
    x = 2 * torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) - 1
    with torch.no_grad():
        got = backbone(tensors)(x)
        expected = independent(tensors, x)
    for level, index, stride in zip(got, (1, 3, 6, 17), (2, 4, 8, 16), strict=True):
        assert level.shape[-2:] == (size[0] // stride, size[1] // stride)
        torch.testing.assert_close(level, expected[index], rtol=1e-4, atol=1e-3)


def test_stride_two_pads_right_and_bottom_only():
    """A kernel that copies its top-left tap must return even pixels, not shifted ones."""
    network = MobileNetV2()
    convolution = network.features[0][0]
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.bias.zero_()
        convolution.weight[0, 0, 0, 0] = 1.0
        convolution.weight[1, 0, 2, 2] = 1.0
    x = torch.arange(64.0).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    with torch.no_grad():
        y = convolution(x)
    np.testing.assert_array_equal(y[0, 0], x[0, 0, ::2, ::2])
    np.testing.assert_array_equal(y[0, 1, :3, :3], x[0, 0, 2::2, 2::2])
    assert not y[0, 1, 3].any()
    assert not y[0, 1, :, 3].any()


@pytest.mark.parametrize(("photo", "label"), [("chelsea", 8), ("astronaut", 15), ("motorcycle_left", 14)])
def test_published_head_names_the_object_of_a_photograph(shared, photo, label):
    """VOC classes: 8 cat, 14 motorbike, 15 person."""
    folder = Path(pytest.importorskip("skimage").__file__).parent / "data"
    io = pytest.importorskip("skimage.io")
    image = torch.from_numpy(io.imread(folder / f"{photo}.png")[..., :3].copy()).permute(2, 0, 1)[None]
    image = F.interpolate(image.float() / 255, (320, 480), mode="bilinear", antialias=True)
    tensors = weights(shared, "voc")
    head = ContextHead().eval()
    head.load_state_dict({k: tensors[k] for k in head.state_dict()})
    with torch.no_grad():
        context = head(backbone(tensors)(2 * image - 1).s16)
        classes = F.conv2d(context, tensors["logits.weight"], tensors["logits.bias"]).argmax(dim=1)
    counts = torch.bincount(classes.ravel(), minlength=21)
    assert counts[1:].argmax() + 1 == label
    assert counts[label] > 0.1 * classes.numel()


def test_stem_addition_enters_after_the_first_activation(shared):
    network = backbone(weights(shared, "voc"))
    x, extra = torch.rand(1, 3, 32, 32), torch.rand(1, 32, 16, 16)
    with torch.no_grad():
        got = network(x, extra).s2
        expected = network.features[1](network.features[0](x) + extra)
    assert torch.equal(got, expected)
