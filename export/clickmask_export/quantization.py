"""INT8 by explicit Q/DQ nodes: scales measured on photographs, written into the graph.

Convolutions compute in 8 bits, with a scale for each output channel of the weights and one for each
activation. Click maps and Feature Diffusion's products and softmax stay float32, and Pixel Diffusion, whose
graph is left as it is. So do the convolutions that 8 bits harm most: each is quantised alone, and those that
move the graph's outputs furthest are left out, as few as the masks allow (see ``int8_gate``), and with them
what would be alone between them.

The ranges are the same for every runtime, the form is not (decision 0018):

- ONNX Runtime on a CPU fuses a convolution only between quantised tensors and with a quantised bias.
  Activations are uint8, whose range takes the place of the ReLU or Clip after a convolution. Weights have 7
  bits: without VNNI, x86 sums pairs of products in 16 bits, where 8 would saturate, on the user's machine and
  not on the one that built. Of a network in two graphs the encoder alone is quantised: a decoder is slower in
  8 bits.
- TensorRT knows symmetric int8 only and no quantised bias, and fuses what is between convolutions if their
  inputs alone are quantised.
"""

from __future__ import annotations

import inspect
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import numpy_helper

from clickmask.backends.click_rows import by_label
from clickmask.encode import sigmoid
from clickmask.manifest import InputSpec
from clickmask_export.bisect import relative_error
from clickmask_export.calibration import Calibration, Photo, clicks_in, square
from clickmask_export.errors import BuildError, VerificationError
from clickmask_export.int8_gate import CHOICE, compare_graphs
from clickmask_export.onnx_runs import Feeds, run_session, session_of
from clickmask_export.progress import Progress

Form = Literal["onnxruntime", "tensorrt"]

QUANTISED = ("Conv",)
ABSORBED = ("Clip", "Relu")  # activations that do no more than the range of what they give
LEFT_OUT = (0.1, 0.2, 0.3, 0.4, 0.5)  # shares of the convolutions, tried in turn
_CLICKS_PER_PHOTO = 3
_RANKED_ON = 3  # calls


def quantised(
    models: Mapping[str, bytes],
    spec: InputSpec,
    calibration: Calibration,
    threshold: float,
    form: Form,
    progress: Progress,
) -> dict[str, bytes]:
    """The ONNX files of a bundle with the network's in Q/DQ form.

    Args:
        models: graph name to its float32 ONNX file; what is not quantised is given back as it is.
        spec: of the bundle's input.
        calibration: photos to measure on, and to compare on.
        threshold: of the mask, a probability.
        form: for which runtime; see the module's docstring.
        progress: told of every step.

    Raises:
        VerificationError: the masks differ too much even with half of the convolutions left out.
    """
    networks = {name: model for name, model in models.items() if name != "pixel_diffusion"}
    to_quantise = {name: m for name, m in networks.items() if form != "onnxruntime" or name != "decoder"}
    with tempfile.TemporaryDirectory() as folder:
        with progress.stage(f"make inputs of {len(calibration.measured)} photographs"):
            feeds = calibration_feeds(to_quantise, spec, calibration.measured)
        quantisers, ranked = {}, {}
        for name, model in to_quantise.items():
            with progress.stage(f"measure ranges of the {name}, and what 8 bits do to each convolution"):
                quantisers[name] = Quantiser(model, feeds[name], form, Path(folder) / f"{name}.json")
                ranked[name] = quantisers[name].by_harm(progress)
        for share in LEFT_OUT:
            with progress.stage(f"compare masks with the worst {share:.0%} of the convolutions in float32"):
                made = dict(networks)
                for name, quantiser in quantisers.items():
                    harmless = ranked[name][round(share * len(ranked[name])) :]
                    made[name] = quantiser.quantise(without_lone(models[name], harmless))
                found = compare_graphs(networks, made, calibration.held, spec, threshold)
            progress.note(f"the masks' IoU with float32: {found}")
            if found.reaches(CHOICE):
                return {**models, **made}
    raise VerificationError(
        f"int8 costs too much on the {len(calibration.held)} photographs that were held back: {found} with "
        f"the worst {LEFT_OUT[-1]:.0%} of the convolutions in float32; needed: {CHOICE}. Use more "
        "photographs like those the network will see, or --precision fp16 or fp32"
    )


def calibration_feeds(
    models: Mapping[str, bytes], spec: InputSpec, photos: Sequence[Photo]
) -> dict[str, list[Feeds]]:
    """What each graph of the network is fed when photos are clicked on: the data to measure ranges on.

    Each photo is met at one of the input sizes in turn, with one, two and three clicks, each call with the
    mask of the one before, as in a session.

    Args:
        models: graph name to its float32 ONNX file; without "pixel_diffusion".
        spec: of the bundle's input.
        photos: (H, W, 3) uint8 RGB.

    Returns:
        Graph name to the inputs of each call.
    """
    sessions = {name: session_of(model) for name, model in models.items()}
    clicked = [name for name in models if name != "encoder"]
    feeds: dict[str, list[Feeds]] = {name: [] for name in models}
    for number, photo in enumerate(photos):
        image = square(photo, spec.sizes[number % len(spec.sizes)], spec)
        given: Feeds = {"image": image}
        if "encoder" in sessions:
            feeds["encoder"].append({"image": image})
            if clicked:
                given |= run_session(sessions["encoder"], given)
        mask = np.zeros((1, 1, *image.shape[2:]), np.float32)
        for count in range(1, _CLICKS_PER_PHOTO + 1):
            clicks = clicks_in(image.shape[-1], count, number)
            given |= {"clicks": clicks, "clicks_by_label": by_label(clicks), "previous_mask": mask}
            for name in clicked:
                wanted = {i.name for i in sessions[name].get_inputs()}
                fed = {key: value for key, value in given.items() if key in wanted}
                feeds[name].append(fed)
                mask = sigmoid(run_session(sessions[name], fed)["logits"])
    return feeds


