"""The network as flat graphs: named tensors in, named tensors out, everything in between decided here.

An early-fusion network is one graph; an encode-once network is two, and the encoder's runs once per crop::

    network:          image, clicks[, previous_mask]                  -> logits
    encoder:          image                                           -> feature_0, feature_1, ...
    decoder:          feature_*, clicks[, previous_mask][, image]     -> logits
    pixel_diffusion:  image, clicks, logits                           -> diffused_logits

A bundle of two early-fusion networks has a second graph like the first, ``local_network``. Pixel Diffusion is
a graph of its own, so that a host can put its fused kernel there (decision 0013). Where Feature Diffusion is
in its sparse form, network and decoder take ``clicks_by_label``, (B, 2, M, 3), in place of ``clicks``: its
work grows with the rows of a label (decision 0014).

Flip averaging is inside the graph that gives the logits: it runs the image and its mirror image as one batch
and averages. With flips, the encoder's features hold the mirrored image's in the second half of their
channels, so that B stays the batch.

Inputs and outputs are float32 whatever the precision of the body.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from clickmask.manifest import GraphSpec, TensorSpec
from clickmask.manifest_graphs import TENSORS
from clickmask_export.errors import RecipeError
from clickmask_export.precision import in_half
from clickmask_models.feature_diffusion import FeatureDiffusion
from clickmask_models.folding import fold_norms

Precision = Literal["fp32", "fp16"]

NETWORK, LOCAL_NETWORK = "network", "local_network"

_IMAGE, _PREVIOUS_MASK, _CLICKS = TENSORS["image"], TENSORS["previous_mask"], TENSORS["clicks"]
_LOGITS, _DIFFUSED_LOGITS = TENSORS["logits"], TENSORS["diffused_logits"]

# Example extents: all different, none 0 or 1 (torch.export would bake those in), S a multiple of 32.
EXAMPLE_BATCH, EXAMPLE_CLICKS, EXAMPLE_SIZE = 2, 3, 96


@dataclass(frozen=True)
class Graph:
    """One graph of the pipeline.

    Attributes:
        name: ``network``, ``local_network``, ``encoder``, ``decoder`` or ``pixel_diffusion``.
        module: takes and gives float32 tensors in the order of the specification; in eval mode.
        spec: names, dtypes and shapes, as they will stand in the manifest.
    """

    name: str
    module: nn.Module
    spec: GraphSpec

    def example(self, device: str = "cpu") -> tuple[Tensor, ...]:
        """Inputs to export or trace with; values are plausible, extents are the ``EXAMPLE_`` constants."""
        extents = {"B": EXAMPLE_BATCH, "M": EXAMPLE_CLICKS, "S": EXAMPLE_SIZE}
        generator = torch.Generator().manual_seed(0)
        shapes = ([_extent(n, extents) for n in tensor.shape] for tensor in self.spec.inputs)
        return tuple(torch.rand(shape, generator=generator).to(device) for shape in shapes)


def make_graphs(
    network: nn.Module, *, flip: bool, precision: Precision, name: str = NETWORK
) -> tuple[Graph, ...]:
    """The graphs of a network.

    Args:
        network: in eval mode and float32; it is left as it is.
        flip: whether logits are averaged with those of the mirrored input.
        precision: of the body; see ``precision.in_half``.
        name: of the graph, if it is one.

    Raises:
        RecipeError: the encoder's features are not (B, C, S/n, S/n).
    """
    body = fold_norms(network)
    body = in_half(body) if precision == "fp16" else body
    dtype = torch.float16 if precision == "fp16" else torch.float32
    clicks, mask = _clicks(network), _previous_mask(network)
    if not hasattr(network, "encode"):
        module = NetworkGraph(body, flip, dtype).eval()
        return (Graph(name, module, GraphSpec((_IMAGE, clicks, *mask), (_LOGITS,))),)
    encoder = EncoderGraph(body, flip, dtype).eval()
    features = _feature_specs(encoder)
    decoder = DecoderGraph(body, flip, dtype, len(features), bool(mask)).eval()
    # Without a previous mask, the image tells how wide the frame is that clicks are mirrored in.
    image = (_IMAGE,) if flip and not mask else ()
    return (
        Graph("encoder", encoder, GraphSpec((_IMAGE,), features)),
        Graph("decoder", decoder, GraphSpec((*features, clicks, *mask, *image), (_LOGITS,))),
    )


def diffusion_graph(pixel_diffusion: nn.Module) -> Graph:
    """The graph of Pixel Diffusion, in float32 whatever the network's precision."""
    spec = GraphSpec((_IMAGE, _CLICKS, _LOGITS), (_DIFFUSED_LOGITS,))
    return Graph("pixel_diffusion", DiffusionGraph(pixel_diffusion).eval(), spec)


class DiffusionGraph(nn.Module):
    """Pixel Diffusion, its inputs in the order of the graph's."""

    def __init__(self, pixel_diffusion: nn.Module) -> None:
        super().__init__()
        self.pixel_diffusion = pixel_diffusion

    def forward(self, image: Tensor, clicks: Tensor, logits: Tensor) -> Tensor:
        return self.pixel_diffusion(logits, image, clicks)


