"""The precision of a built engine, proven from what its inspector says of each layer.

A builder may give other types than were asked for without a word (in TensorRT 10, where weak typing was the
default), so that what was built is read back. The inspector's JSON is that of an engine built with detailed
profiling verbosity; of tensors it says, in TensorRT 10, ``"Format/Datatype": "Row major linear FP16 format"``
and in 11 ``"Datatype": "Half", "Format": ...``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from clickmask_export.errors import VerificationError
from clickmask_export.precision_policy import NodePrecision, heavy_nodes

# Layers that compute nothing: copies, changes of layout, shapes, synchronisation.
_IDLE = re.compile(r"noop|reformat|copy|constant|shape|signal|wait|barrier", re.IGNORECASE)
_TYPES = {
    "fp16": re.compile(r"\b(fp16|half|float16)\b", re.IGNORECASE),
    "fp32": re.compile(r"\b(fp32|float|float32)\b", re.IGNORECASE),
    "int8": re.compile(r"\bint8\b", re.IGNORECASE),
    "bf16": re.compile(r"\b(bf16|bfloat16)\b", re.IGNORECASE),
}
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_NAME_PARTS = re.compile(r" \+ |\.\.\.|\{ForeignNode\[|\]\}|, ")
# The manifest is for people to read; a plan's fused layers have names of many hundred characters.
_LONGEST_NAME, _MOST_NAMES = 200, 200
_LEAST_FOUND = 0.9


@dataclass(frozen=True)
class Layer:
    """A layer of an engine.

    Attributes:
        name: as the inspector has it.
        types: of its tensors and weights: any of "fp16", "fp32", "int8", "bf16".
        nodes: names of the ONNX nodes that it was fused from, as far as they are known.
    """

    name: str
    types: frozenset[str]
    nodes: frozenset[str]


@dataclass(frozen=True)
class Proof:
    """What was proven of one engine.

    Attributes:
        layers: how many compute in floating point or 8-bit integers.
        half: how many of them touch half precision.
        fp32_layers: policy to the names of the layers that compute in float32 because of it.
    """

    layers: int
    half: int
    fp32_layers: Mapping[str, tuple[str, ...]]


def read_layers(information: str, known: Mapping[str, NodePrecision]) -> list[Layer]:
    """The layers that compute, from ``EngineInspector.get_engine_information`` in JSON.

    Args:
        information: the JSON text, of TensorRT 10 or 11.
        known: names of the ONNX graph's nodes.

    Raises:
        VerificationError: it is no such text, or one without details.
    """
    try:
        layers = list(json.loads(information)["Layers"])
    except (ValueError, TypeError, KeyError) as exc:
        raise VerificationError(
            f"expected JSON with 'Layers' from TensorRT's engine inspector, got {str(information)[:80]!r}"
        ) from exc
    if any(isinstance(layer, str) for layer in layers):
        raise VerificationError(
            "the engine inspector names layers without their types: the plan was built without detailed "
            "profiling verbosity"
        )
    return [
        Layer(str(layer.get("Name", "")), frozenset(_types(layer)), frozenset(_nodes(layer) & known.keys()))
        for layer in layers
        if not _IDLE.search(str(layer.get("LayerType", "")))
    ]


def prove(layers: Sequence[Layer], nodes: Mapping[str, NodePrecision], precision: str, graph: str) -> Proof:
    """Holds an engine's layers against what the graph promises.

    Every convolution and matrix product that is to be half (or 8 bits) must be in a layer that touches half
    (or 8 bits): a layer of pure float32 is one that was asked for and not got. Nearly all must be found in
    the engine by name, since what cannot be found is not proven.

    Args:
        layers: see ``read_layers``.
        nodes: see ``node_precisions``.
        precision: of the network's body.
        graph: its name, for messages.

    Raises:
        VerificationError: the precision asked for was not got, or nothing can be told.
    """
    typed = [layer for layer in layers if layer.types]
    if not typed:
        raise VerificationError(
            f"TensorRT's engine inspector tells the type of none of the {len(layers)} layers of the {graph}, "
            "so that its precision is not proven"
        )
    wanted = {"fp16": "fp16", "int8": "int8"}.get(precision)
    if wanted is not None:
        _check_heavy(typed, heavy_nodes(nodes, wanted), wanted, graph)
    return Proof(
        layers=len(typed),
        half=sum("fp16" in layer.types for layer in typed),
        fp32_layers=_by_policy(typed, nodes),
    )


def half_share(proofs: Sequence[Proof]) -> float:
    """Share of layers in half precision over several engines."""
    layers = sum(proof.layers for proof in proofs)
    return sum(proof.half for proof in proofs) / layers if layers else 0.0


def _check_heavy(layers: Sequence[Layer], heavy: set[str], wanted: str, graph: str) -> None:
    got = {node for layer in layers if wanted in layer.types for node in layer.nodes}
    refused = {node for layer in layers if wanted not in layer.types for node in layer.nodes} & heavy - got
    if refused:
        raise VerificationError(
            f"{wanted} was asked for and not got: {len(refused)} of {len(heavy)} convolutions and matrix "
            f"products of the {graph} compute in another type, such as {min(refused)}"
        )
    found = len(heavy & got)
    if found < _LEAST_FOUND * len(heavy):
        raise VerificationError(
            f"the engine inspector shows {found} of {len(heavy)} convolutions and matrix products of the "
            f"{graph} in {wanted}, at least {_LEAST_FOUND:.0%} are needed as proof"
        )


def _by_policy(layers: Sequence[Layer], nodes: Mapping[str, NodePrecision]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for layer in layers:
        if layer.types == {"fp32"}:
            policies = {nodes[name].policy for name in layer.nodes} - {None}
            for policy in sorted(filter(None, policies)):
                found.setdefault(policy, []).append(_printable(layer.name)[:_LONGEST_NAME])
    return {policy: tuple(names[:_MOST_NAMES]) for policy, names in sorted(found.items())}


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in name) or "unnamed"


def _types(layer: Mapping[str, object]) -> Iterator[str]:
    tensors = [*_objects(layer.get("Inputs")), *_objects(layer.get("Outputs"))]
    said = [str(tensor.get(key, "")) for tensor in tensors for key in ("Format/Datatype", "Datatype")]
    # With dynamic shapes formats may be left open ("N/A"); the weights' type then tells.
    said += [str(weights.get("Type", "")) for weights in _objects([layer.get("Weights")])]
    for name, pattern in _TYPES.items():
        if any(map(pattern.search, said)):
            yield name


def _objects(values: object) -> list[Mapping[str, object]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _nodes(layer: Mapping[str, object]) -> set[str]:
    name = str(layer.get("Name", ""))
    return {*_ONNX_LAYER.findall(str(layer.get("Metadata", ""))), *_NAME_PARTS.split(name)}
