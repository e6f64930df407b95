"""Checkpoints: what is saved comes back, and anything else is refused by a sentence that names it."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from clickmask_models.cdnet import CDNet, CDNetConfig
from clickmask_models.checkpoints import CheckpointError, load_backbone, load_checkpoint, save_checkpoint
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_models.presets import build_network

SMALL = CDNetConfig(backbone="resnet18", stem="v1b", channels=16)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    network = CDNet(SMALL)
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, network, {"step": "12"})
    return path, network


def metadata_of(path) -> dict[str, str]:
    header = path.read_bytes()
    length = int.from_bytes(header[:8], "little")
    return json.loads(header[8 : 8 + length])["__metadata__"]


def test_network_comes_back_in_float32_and_eval_mode(saved):
    path, network = saved
    loaded = load_checkpoint(path)
    assert loaded.config == SMALL
    assert not loaded.training
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype in (torch.float32, torch.int64)
        torch.testing.assert_close(tensor, network.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_extra_metadata_is_kept_and_nothing_partial_left(saved):
    path, _ = saved
    assert metadata_of(path)["step"] == "12"
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_place_that_cannot_be_written_is_refused_and_nothing_partial_left(saved, tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    for target in (tmp_path / "folder.safetensors", tmp_path / "absent/x.safetensors", saved[0] / "x"):
        with pytest.raises(CheckpointError, match=f"expected to write {target}, got: "):
            save_checkpoint(target, saved[1])
    assert {item.name for item in tmp_path.iterdir()} == {saved[0].name, "folder.safetensors"}


def tampered(path, change_tensors=None, change_metadata=None):
    tensors, metadata = load_file(path), metadata_of(path)
    if change_tensors:
        change_tensors(tensors)
    if change_metadata:
        change_metadata(metadata)
    save_file(tensors, path, metadata)
    return path


def test_missing_unknown_and_misshapen_tensors_are_all_named(saved):
    def change(tensors):
        del tensors["head.2.bias"]
        tensors["extra.weight"] = torch.zeros(1)
        tensors["head.2.weight"] = torch.zeros(3)

    with pytest.raises(
        CheckpointError, match=r"(?s)missing head\.2\.bias.*unknown extra\.weight.*head\.2\.weight has"
    ):
        load_checkpoint(tampered(saved[0], change))


def test_weights_that_are_not_finite_or_of_another_kind_are_named(saved):
    def change(tensors):
        tensors["head.2.bias"][0] = torch.nan
        tensors["head.2.weight"] = torch.zeros_like(tensors["head.2.weight"], dtype=torch.int32)

    with pytest.raises(
        CheckpointError, match=r"head\.2\.bias has values .* head\.2\.weight holds torch\.int32"
    ):
        load_checkpoint(tampered(saved[0], change))


def test_configuration_with_an_unknown_key_is_refused(saved):
    def change(metadata):
        document = json.loads(metadata["clickmask"])
        document["config"]["colour"] = "red"
        metadata["clickmask"] = json.dumps(document)

    with pytest.raises(CheckpointError, match="colour"):
        load_checkpoint(tampered(saved[0], change_metadata=change))


def test_configuration_of_a_huge_network_is_refused_before_it_is_built(saved):
    def change(metadata):
        document = json.loads(metadata["clickmask"])
        document["config"]["channels"] = 1 << 20  # 20 TB
        metadata["clickmask"] = json.dumps(document)

    with pytest.raises(CheckpointError, match=r"aspp\.branches\.0\.0\.weight has shape"):
        load_checkpoint(tampered(saved[0], change_metadata=change))


def test_a_file_from_before_a_field_means_the_network_of_then(tmp_path):
    path = tmp_path / "old.safetensors"
    save_checkpoint(path, build_network(EncodeOnceConfig()))

    def change(metadata):
        document = json.loads(metadata["clickmask"])
        del document["config"]["hidden"]
        metadata["clickmask"] = json.dumps(document)

    network = load_checkpoint(tampered(path, change_metadata=change))
    published = (32, 96, 144, 144, 192, 192, 192, 384, 384, 384, 384, 576, 576, 576, 960, 960, 960)
    assert network.config.hidden == published


def test_unknown_family_is_refused(saved):
    def change(metadata):
        metadata["clickmask"] = json.dumps({"family": "sam", "config": {}})

    with pytest.raises(CheckpointError, match="sam"):
        load_checkpoint(tampered(saved[0], change_metadata=change))


def test_foreign_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="metadata"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"\x80\x04pickle"])
def test_other_bytes_are_refused(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"broken\.safetensors"):
        load_checkpoint(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="absent"):
        load_checkpoint(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("name", ["imagenet", "deeplab_voc"])
def test_published_backbone_weights_load(shared, name):
    path = shared / "weights" / f"mobilenet_v2_1.0_{name}_bnfolded_fp16.safetensors"
    network = EncodeOnceCDNet()
    load_backbone(path, network)
    tensors = load_file(path)
    for part, prefix in ((network.backbone, "features."), (network.context, "")):
        for key, value in part.state_dict().items():
            if key.startswith(prefix) and key in tensors:
                assert torch.equal(value, tensors[key].float())


@pytest.mark.parametrize("with_head", [False, True])
def test_backbone_weights_load_into_a_network_without_context_head(tmp_path, with_head):
    source = EncodeOnceCDNet()
    tensors = source.backbone.state_dict() | (source.context.state_dict() if with_head else {})
    save_file(tensors, tmp_path / "backbone.safetensors")
    network = CDNet(CDNetConfig(backbone="mobilenet_v2", channels=16))
    load_backbone(tmp_path / "backbone.safetensors", network)
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(tensor, source.backbone.state_dict()[name])
