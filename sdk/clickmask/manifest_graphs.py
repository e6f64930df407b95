"""Reading the manifest's graphs, and checking that they fit together and that the run time can feed them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import get_args

from .manifest import DType, GraphSpec, InputSpec, TensorSpec
from .strict_json import Node

MAX_TENSORS = 64
MAX_RANK = 8
MAX_DIMENSION = 1 << 20

_SYMBOL = re.compile(r"B|M|S|S/([1-9][0-9]{0,3})")


def _tensors(*specs: TensorSpec) -> dict[str, TensorSpec]:
    return {spec.name: spec for spec in specs}


TENSORS = _tensors(
    TensorSpec("image", "float32", ("B", 3, "S", "S")),
    TensorSpec("clicks", "float32", ("B", "M", 3)),
    TensorSpec("clicks_by_label", "float32", ("B", 2, "M", 3)),
    TensorSpec("previous_mask", "float32", ("B", 1, "S", "S")),
    TensorSpec("logits", "float32", ("B", 1, "S", "S")),
    TensorSpec("diffused_logits", "float32", ("B", 1, "S", "S")),
)
"""What a graph takes and gives, by name; the same in every bundle. Their meaning is in docs/bundle.md."""


def read_graphs(node: Node, spec: InputSpec) -> dict[str, GraphSpec]:
    """The pipeline, with the tensors of docs/bundle.md.

    It is ``{"network"}``, ``{"network", "local_network"}`` or ``{"encoder", "decoder"}``, and then perhaps
    ``"pixel_diffusion"``.
    """
    graphs = {name: _graph(item) for name, item in node.members().items()}
    _check_pipeline(node, graphs, spec)
    return graphs


def _graph(node: Node) -> GraphSpec:
    keys = node.fields(("inputs", "outputs"))
    spec = GraphSpec(
        inputs=tuple(_tensor(item) for item in keys["inputs"].items(1, MAX_TENSORS)),
        outputs=tuple(_tensor(item) for item in keys["outputs"].items(1, MAX_TENSORS)),
    )
    names = [tensor.name for tensor in spec.inputs + spec.outputs]
    if len(set(names)) != len(names):
        raise node.error("each tensor name once", str(names))
    return spec


def _tensor(node: Node) -> TensorSpec:
    keys = node.fields(("name", "dtype", "shape"))
    shape = tuple(_dimension(item) for item in keys["shape"].items(1, MAX_RANK))
    if shape[0] != "B":
        raise keys["shape"].error("the batch 'B' as first dimension")
    return TensorSpec(name=keys["name"].text(), dtype=keys["dtype"].choice(get_args(DType)), shape=shape)


def _dimension(node: Node) -> int | str:
    if isinstance(node.value, str):
        if not _SYMBOL.fullmatch(node.value):
            raise node.error("a number, 'B', 'M', 'S' or 'S/n'")
        return node.value
    return node.integer(1, MAX_DIMENSION)


def _named(*names: str) -> dict[str, TensorSpec]:
    return {name: TENSORS[name] for name in names}


def _prompt(graph: GraphSpec, spec: InputSpec) -> dict[str, TensorSpec]:
    """Clicks in one of their two forms, and the previous mask where there is one."""
    form = "clicks_by_label" if "clicks_by_label" in _tensors(*graph.inputs) else "clicks"
    return _named(form, "previous_mask") if spec.previous_mask else _named(form)


def _check_pipeline(node: Node, graphs: Mapping[str, GraphSpec], spec: InputSpec) -> None:
    image, logits = _named("image"), _named("logits")
    networks = set(graphs) - {"pixel_diffusion"}
    if "pixel_diffusion" in graphs:
        last = graphs["pixel_diffusion"]
        _check_tensors(node, "pixel_diffusion", "inputs", last.inputs, _named("image", "clicks", "logits"))
        _check_tensors(node, "pixel_diffusion", "outputs", last.outputs, _named("diffused_logits"))
    if networks in ({"network"}, {"network", "local_network"}):
        for name in networks:
            _check_tensors(node, name, "inputs", graphs[name].inputs, image | _prompt(graphs[name], spec))
            _check_tensors(node, name, "outputs", graphs[name].outputs, logits)
    elif networks == {"encoder", "decoder"}:
        encoder, decoder = graphs["encoder"], graphs["decoder"]
        features = _tensors(*encoder.outputs)
        if set(features) != {f"feature_{i}" for i in range(len(features))}:
            raise node.error("encoder outputs feature_0, feature_1, ...", str(sorted(features)))
        _check_tensors(node, "encoder", "inputs", encoder.inputs, image)
        # A decoder may take the image again: its width is where clicks are mirrored.
        wanted = _prompt(decoder, spec) | features | (image if "image" in _tensors(*decoder.inputs) else {})
        _check_tensors(node, "decoder", "inputs", decoder.inputs, wanted)
        _check_tensors(node, "decoder", "outputs", decoder.outputs, logits)
        _check_divisors(node, encoder.outputs, spec.sizes)
    else:
        pipelines = "{'network'}, {'network', 'local_network'} or {'encoder', 'decoder'}"
        raise node.error(f"the graphs {pipelines}, perhaps with 'pixel_diffusion'", str(sorted(graphs)))


def _check_tensors(
    node: Node, graph: str, side: str, got: tuple[TensorSpec, ...], wanted: Mapping[str, TensorSpec]
) -> None:
    place = node.at(graph).at(side)
    names = {tensor.name for tensor in got}
    if names != set(wanted):
        about_mask = "previous_mask" in names ^ set(wanted)
        hint = " (previous_mask exactly when input.previous_mask is true)" if about_mask else ""
        raise place.error(f"the tensors {sorted(wanted)}{hint}", str(sorted(names)))
    for tensor in got:
        want = wanted[tensor.name]
        if (tensor.dtype, tensor.shape) != (want.dtype, want.shape):
            expected = f"{tensor.name} to be {want.dtype} {list(want.shape)}"
            raise place.error(expected, f"{tensor.dtype} {list(tensor.shape)}")


def _check_divisors(node: Node, features: tuple[TensorSpec, ...], sizes: tuple[int, ...]) -> None:
    for feature in features:
        for dimension in feature.shape:
            match = _SYMBOL.fullmatch(str(dimension))
            divisor = int(match.group(1) or 1) if match else 1
            if any(size % divisor for size in sizes):
                raise node.error(
                    f"{feature.name} dimensions that divide every size of {list(sizes)}", str(dimension)
                )
