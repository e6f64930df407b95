"""Finds where a graph of a bundle loses precision, and writes Polygraphy scripts for the same in TensorRT."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from skimage import data

from clickmask.backends.click_rows import by_label
from clickmask.bundle import load_bundle
from clickmask.clicks import Click
from clickmask.encode import clicks_tensor, image_tensor, logit
from clickmask.view import Box, View
from clickmask_export.bisect import departures, first_guilty, float_nodes, mask_iou, run, with_half
from clickmask_export.polygraphy_script import polygraphy_script
from clickmask_export.precision_policy import islands
from clickmask_export.tensorrt_build import profile_shapes
from clickmask_export.tensorrt_options import PlanOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="engines/default", help="its ONNX graphs are the reference")
    parser.add_argument(
        "--other", help="bundle to compare with (default: the same, rounded to half precision)"
    )
    parser.add_argument(
        "--islands", action="store_true", help="round what a half-precision build keeps in float32 as well"
    )
    parser.add_argument("--size", type=int, default=384, help="side of the network's input")
    parser.add_argument("--least-iou", type=float, default=0.99, help="of the masks; below it is a loss")
    parser.add_argument("--output", type=Path, default=Path("out/debug"), help="folder for what is written")
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    models = onnx_graphs(bundle)
    others = None if options.other is None else onnx_graphs(load_bundle(options.other))
    options.output.mkdir(parents=True, exist_ok=True)

    feeds = inputs_of(bundle.manifest, options.size)
    for name, model in models.items():
        kept = frozenset() if options.islands else islands(model, name)
        rounded = [node for node in float_nodes(model) if node not in kept]
        other = with_half(model, rounded) if others is None else others[name]
        right, ours = run(model.SerializeToString(), feeds), run(other.SerializeToString(), feeds)
        print(f"{name}: {len(model.graph.node)} nodes")
        for entry in sorted(departures(model, other, feeds), key=lambda entry: -entry.error)[:5]:
            print(f"  relative error {entry.error:8.2e}  {entry.operator:<10} {entry.node}")
        for output in (key for key in right if key.endswith("logits")):
            threshold = logit(bundle.manifest.threshold)
            iou = mask_iou(right[output], ours[output], threshold)
            print(f"  {output}: the masks' IoU is {iou:.4f}")
            if iou < options.least_iou and others is None:
                lost = culprit(model, rounded, feeds, right[output], output, threshold, options.least_iou)
                print(f"  lost at {lost}")
        write_script(options, bundle, name, feeds)
        feeds |= right


def onnx_graphs(bundle) -> dict[str, onnx.ModelProto]:
    """The bundle's ONNX graphs in the order in which they run."""
    artefact = onnx_artefact(bundle)
    order = ("encoder", "network", "local_network", "decoder", "pixel_diffusion")
    return {name: onnx.load(bundle.file(artefact, name)) for name in order if name in artefact.files}


def onnx_artefact(bundle):
    for artefact in bundle.manifest.artefacts:
        if artefact.backend == "onnxruntime":
            return artefact
    raise SystemExit(f"{bundle.path} has no ONNX graphs: build it with --target onnxruntime as well")


def inputs_of(manifest, size: int) -> dict[str, np.ndarray]:
    """A photograph with one click on it, as the run time makes them the network's inputs."""
    photo, spec = data.astronaut(), manifest.input
    view = View(Box(0, 0, photo.shape[1], photo.shape[0]), size, spec.fit, spec.coordinates)
    clicks = clicks_tensor([Click(200, 300, True)], view, 4)
    return {
        "image": image_tensor(photo, view, spec.pad),
        "clicks": clicks,
        "clicks_by_label": by_label(clicks),
        "previous_mask": np.zeros((1, 1, size, size), np.float32),
    }


def culprit(model, rounded, feeds, right, output: str, threshold: float, least: float) -> str | None:
    """The first of the rounded nodes that, with all before it, costs the mask."""

    def is_bad(names) -> bool:
        ours = run(with_half(model, names).SerializeToString(), feeds)[output]
        return mask_iou(right, ours, threshold) < least

    return first_guilty(rounded, is_bad)


def write_script(options, bundle, name: str, feeds) -> None:
    spec, folder = bundle.manifest.graphs[name], options.output
    inputs = folder / f"{name}.npz"
    np.savez(inputs, **{tensor.name: feeds[tensor.name] for tensor in spec.inputs})
    (profile,) = PlanOptions(max_batch=1).profiles([options.size])
    shapes = {t.name: profile_shapes(t, profile, bundle.manifest.input.max_clicks) for t in spec.inputs}
    model = bundle.file(onnx_artefact(bundle), name)
    limit = logit(bundle.manifest.threshold)
    text = polygraphy_script(name, spec, str(model), [str(inputs)], [shapes], limit)
    (folder / f"{name}_in_tensorrt.py").write_text(text)


if __name__ == "__main__":
    main()
