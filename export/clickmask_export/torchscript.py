"""TorchScript by tracing: how an application that carries torch runs a bundle, in half precision on CUDA.

torch deprecates TorchScript as a whole; it is one optional artefact, and nothing else here depends on it. A
trace bakes in the device of the tensors it creates, so an artefact runs where it was traced. It bakes in
cuDNN's flags, too, and so float32 convolutions stay float32, whatever an application sets for its own.
"""

from __future__ import annotations

import io
import re

import torch

from clickmask_export.errors import BuildError, TargetUnavailableError
from clickmask_export.graphs import Graph, Precision
from clickmask_export.onnx_graph import first_line, quiet

_SOURCE_LINES = ".debug_pkl"
_WRITERS_OWN = (".data/", "version", "byteorder")  # PyTorchFileWriter writes these itself
# torch numbers the classes of all traces of a process.
_CLASS_NUMBER = re.compile(rb"___torch_mangle_(\d+)")


def trace_device(precision: Precision) -> str:
    """Where to trace: "cuda" if there is a CUDA device, else "cpu".

    Raises:
        TargetUnavailableError: half precision without CUDA, where it could not be verified.
    """
    if torch.cuda.is_available():
        return "cuda"
    if precision == "fp16":
        raise TargetUnavailableError(
            "an fp16 TorchScript artefact runs on CUDA only and this machine has no CUDA device to verify "
            "it on: build there, or use --precision fp32, or --target onnxruntime"
        )
    return "cpu"


def export_torchscript(graph: Graph, device: str) -> bytes:
    """Traces and freezes a graph.

    Sizes that a Python number would fix stay dynamic only if the module takes them from tensor shapes; parity
    at every size of the bundle is what proves it.

    Returns:
        The archive, for ``torch.jit.load``; without the source lines of the build machine.

    Raises:
        BuildError: torch cannot trace the module.
    """
    module = graph.module.to(device)
    try:
        # TF32, on by default, rounds what Pixel Diffusion's convolutions copy.
        with torch.no_grad(), quiet(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            traced = torch.jit.trace(module, graph.example(device), check_trace=False)
            frozen = torch.jit.freeze(traced.eval())
            buffer = io.BytesIO()
            torch.jit.save(frozen, buffer)
    except Exception as exc:  # tracing runs arbitrary modules
        raise BuildError(f"torch cannot trace the {graph.name}: {first_line(exc)}") from exc
    finally:
        graph.module.to("cpu")
    return _reproducible(buffer.getvalue())


def is_half(archive: bytes) -> bool:
    """Whether the body of a frozen archive computes in half precision: most of its convolution weights are
    half.
    """
    with quiet():
        module = torch.jit.load(io.BytesIO(archive), map_location="cpu")
    constants = [node for node in module.graph.findAllNodes("prim::Constant") if node.hasAttribute("value")]
    values = [node.t("value") for node in constants if node.kindOf("value") == "t"]
    weights = [value for value in values if value.ndim == 4]
    weights += [parameter for _, parameter in module.named_parameters() if parameter.ndim == 4]
    return 2 * sum(weight.numel() for weight in weights if weight.dtype == torch.float16) > sum(
        weight.numel() for weight in weights
    )


def _reproducible(archive: bytes) -> bytes:
    """The same archive without the build machine's file names and lines, its classes numbered from 0."""
    reader = torch._C.PyTorchFileReader(io.BytesIO(archive))
    records = {
        name: reader.get_record(name)
        for name in reader.get_all_records()
        if not name.endswith(_SOURCE_LINES) and not name.startswith(_WRITERS_OWN)
    }
    numbers = {int(number) for name in records for number in _CLASS_NUMBER.findall(name.encode())}
    order = {number: index for index, number in enumerate(sorted(numbers))}

    def renumber(text: bytes) -> bytes:
        return _CLASS_NUMBER.sub(lambda match: b"___torch_mangle_%d" % order[int(match[1])], text)

    out = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(out)
    for name in sorted(records):
        names_classes = name.endswith((".py", "data.pkl"))
        record = renumber(records[name]) if names_classes else records[name]
        writer.write_record(renumber(name.encode()).decode(), record, len(record))
    writer.write_end_of_file()
    return out.getvalue()
