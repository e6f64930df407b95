"""The engine that ships: what it is made of, and that it segments real photos."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import onnx
import pytest
import torch
from skimage import data

from clickmask import Segmenter, Session
from clickmask.bundle import default_bundle_path, load_bundle
from clickmask.evaluation.datasets import read_dataset
from clickmask.evaluation.metrics import mean_iou_at
from clickmask.evaluation.run import annotate
from clickmask_models.checkpoints import load_checkpoint
from clickmask_models.pixel_diffusion import PixelDiffusion
from clickmask_models.presets import DEFAULT, pipeline, preset

CHECKPOINT = Path(__file__).parents[1] / "engines/default.safetensors"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.load()


def test_the_bundle_was_built_from_the_checkpoint_beside_it() -> None:
    digest = hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest()
    assert load_bundle(default_bundle_path()).manifest.source.sha256 == digest
    assert CHECKPOINT.stat().st_size <= 12e6


def test_checkpoint_and_bundle_follow_the_default_preset() -> None:
    config = preset(DEFAULT)
    hidden = (32, 96, 144, 144, *(192,) * 3, *(384,) * 5, *(352,) * 2, 256, *(192,) * 2)  # decision 0028
    assert load_checkpoint(CHECKPOINT).config == dataclasses.replace(config, hidden=hidden)
    manifest = load_bundle(default_bundle_path()).manifest
    assert manifest.preset == DEFAULT
    around = pipeline(DEFAULT)
    assert dataclasses.asdict(manifest.crop).items() >= dataclasses.asdict(around.crop).items()
    assert (manifest.input.sizes, manifest.input.fit) == (around.sizes, around.fit)
    diffusion = manifest.pixel_diffusion
    assert diffusion is not None
    assert (diffusion.iterations, diffusion.eps) == (
        config.pixel_diffusion.iterations,
        config.pixel_diffusion.eps,
    )


def test_of_the_decoders_shapes_a_size_leaves_only_the_number_of_clicks_open() -> None:
    """Else ONNX Runtime would be slower with its sizes fixed than without (decision 0029)."""
    nodes = onnx.load(default_bundle_path() / "decoder.onnx").graph.node
    open_shapes = [node for node in nodes if node.op_type == "Shape" and node.input[0] == "clicks"]
    extents = [{attribute.name: attribute.i for attribute in node.attribute} for node in open_shapes]
    assert extents == [{"start": 1, "end": 2}]


def test_pixel_diffusion_is_ten_stages_of_dilated_convolutions() -> None:
    graph = onnx.load(default_bundle_path() / "pixel_diffusion.onnx").graph
    stages: dict[str, list[int]] = {}
    for node in graph.node:
        if node.op_type == "Conv" and "/stages." in node.name:
            assert node.name.startswith("pixel_diffusion/")
            dilations = next(list(a.ints) for a in node.attribute if a.name == "dilations")
            stages.setdefault(node.name.split("/")[1], []).extend(dilations[:1])
    assert sorted(stages) == sorted(f"stages.{index}" for index in range(10))
    assert all(sorted(dilations) == [1, 2, 4, 8] for dilations in stages.values())


def test_the_engine_cuts_the_mask_that_torch_cuts(segmenter: Segmenter) -> None:
    network = load_checkpoint(CHECKPOINT)
    image = torch.from_numpy(data.astronaut()[64:448, 64:448]).permute(2, 0, 1)[None].float() / 255
    clicks = torch.tensor([[[166.0, 60.0, 1], [330.0, 380.0, 0], [110.0, 250.0, 1], [-1.0, -1.0, -1]]])
    previous = torch.zeros(1, 1, 384, 384)
    with torch.inference_mode():
        logits = PixelDiffusion(network.config.pixel_diffusion)(
            network(image, clicks, previous), image, clicks
        )
    backend = segmenter.backend
    got = backend.decode(backend.encode(image.numpy()), clicks.numpy(), previous.numpy())
    expected = logits.numpy() > 0
    assert expected.any()
    assert ((got > 0) & expected).sum() / ((got > 0) | expected).sum() > 0.999


@pytest.mark.parametrize(
    ("photo", "clicks", "inside", "outside"),
    [
        # A point of the object and one of the background that were not clicked.
        ("astronaut", [(230, 110, True), (170, 330, True), (400, 450, False)], (250, 60), (60, 60)),
        ("coffee", [(280, 150, True), (450, 60, False)], (330, 130), (560, 30)),
        ("chelsea", [(220, 130, True), (400, 20, False)], (160, 120), (440, 10)),
    ],
)
def test_photos_are_segmented(
    segmenter: Segmenter, photo: str, clicks: list, inside: tuple[int, int], outside: tuple[int, int]
) -> None:
    mask = segmenter.predict(getattr(data, photo)(), clicks)
    for x, y, positive in clicks:
        assert mask[y, x] == positive
    assert mask[inside[::-1]]
    assert not mask[outside[::-1]]


def test_a_few_berkeley_objects_reach_the_promised_iou(segmenter: Segmenter, shared: Path) -> None:
    samples = read_dataset(shared / "data/eval/berkeley")[::6]
    curves = [annotate(segmenter, sample, 5).ious for sample in samples]
    assert len(curves) == 11
    assert mean_iou_at(curves, 5) > 0.88


def test_a_session_replays_bit_for_bit(segmenter: Segmenter) -> None:
    session = segmenter.session(data.astronaut())
    for x, y, positive in [(230, 110, True), (20, 20, True), (170, 330, True), (400, 450, False)]:
        session.click(x, y, positive)
    session.remove(1)
    with Segmenter.load() as fresh:
        restored = Session.from_json(fresh, data.astronaut(), session.to_json())
        assert restored.probability.tobytes() == session.probability.tobytes()


def test_a_damaged_copy_is_refused(tmp_path: Path) -> None:
    from clickmask import BundleError

    for file in default_bundle_path().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    load_bundle(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    path = tmp_path / manifest["artefacts"][0]["files"]["decoder"]["path"]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="sha256"):
        Segmenter.load(tmp_path)
