"""Small rules of writing a bundle, and of what a machine can build."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import torch

from clickmask_export import bundle_writer, targets
from clickmask_export.errors import TargetUnavailableError
from clickmask_export.targets import Target, find_target


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("default.safetensors", "default.safetensors"),
        ("my best (3).safetensors", "my_best__3_.safetensors"),
        (".hidden.safetensors", "hidden.safetensors"),
        ("模型.safetensors", "safetensors"),
        ("???", "checkpoint"),
    ],
)
def test_checkpoint_names_are_reduced_to_what_a_manifest_allows(name, plain):
    assert bundle_writer._plain_name(Path(name)) == plain


def test_dates_are_utc_and_follow_source_date_epoch(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert bundle_writer._now() == "1970-01-01T00:00:00+00:00"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    now = datetime.datetime.fromisoformat(bundle_writer._now())
    assert abs((datetime.datetime.now(datetime.UTC) - now).total_seconds()) < 60


def test_an_artefact_records_hashes_sizes_and_tools(tmp_path):
    artefact = bundle_writer.write_artefact(
        tmp_path, Target("onnxruntime", "any"), "fp16", {"encoder": b"one", "decoder": b"three"}
    )
    assert {graph: (file.path, file.bytes) for graph, file in artefact.files.items()} == {
        "encoder": ("encoder.onnx", 3),
        "decoder": ("decoder.onnx", 5),
    }
    assert artefact.files["encoder"].sha256.startswith("7692c3ad3540bb80")  # SHA-256 of "one"
    assert (tmp_path / "decoder.onnx").read_bytes() == b"three"
    assert (artefact.precision, artefact.opset) == ("fp16", 18)
    assert set(artefact.tools) == {"torch", "onnx", "onnxscript", "onnxruntime"}


def test_an_onnx_artefact_is_for_any_device_and_compared_on_the_cpu():
    target = find_target("onnxruntime", "fp16")
    assert (target.device, target.verified_on) == ("any", "cpu")


def test_a_torchscript_artefact_is_for_the_kind_of_device_it_is_traced_on(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_target("torchscript", "fp32").device == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_target("torchscript", "fp16").verified_on == "cuda"


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_what_an_onnx_artefact_needs_is_missed_before_anything_slow_starts(monkeypatch, missing):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(TargetUnavailableError, match=rf"lacks {missing}: .*clickmask\[cpu,export\]"):
        find_target("onnxruntime", "fp32")
