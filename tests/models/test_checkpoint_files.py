"""Reading files: every damaged or hostile one is refused by a sentence, and none is ever run."""

from __future__ import annotations

import collections
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from clickmask_models.checkpoint_files import CheckpointError, read_checkpoint

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.num_batches_tracked": torch.tensor(1)}


class Code:
    """Pickles as a call of ``os.mkdir``, as a hostile file would."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def written(path, contents, **options):
    torch.save(contents, path, **options)
    return path


def refusal(path, index=None) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path, index)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["network.pth", "network.safetensors", "network"])
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dict_is_read_whatever_its_file_is_called(tmp_path, name, zipped):
    path = written(tmp_path / name, TENSORS, _use_new_zipfile_serialization=zipped)
    contents = read_checkpoint(path)
    assert contents.tensors.keys() == TENSORS.keys()
    assert torch.equal(contents.tensors["a.weight"], TENSORS["a.weight"])
    assert (contents.metadata, contents.config) == ({}, None)


def test_safetensors_are_told_by_content(tmp_path):
    save_file(TENSORS, tmp_path / "network.pth", {"step": "3"})
    contents = read_checkpoint(tmp_path / "network.pth")
    assert contents.tensors.keys() == TENSORS.keys()
    assert contents.metadata == {"step": "3"}


def test_safetensors_whose_header_begins_like_a_pickle_are_told_too(tmp_path):
    path = tmp_path / "network.safetensors"
    for length in range(256):  # the header's length comes first, and grows by eights
        save_file(TENSORS, path, {"note": "." * length})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert read_checkpoint(path).metadata == {"note": "." * length}


def test_settings_beside_the_state_dict_are_kept_and_the_rest_is_not_read(tmp_path):
    contents = {"state_dict": collections.OrderedDict(TENSORS), "config": {"params": {}}, "epoch": 7}
    read = read_checkpoint(written(tmp_path / "a.pth", contents))
    assert read.tensors.keys() == TENSORS.keys()
    assert read.config == {"params": {}}


def test_one_of_a_list_is_chosen_and_never_guessed(tmp_path):
    path = written(tmp_path / "list.pth", [{"a": torch.zeros(1)}, {"b": torch.zeros(1)}])
    assert read_checkpoint(path, 1).tensors.keys() == {"b"}
    assert "list of 2" in refusal(path)
    assert "--checkpoint-index, 0 to 1" in refusal(path)
    for index in (2, -1):
        assert f"{index} was chosen" in refusal(path, index)


def test_the_way_out_of_a_list_works_where_no_option_chooses(tmp_path, monkeypatch):
    """As for --local-checkpoint, and for all that the trainer reads."""
    path = written(tmp_path / "list.pth", [{"a": torch.zeros(1)}, {"b": torch.ones(1)}])
    monkeypatch.chdir(tmp_path)
    exec(refusal(path).rpartition("save it alone: ")[2], {"torch": torch})  # noqa: S102
    assert read_checkpoint(tmp_path / "one.pth").tensors == {"b": torch.ones(1)}


def test_number_for_a_file_with_one_network_is_refused(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    assert "one network" in refusal(tmp_path / "a.safetensors", 0)
    assert "one network" in refusal(written(tmp_path / "a.pth", TENSORS), 0)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_that_needs_code_is_refused_with_a_way_out_and_not_run(tmp_path, zipped):
    made = tmp_path / "made"
    contents = {"state_dict": TENSORS, "config": Code(made)}
    path = written(tmp_path / "hostile.pth", contents, _use_new_zipfile_serialization=zipped)
    message = refusal(path)
    assert "mkdir" in message
    assert "torch.save({'state_dict': network.state_dict()}" in message
    assert "\n" not in message
    assert not made.exists()
    with path.open("rb") as file:  # the file is hostile indeed
        torch.load(file, weights_only=False)
    assert made.exists()


def test_plain_pickle_is_not_run_either(tmp_path):
    path = tmp_path / "plain.pth"
    path.write_bytes(pickle.dumps(Code(tmp_path / "made")))
    refusal(path)
    assert not (tmp_path / "made").exists()


def test_override_by_environment_has_no_effect(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert "mkdir" in refusal(written(tmp_path / "hostile.pth", Code(tmp_path / "made")))
    assert not (tmp_path / "made").exists()


def test_whole_module_is_refused_by_the_name_of_its_class(tmp_path):
    assert "torch.nn.modules.linear.Linear" in refusal(written(tmp_path / "a.pth", torch.nn.Linear(2, 2)))


def test_torchscript_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "network.pth", "w") as archive:
        archive.writestr("network/constants.pkl", pickle.dumps(()))
        archive.writestr("network/data.pkl", pickle.dumps({}))
        archive.writestr("network/version", "3\n")
    assert "TorchScript" in refusal(tmp_path / "network.pth")


def rezipped(path, contents, compression, copies=1):
    """The file again, its records compressed or not, each ``copies`` times in the directory at its end."""
    torch.save(contents, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, record in records.items():
            archive.writestr(name, record)
        archive.filelist *= copies
    return path


def test_archive_that_expands_is_refused_before_it_does(tmp_path):
    zeros = {"a": torch.zeros(1 << 20)}
    assert "would expand" in refusal(rezipped(tmp_path / "bomb.pth", zeros, zipfile.ZIP_DEFLATED))
    assert "would expand" in refusal(rezipped(tmp_path / "overlap.pth", zeros, zipfile.ZIP_STORED, copies=9))
    same = read_checkpoint(rezipped(tmp_path / "plain.pth", zeros, zipfile.ZIP_STORED))
    assert torch.equal(same.tensors["a"], zeros["a"])


@pytest.mark.parametrize("kept", [0.01, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("zipped", [True, False])
def test_file_that_was_cut_short_is_refused(tmp_path, zipped, kept):
    path = written(tmp_path / "a.pth", TENSORS, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert "\n" not in refusal(path)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"not a checkpoint", b"PK\x03\x04", b"\x80", b"\x80\x02]q\x00."]
)
def test_other_bytes_are_refused(tmp_path, content):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    assert "\n" not in refusal(path)


def test_missing_file_and_folder_are_named(tmp_path):
    assert "no such file" in refusal(tmp_path / "absent.pth")
    assert "directory" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (torch.zeros(2), "got a tensor"),
        ({}, "got an empty dict"),
        ({"state_dict": [TENSORS]}, "got a list"),
        ({"model": TENSORS, "epoch": 3}, "'model' is a dict"),
        ({"a": 1.5}, "'a' is a float"),
        ({3: torch.zeros(1)}, "got one under 3"),
        ({"a": torch.eye(2).to_sparse()}, "'a' is a tensor that is not dense"),
        ({"a": torch.zeros(1).expand(1 << 40)}, "'a' is a tensor that is not dense"),
        ({"a": torch.zeros(2, device="meta")}, "'a' is a tensor that is not dense"),
    ],
)
def test_what_is_not_dense_tensors_by_name_is_refused(tmp_path, contents, said):
    assert said in refusal(written(tmp_path / "a.pth", contents))