class Quantiser:
    """Makes Q/DQ forms of one graph from one measurement of its ranges."""

    def __init__(self, model: bytes, feeds: Sequence[Feeds], form: Form, ranges: Path) -> None:
        """Nothing is measured yet.

        Args:
            model: its float32 ONNX file.
            feeds: see ``calibration_feeds``.
            form: for which runtime; see the module's docstring.
            ranges: where ONNX Runtime keeps what it has measured.
        """
        self._model, self._feeds, self._form, self._ranges = model, feeds, form, ranges
        graph = onnx.load_model_from_string(model).graph
        self.convolutions = [node.name for node in graph.node if node.op_type in QUANTISED]
        self._activation = absorbed_activations(graph) if form == "onnxruntime" else {}

    def quantise(self, names: Sequence[str]) -> bytes:
        """The ONNX file in which the named convolutions are quantised; inputs and outputs stay."""
        from onnxruntime.quantization import CalibrationDataReader, quantize_static

        if "calibration_cache_path" not in inspect.signature(quantize_static).parameters:
            raise BuildError(
                'int8 needs onnxruntime 1.31 or newer: pip install --upgrade "onnxruntime>=1.31"'
            )

        feeds = iter(self._feeds)

        class Reader(CalibrationDataReader):
            def get_next(self) -> Feeds | None:
                return next(feeds, None)

        if not names:
            return self._model
        path = self._ranges.with_suffix(".onnx")
        with _quiet():
            quantize_static(
                onnx.load_model_from_string(self._model),
                path,
                Reader(),
                op_types_to_quantize=[*QUANTISED, *ABSORBED],  # whose ranges are measured, all at once
                nodes_to_quantize=[*names, *(self._activation[n] for n in names if n in self._activation)],
                calibration_cache_path=self._ranges,
                **_settings(self._form),
            )
        return onnx.load(path).SerializeToString(deterministic=True)

    def by_harm(self, progress: Progress) -> list[str]:
        """The convolutions, that first which moves the graph's outputs most if it alone is quantised."""
        few = self._feeds[:: max(1, len(self._feeds) // _RANKED_ON)][:_RANKED_ON]
        rights = [run_session(session_of(self._model), feed) for feed in few]
        harm = {}
        for done, name in enumerate(self.convolutions, start=1):
            session = session_of(self.quantise([name]))
            ours = [run_session(session, feed) for feed in few]
            harm[name] = max(
                relative_error(right[key], got[key])
                for right, got in zip(rights, ours, strict=True)
                for key in right
            )
            progress.step(done, len(self.convolutions))
        return sorted(harm, key=lambda name: -harm[name])


def _settings(form: Form) -> dict[str, Any]:
    """How a runtime wants its integers: arguments of ``quantize_static``."""
    from onnxruntime.quantization import QuantFormat, QuantType

    tensorrt = form == "tensorrt"
    return {
        "quant_format": QuantFormat.QDQ,
        "per_channel": True,
        "reduce_range": not tensorrt,
        "activation_type": QuantType.QInt8 if tensorrt else QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "extra_options": {
            "ActivationSymmetric": tensorrt,
            "WeightSymmetric": True,
            "QuantizeBias": not tensorrt,
            "OpTypesToExcludeOutputQuantization": list(QUANTISED) if tensorrt else [],
            "CalibMovingAverage": True,  # of the extremes: single outliers would stretch them
        },
    }


def absorbed_activations(graph: onnx.GraphProto) -> dict[str, str]:
    """Convolution to the activation after it that a range takes the place of: ReLU, or a Clip around zero.

    A range always holds zero. A convolution that is an output of the graph, too, keeps a range of its own.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}

    def is_absorbed(node: onnx.NodeProto) -> bool:
        bounds = [name for name in node.input[1:] if name]
        if node.op_type not in ABSORBED or not constants.keys() >= set(bounds):
            return False
        low, high = (constants[name] if name else 0.0 for name in [*node.input[1:], "", ""][:2])
        return bool(low <= 0 <= high)

    after = {node.input[0]: node.name for node in graph.node if is_absorbed(node)}
    return {
        node.name: after[node.output[0]]
        for node in graph.node
        if node.op_type in QUANTISED and node.output[0] in after.keys() - outputs
    }


def without_lone(model: bytes, names: Sequence[str]) -> list[str]:
    """Those of the named convolutions that have another of them next to them, before or after.

    One that is alone among float32 ones gains less by 8 bits than the way there and back takes. Where each is
    alone all stay, so that something is quantised.
    """
    neighbours = {name: set[str]() for name in names}
    last: dict[str, set[str]] = {}  # tensor to the convolutions that it comes from, others between left aside
    for node in onnx.load_model_from_string(model).graph.node:
        sources = set[str]().union(*(last.get(tensor, ()) for tensor in node.input))
        if node.op_type in QUANTISED:
            for source in sources & neighbours.keys() if node.name in neighbours else ():
                neighbours[source].add(node.name)
                neighbours[node.name].add(source)
            sources = {node.name}
        elif node.op_type == "Shape":  # arithmetic on sizes leads nowhere
            sources = set()
        last.update(dict.fromkeys(node.output, sources))
    return [name for name in names if neighbours[name]] or list(names)


def quantised_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions whose inputs and weights come from 8-bit integers."""
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in QUANTISED and set(node.input[:2]) <= dequantised
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime advises pre-processing, which the exporter has done already."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
