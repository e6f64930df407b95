"""Schema 1: values that do not fit one another, above all graphs that are no pipeline."""

from __future__ import annotations

from typing import Any

import pytest
from bundles import DIFFUSION
from manifests import document, read, with_value

from clickmask.errors import BundleError


def test_start_click_beyond_the_most_clicks() -> None:
    with pytest.raises(BundleError, match=r"\$\.crop: expected start_click of at most max_clicks = 2, got 3"):
        read(
            document(input={"max_clicks": 2})
            | {"crop": document()["crop"] | {"kind": "paper", "start_click": 3}}
        )


@pytest.mark.parametrize(
    "pipeline", [{}, {"encodes_once": True}, {"local_network": True}], ids=["network", "two_graphs", "two"]
)
def test_settings_and_graph_of_pixel_diffusion_come_together(pipeline: dict[str, Any]) -> None:
    with_it = document(**pipeline, pixel_diffusion=DIFFUSION)
    without = document(**pipeline)

    with pytest.raises(BundleError, match=r"\$\.pixel_diffusion: expected the settings of the graph 'pixel_"):
        read(with_it | {"pixel_diffusion": None})
    with pytest.raises(
        BundleError, match=r"\$\.pixel_diffusion: expected null without the graph 'pixel_diff"
    ):
        read(without | {"pixel_diffusion": DIFFUSION})


def test_pixel_diffusion_alone_is_no_pipeline() -> None:
    changed = document(pixel_diffusion=DIFFUSION)
    del changed["graphs"]["network"]

    with pytest.raises(
        BundleError, match=r"\$\.graphs: expected the graphs .*perhaps with 'pixel_diffusion'"
    ):
        read(changed)


@pytest.mark.parametrize(
    ("side", "tensor", "message"),
    [
        ("inputs", 0, r"inputs: expected the tensors \['clicks', 'image', 'logits'\], got"),
        ("inputs", 2, r"inputs: expected the tensors \['clicks', 'image', 'logits'\], got"),
        ("outputs", 0, r"outputs: expected the tensors \['diffused_logits'\], got \['other'\]"),
    ],
)
def test_tensors_of_pixel_diffusion(side: str, tensor: int, message: str) -> None:
    path = f"graphs.pixel_diffusion.{side}[{tensor}].name"

    with pytest.raises(BundleError, match=rf"\$\.graphs\.pixel_diffusion\.{message}"):
        read(with_value(path, "other", pixel_diffusion=DIFFUSION))


@pytest.mark.parametrize("encodes_once", [False, True], ids=["one_graph", "two_graphs"])
def test_artefact_without_a_file_for_a_graph(encodes_once: bool) -> None:
    changed = document(encodes_once=encodes_once)
    graph = "decoder" if encodes_once else "network"
    del changed["artefacts"][0]["files"][graph]

    with pytest.raises(BundleError, match=rf"\$\.artefacts\[0\]\.files: expected the key '{graph}'"):
        read(changed)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("source.local", None, r"\$\.source\.local: expected the checkpoint of the graph 'local_network'"),
        ("source.local.sha256", "F" * 64, r"\$\.source\.local\.sha256: expected a sha256"),
        ("source.local.local", None, r"\$\.source\.local: expected only the keys"),
        ("crop.kind", "paper", r"\$\.crop\.kind: expected 'global_to_local' with a graph 'local_network'"),
        (
            "graphs.local_network.outputs[0].shape",
            ["B", 1, "S/4", "S/4"],
            r"\$\.graphs\.local_network\.outputs",
        ),
    ],
)
def test_second_network_that_does_not_fit(path: str, value: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read(with_value(path, value, local_network=True))


def test_checkpoint_of_a_second_network_that_is_not_there() -> None:
    local = {"checkpoint": "b.pth", "sha256": "0" * 64}

    with pytest.raises(BundleError, match=r"\$\.source\.local: expected null without a 'local_network'"):
        read(with_value("source.local", local))


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["encoder"],
        ["decoder"],
        ["network", "encoder"],
        ["network", "encoder", "decoder"],
        ["local_network"],
        ["encoder", "decoder", "local_network"],
        ["main"],
    ],
)
def test_graph_set_that_is_no_pipeline(names: list[str]) -> None:
    changed = document()
    changed["graphs"] = {name: changed["graphs"]["network"] for name in names}

    with pytest.raises(BundleError, match=r"\$\.graphs: expected the graphs \{'network'\}, "):
        read(changed)


