"""A Polygraphy script for one graph: the same inputs through ONNX Runtime and TensorRT, masks compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clickmask.manifest import GraphSpec

_SCRIPT = '''\
"""Runs {graph} in ONNX Runtime and in TensorRT on the same inputs. Written by clickmask; edit at will.

Needs polygraphy, onnxruntime and, with an NVIDIA GPU, tensorrt: pip install "clickmask[debug,cpu,tensorrt]"
"""

import sys

import numpy as np
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.backend.trt import CreateConfig, EngineFromNetwork, NetworkFromOnnxPath, Profile, TrtRunner
from polygraphy.comparator import Comparator

MODEL = {model!r}
INPUTS = {inputs!r}
MASKS = {masks!r}  # outputs that are logits
LIMIT = {limit!r}  # above it a logit is of the mask
PROFILES = {profiles}

feeds = [dict(np.load(path)) for path in INPUTS]
profiles = []
for shapes in PROFILES:
    profile = Profile()
    for name, (least, usual, most) in shapes.items():
        profile.add(name, min=least, opt=usual, max=most)
    profiles.append(profile)
# Precision is in the graph: a strongly typed network, and no precision flag.
engine = EngineFromNetwork(NetworkFromOnnxPath(MODEL, strongly_typed=True), CreateConfig(profiles=profiles))
runners = [OnnxrtRunner(SessionFromOnnx(MODEL)), TrtRunner(engine)]
results = Comparator.run(runners, data_loader=feeds)

worst = 1.0
(_, ours), (_, theirs) = results.items()
for right, got in zip(ours, theirs):
    for name in right.keys():
        print(f"{{name}}: largest difference {{np.abs(right[name] - got[name]).max():.3g}}")
        if name in MASKS:
            first, second = right[name] > LIMIT, got[name] > LIMIT
            union = (first | second).sum()
            iou = (first & second).sum() / union if union else 1.0
            print(f"{{name}}: IoU of the masks {{iou:.4f}}")
            worst = min(worst, iou)
finite = Comparator.validate(results, check_inf=True, check_nan=True)
print("finite:", finite)
sys.exit(not finite or worst < {least_iou})
'''


def polygraphy_script(
    graph: str,
    spec: GraphSpec,
    model: str,
    inputs: Sequence[str],
    profiles: Sequence[Mapping[str, tuple[tuple[int, ...], ...]]],
    limit: float = 0.0,
    least_iou: float = 0.97,
) -> str:
    """The text of a script for ``polygraphy`` 0.53.

    Args:
        graph: its name in the bundle.
        spec: its inputs and outputs.
        model: path of its ONNX file.
        inputs: paths of .npz files, each the inputs of one call by name.
        profiles: for each input size, tensor name to its least, usual and largest shape.
        limit: the logit of the manifest's threshold, above which the mask is.
        least_iou: of the masks; below it, or where a value is not finite, the script's exit status is 1.
    """
    masks = [tensor.name for tensor in spec.outputs if tensor.name.endswith("logits")]
    shown = "[\n" + "".join(f"    {dict(profile)!r},\n" for profile in profiles) + "]"
    return _SCRIPT.format(
        graph=graph,
        model=model,
        inputs=list(inputs),
        masks=masks,
        profiles=shown,
        limit=limit,
        least_iou=least_iou,
    )