class NetworkGraph(nn.Module):
    """A whole early-fusion network."""

    def __init__(self, network: nn.Module, flip: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.flip, self.dtype = network, flip, dtype

    def forward(self, image: Tensor, clicks: Tensor, previous_mask: Tensor | None = None) -> Tensor:
        inputs = (image, clicks, previous_mask)
        if self.flip:
            inputs = (_with_mirror(image), _with_mirrored_clicks(clicks, image), _with_mirror(previous_mask))
        # Clicks stay float32: half precision has no half pixels beyond 512.
        logits = self.network(inputs[0].to(self.dtype), _in_rows(inputs[1]), inputs[2]).float()
        return _average(logits, clicks) if self.flip else logits


class EncoderGraph(nn.Module):
    """What an encode-once network does once per crop."""

    def __init__(self, network: nn.Module, flip: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.flip, self.dtype = network, flip, dtype

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        inputs = _with_mirror(image) if self.flip else image
        features = self.network.encode(inputs.to(self.dtype))
        return tuple(_mirror_to_channels(f.float()) if self.flip else f.float() for f in features)


class DecoderGraph(nn.Module):
    """What an encode-once network does for each click; inputs in the order of the module's docstring."""

    def __init__(
        self, network: nn.Module, flip: bool, dtype: torch.dtype, features: int, previous_mask: bool
    ) -> None:
        super().__init__()
        self.network, self.flip, self.dtype = network, flip, dtype
        self.features, self.previous_mask = features, previous_mask

    def forward(self, *tensors: Tensor) -> Tensor:
        features, (clicks, *rest) = tensors[: self.features], tensors[self.features :]
        previous_mask = rest.pop(0) if self.previous_mask else None
        image = rest.pop(0) if rest else None
        inputs = (features, clicks, previous_mask)
        if self.flip:
            features = tuple(_channels_to_mirror(f) for f in features)
            frame = previous_mask if image is None else image  # make_graphs gives one
            inputs = (features, _with_mirrored_clicks(clicks, frame), _with_mirror(previous_mask))
        cast = tuple(f.to(self.dtype) for f in inputs[0])
        logits = self.network.decode(cast, _in_rows(inputs[1]), inputs[2]).float()
        return _average(logits, clicks) if self.flip else logits


def _average(logits: Tensor, clicks: Tensor) -> Tensor:
    """(2B, 1, H, W), mirrored ones last -> (B, 1, H, W)."""
    # Not chunk(2): torch.export would fix the batch.
    pair = logits.reshape(2, clicks.shape[0], *logits.shape[1:])
    return (pair[0] + pair[1].flip(-1)) / 2


def _with_mirror(planes: Tensor | None) -> Tensor | None:
    """(B, C, H, W) -> (2B, C, H, W): the planes, then their mirror images."""
    return None if planes is None else torch.cat([planes, planes.flip(-1)])


def _in_rows(clicks: Tensor) -> Tensor:
    """(B, 2, M, 3) -> (B, 2M, 3); (B, M, 3) stays."""
    return clicks.flatten(1, -2)


def _with_mirrored_clicks(clicks: Tensor, frame: Tensor) -> Tensor:
    """(B, ..., 3) -> (2B, ..., 3): x becomes W - 1 - x; absent rows keep their label and so stay absent."""
    mirrored_x = frame.shape[-1] - 1 - clicks[..., :1]
    return torch.cat([clicks, torch.cat([mirrored_x, clicks[..., 1:]], dim=-1)])


def _mirror_to_channels(features: Tensor) -> Tensor:
    """(2B, C, h, w) -> (B, 2C, h, w)."""
    double, channels, height, width = features.shape
    pair = features.reshape(2, double // 2, channels, height, width).transpose(0, 1)
    return pair.reshape(double // 2, 2 * channels, height, width)


def _channels_to_mirror(features: Tensor) -> Tensor:
    """The inverse of ``_mirror_to_channels``."""
    batch, double, height, width = features.shape
    pair = features.reshape(batch, 2, double // 2, height, width).transpose(0, 1)
    return pair.reshape(2 * batch, double // 2, height, width)


def _clicks(network: nn.Module) -> TensorSpec:
    sparse = any(isinstance(m, FeatureDiffusion) and m.sparse for m in network.modules())
    return TENSORS["clicks_by_label"] if sparse else _CLICKS


def _previous_mask(network: nn.Module) -> tuple[TensorSpec, ...]:
    return (_PREVIOUS_MASK,) if network.takes_previous_mask else ()


def _feature_specs(encoder: EncoderGraph) -> tuple[TensorSpec, ...]:
    """Shapes of the encoder's outputs, read off one run."""
    with torch.no_grad():
        outputs = encoder(torch.zeros(1, 3, EXAMPLE_SIZE, EXAMPLE_SIZE))
    return tuple(
        TensorSpec(f"feature_{i}", "float32", ("B", output.shape[1], *_strides(i, output)))
        for i, output in enumerate(outputs)
    )


def _strides(index: int, feature: Tensor) -> tuple[str, str]:
    height, width = feature.shape[2:] if feature.ndim == 4 else (0, 0)
    if height != width or height == 0 or EXAMPLE_SIZE % height:
        raise RecipeError(
            f"the encoder's feature {index} has the shape {tuple(feature.shape)} for a {EXAMPLE_SIZE} px "
            "input; expected (B, C, S/n, S/n), which is what a bundle can describe: change the network's "
            "encode()"
        )
    stride = EXAMPLE_SIZE // height
    return ("S", "S") if stride == 1 else (f"S/{stride}", f"S/{stride}")


def _extent(dimension: int | str, extents: dict[str, int]) -> int:
    if isinstance(dimension, int):
        return dimension
    symbol, _, divisor = dimension.partition("/")
    return extents[symbol] // int(divisor or 1)
