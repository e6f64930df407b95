"""ONNX export: one graph at a time, dynamic in batch, clicks and size, readable and reproducible.

``torch.export`` is called on its own first: given a module, the ONNX exporter retries with other strategies
and may hand back a graph whose batch is fixed at the example's. Names of nodes tell which module they come
from (``pixel_diffusion/stages.3/neighbours.2/Conv``); stack traces and file paths of the build machine are
removed.
"""

from __future__ import annotations

import ast
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch.export import Dim

from clickmask.manifest_reader import MAX_CLICKS, MAX_SIZE, MIN_SIZE, SIZE_STEP
from clickmask_export.errors import BuildError
from clickmask_export.graphs import Graph

OPSET = 18
_MAX_BATCH = 1024
_PROTOBUF_LIMIT = (1 << 31) - 1
_SCOPES = "pkg.torch.onnx.name_scopes"


def export_onnx(graph: Graph) -> onnx.ModelProto:
    """Exports a graph.

    Returns:
        A self-contained model (no external data) whose inputs, outputs and symbolic dimensions carry the
        names of the specification.

    Raises:
        BuildError: torch cannot export the module with dynamic shapes, or the model exceeds 2 GiB.
        ModuleNotFoundError: a package that the exporter imports is missing.
    """
    with torch.no_grad(), quiet():
        try:
            program = torch.export.export(
                graph.module, graph.example(), dynamic_shapes=_dynamic_shapes(graph), strict=False
            )
            exported = torch.onnx.export(
                program,
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                input_names=[tensor.name for tensor in graph.spec.inputs],
                output_names=[tensor.name for tensor in graph.spec.outputs],
                verbose=False,
            )
        except ModuleNotFoundError:  # not torch's failure: the command says what to install
            raise
        except Exception as exc:  # the exporter raises types of its own, of torch's and of sympy's
            raise BuildError(f"torch cannot export the {graph.name} to ONNX: {first_line(exc)}") from exc
    model: onnx.ModelProto = exported.model_proto
    _name_nodes(model.graph)
    _name_dimensions(model.graph, graph)
    _count_images(model.graph)
    _strip(model)
    if model.ByteSize() > _PROTOBUF_LIMIT:
        raise BuildError(
            f"the {graph.name} has {model.ByteSize()} bytes; a single ONNX file holds at most 2 GiB"
        )
    return model


def serialise(model: onnx.ModelProto) -> bytes:
    """The file's bytes; the same model always gives the same."""
    return model.SerializeToString(deterministic=True)


def _dynamic_shapes(graph: Graph) -> tuple:
    step = Dim("s", min=MIN_SIZE // SIZE_STEP, max=MAX_SIZE // SIZE_STEP)  # S = 32 s
    dims = {"B": Dim("B", min=1, max=_MAX_BATCH), "M": Dim("M", min=1, max=MAX_CLICKS)}
    shapes = tuple(
        {i: _dim(extent, dims, step) for i, extent in enumerate(tensor.shape) if isinstance(extent, str)}
        for tensor in graph.spec.inputs
    )
    return (shapes,) if graph.name == "decoder" else shapes  # the decoder's forward takes *tensors


def _dim(extent: str, dims: dict[str, Dim], step: Dim) -> Dim:
    if extent in dims:
        return dims[extent]
    factor = SIZE_STEP // int(extent.partition("/")[2] or 1)
    return factor * step if factor > 1 else step


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Names each node after the module it comes from and its operator, numbered where that repeats."""
    seen: Counter[str] = Counter()
    for node in graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key == _SCOPES), "[]")
        name = "/".join([*_path(ast.literal_eval(scopes)), node.op_type])
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name] - 1}"


def _path(scopes: list[str]) -> list[str]:
    """['', 'a', 'a.b.3', 'conv2d'] -> ['a', 'b.3']: modules relative to their parent, without the torch
    call.
    """
    path, parent = [], ""
    for scope in scopes[:-1]:
        if scope and scope != parent:
            path.append(scope.removeprefix(f"{parent}."))
            parent = scope
    return path


def _name_dimensions(model: onnx.GraphProto, graph: Graph) -> None:
    """Gives symbolic dimensions the specification's names, and keeps the shapes between that these describe.

    Where a runtime sees that two values have one shape, it fuses a sum into the convolution before it and
    draws clicks without a copy of the planes; ONNX's own inference does not follow symbolic sizes so far.
    """
    names: dict[str, str] = {}
    for values, specs in ((model.input, graph.spec.inputs), (model.output, graph.spec.outputs)):
        for value, spec in zip(values, specs, strict=True):
            for dimension, extent in zip(value.type.tensor_type.shape.dim, spec.shape, strict=True):
                # Only what the exporter left symbolic: the lint is to see a dimension that it has fixed.
                if isinstance(extent, str) and dimension.HasField("dim_param"):
                    names[dimension.dim_param] = extent
                    dimension.dim_param = extent
    produced = {name for node in model.node for name in node.output}
    between = [value for value in model.value_info if value.name in produced and _rename(value, names)]
    del model.value_info[:]
    model.value_info.extend(between)


def _rename(value: onnx.ValueInfoProto, names: dict[str, str]) -> bool:
    """Renames the symbolic dimensions of a value; whether it has any, and each is made of names alone."""
    symbolic = [d for d in value.type.tensor_type.shape.dim if d.HasField("dim_param")]
    for dimension in symbolic:
        dimension.dim_param = _renamed(dimension.dim_param, names)
    words = {word for d in symbolic for word in re.findall(r"[A-Za-z]\w*", d.dim_param)}
    return bool(symbolic) and words <= {"B", "M", "S"}


def _renamed(extent: str, names: dict[str, str]) -> str:
    """'3072*s81**2' -> '3072*(S/32)**2', where ``names`` has '32*s81': 'S'."""
    if extent in names:
        return names[extent]
    for known, name in sorted(names.items(), key=lambda item: len(item[1])):
        factor, _, symbol = known.rpartition("*")
        extent = re.sub(rf"\b{symbol}\b", f"({name}/{factor})" if factor else name, extent)
    return extent


def _count_images(graph: onnx.GraphProto) -> None:
    """Has the batch read off the first input, whose other extents follow from S.

    ONNX Runtime works a shape out ahead only where it knows all of a tensor's: given B and S it then knows
    every size in the graph, and M, which changes from click to click, stands in no other's way.
    """
    inputs = {value.name for value in graph.input}
    for node in graph.node:
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type == "Shape" and node.input[0] in inputs and attributes == {"start": 0, "end": 1}:
            node.input[0] = graph.input[0].name


def _strip(model: onnx.ModelProto) -> None:
    """Removes what neither runtimes nor readers need: stack traces and paths."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:]
    model.doc_string = graph.doc_string = ""
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del item.metadata_props[:]
        item.doc_string = ""


@contextmanager
def quiet() -> Iterator[None]:
    """Silences torch's notes on its own deprecations and on operators that no network here uses."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def first_line(exc: BaseException) -> str:
    """The line of an exporter's message that says something, where there is one."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[0] if lines else type(exc).__name__