def _tensor(name: str, *shape: int | str, dtype: str = "float32") -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape)}


IMAGE = _tensor("image", "B", 3, "S", "S")
CLICKS = _tensor("clicks", "B", "M", 3)
MASK = _tensor("previous_mask", "B", 1, "S", "S")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([IMAGE, CLICKS], r"network\.inputs: expected the tensors \['clicks', 'image', 'previous_mask'\]"),
        (
            [IMAGE, CLICKS, MASK, _tensor("depth", "B")],
            r"got \['clicks', 'depth', 'image', 'previous_mask'\]",
        ),
        ([IMAGE, IMAGE, CLICKS, MASK], r"\$\.graphs\.network: expected each tensor name once"),
        (
            [_tensor("image", "B", "S", "S", 3), CLICKS, MASK],
            r"expected image to be float32 \['B', 3, 'S', 'S'\], got float32 \['B', 'S', 'S', 3\]",
        ),
        (
            [_tensor("image", "B", 3, "S", "S", dtype="float16"), CLICKS, MASK],
            r"image to be float32 .* got float16",
        ),
        (
            [_tensor("image", "B", 3, "S", "S", dtype="int8"), CLICKS, MASK],
            r"dtype: expected one of 'float32'",
        ),
        (
            [_tensor("image", 1, 3, "S", "S"), CLICKS, MASK],
            r"inputs\[0\]\.shape: expected the batch 'B' as first",
        ),
        (
            [_tensor("image", "B", 3, "H", "W"), CLICKS, MASK],
            r"shape\[2\]: expected a number, 'B', 'M', 'S' or 'S/n'",
        ),
        ([_tensor("image", "B", 0, "S", "S"), CLICKS, MASK], r"shape\[1\]: expected an integer from 1"),
        ([_tensor("image"), CLICKS, MASK], r"shape: expected an array of 1 to 8 items, got 0 items"),
        ([], r"network\.inputs: expected an array of 1 to 64 items"),
    ],
    ids=[
        "missing",
        "unknown",
        "twice",
        "axis_order",
        "half",
        "integer",
        "fixed_batch",
        "symbol",
        "zero",
        "no_shape",
        "none",
    ],
)
def test_network_inputs_that_the_run_time_cannot_feed(inputs: list[Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read(with_value("graphs.network.inputs", inputs))


def test_previous_mask_that_the_input_section_does_not_announce() -> None:
    with pytest.raises(BundleError, match=r"previous_mask exactly when input\.previous_mask is true"):
        read(with_value("input.previous_mask", False))


def test_network_without_logits() -> None:
    with pytest.raises(
        BundleError, match=r"network\.outputs: expected the tensors \['logits'\], got \['mask'\]"
    ):
        read(with_value("graphs.network.outputs", [_tensor("mask", "B", 1, "S", "S")]))


def test_feature_that_the_encoder_does_not_give() -> None:
    changed = document(encodes_once=True)
    changed["graphs"]["decoder"]["inputs"][0]["name"] = "feature_1"

    with pytest.raises(BundleError, match=r"decoder\.inputs: expected the tensors \['clicks', 'feature_0'"):
        read(changed)


def test_feature_of_another_shape_on_the_other_side() -> None:
    changed = document(encodes_once=True)
    changed["graphs"]["decoder"]["inputs"][0]["shape"][1] = 5

    with pytest.raises(BundleError, match="expected feature_0 to be"):
        read(changed)


def test_encoder_outputs_that_are_not_numbered_features() -> None:
    changed = document(encodes_once=True)
    changed["graphs"]["encoder"]["outputs"][0]["name"] = "feature_7"

    with pytest.raises(BundleError, match="expected encoder outputs feature_0, feature_1"):
        read(changed)


def test_feature_stride_that_does_not_divide_a_size() -> None:
    changed = document(encodes_once=True)
    for tensor in (changed["graphs"]["encoder"]["outputs"][0], changed["graphs"]["decoder"]["inputs"][0]):
        tensor["shape"][2] = "S/64"

    with pytest.raises(
        BundleError, match=r"feature_0 dimensions that divide every size of \[64, 96, 128\], got S/64"
    ):
        read(changed)
