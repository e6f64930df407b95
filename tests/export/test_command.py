"""The command line: help, exit status, and one line for every mistake."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clickmask_export import command, targets
from clickmask_export.command import main
from clickmask_models.cdnet import CDNet, CDNetConfig
from clickmask_models.checkpoints import save_checkpoint
from clickmask_models.encode_once import EncodeOnceCDNet, EncodeOnceConfig
from clickmask_models.feature_diffusion import FeatureDiffusionConfig
from clickmask_models.presets import PRESETS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    config = EncodeOnceConfig(
        widths=(4, 4, 4, 4),
        click_widths=(4, 4, 4, 4),
        feature_diffusion=FeatureDiffusionConfig(inner_channels=4),
    )
    path = tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors"
    save_checkpoint(path, EncodeOnceCDNet(config))
    return path


def fails(capsys, *arguments):
    """The one line that a wrong command prints."""
    assert main([str(argument) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("[")]  # stages
    assert len(lines) == 1, err
    assert out == ""
    assert lines[0].startswith("build_engine.py: error: ")
    return lines[0]


def test_help_explains_every_option(root):
    script = root / "export" / "build_engine.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for action in command.make_parser()._actions:
        assert action.help, action.dest
        assert all(option in done.stdout for option in action.option_strings)
        assert action.help.split()[0] in done.stdout
    for text in ("examples:", "exit status", *PRESETS):
        assert text in done.stdout
    assert done.stderr == ""


def test_a_missing_option(capsys):
    assert "--checkpoint" in fails(capsys, "--output", "x")


def test_an_unknown_target(capsys):
    assert "invalid choice: 'openvino'" in fails(
        capsys, "--checkpoint", "x", "--output", "y", "--target", "openvino"
    )


def test_a_checkpoint_that_is_not_there(capsys, tmp_path):
    assert "found no such file" in fails(
        capsys, "--checkpoint", tmp_path / "no.safetensors", "--output", tmp_path / "out"
    )
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_something_else(capsys, tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    line = fails(capsys, "--checkpoint", tmp_path / "other.safetensors", "--output", tmp_path / "out")
    assert "expected the tensors of a network of ClickSEG (CDNet), RITM, CSFPN or f-BRS" in line


def test_a_checkpoint_that_is_no_safetensors(capsys, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"\x00" * 100)
    line = fails(capsys, "--checkpoint", tmp_path / "bad.safetensors", "--output", tmp_path / "out")
    assert "bad.safetensors: expected a file that safetensors or torch.save wrote" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "384", "500"], "multiples of 32 from 64 to 2048, got 500; nearest: 512"),
        (["--preset", "official"], "another family"),
        (["--preset", "best"], "expected one of encode_once_mobilenet_v2, paper"),
        (["--iterations", "0"], "iterations must be at least 1"),
        (["--pdm", "none", "--iterations", "3"], "drop one of them"),
        (["--parity-image", "nowhere.jpg"], "No such file"),
        (["--size", "big"], "invalid int value: 'big'"),
    ],
)
def test_options_that_do_not_fit(capsys, tmp_path, checkpoint, options, message):
    assert message in fails(capsys, "--checkpoint", checkpoint, "--output", tmp_path / "out", *options)
    assert list(tmp_path.iterdir()) == []


def test_a_local_network_that_nothing_would_run(capsys, tmp_path, checkpoint):
    options = ["--checkpoint", checkpoint, "--local-checkpoint", checkpoint]
    assert "leave it out" in fails(capsys, *options, "--output", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file(capsys, tmp_path, checkpoint):
    (tmp_path / "file").write_text("x")
    assert "got a file" in fails(capsys, "--checkpoint", checkpoint, "--output", tmp_path / "file")
    assert "expected to write in" in fails(
        capsys, "--checkpoint", checkpoint, "--output", tmp_path / "file" / "engine"
    )


def test_tensorrt_where_it_is_missing(capsys, tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(targets.host, "cuda_devices", lambda: 0)
    line = fails(capsys, "--checkpoint", checkpoint, "--output", tmp_path / "out", "--target", "tensorrt")
    assert "lacks the tensorrt package and a usable NVIDIA GPU and driver" in line
    assert 'pip install "clickmask[tensorrt]"' in line


def test_half_precision_torchscript_without_cuda(capsys, tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    options = ["--target", "torchscript", "--precision", "fp16"]
    assert "no CUDA device" in fails(
        capsys, "--checkpoint", checkpoint, "--output", tmp_path / "out", *options
    )


def test_a_missing_package_says_what_to_install(capsys, monkeypatch):
    def missing(_):
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")

    monkeypatch.setattr(command, "_run", missing)
    assert 'pip install "clickmask[cpu,export]"' in fails(capsys, "--checkpoint", "x", "--output", "y")


def test_an_interrupted_build_says_that_nothing_was_written(capsys, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_run", interrupted)
    assert "nothing was written" in fails(capsys, "--checkpoint", "x", "--output", "y")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
)
def test_too_little_memory_says_what_to_do(capsys, monkeypatch, error):
    def run(_):
        raise error

    monkeypatch.setattr(command, "_run", run)
    assert "fewer or smaller sizes with --size" in fails(capsys, "--checkpoint", "x", "--output", "y")


def test_another_runtime_error_is_a_fault_and_shows_itself(monkeypatch):
    def run(_):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(command, "_run", run)
    with pytest.raises(RuntimeError, match="of ours"):
        command.main(["--checkpoint", "x", "--output", "y"])


def test_a_terminated_build_removes_what_it_began(tmp_path):
    """A kill without an exception would leave the hidden folder."""
    script = """
        import os, signal, sys
        from pathlib import Path
        from clickmask_export import command
        from clickmask_export.staging import staged
        def run(_):
            with staged(Path(sys.argv[1]), force=False) as folder:
                (folder / "model.onnx").write_text("weights")
                os.kill(os.getpid(), signal.SIGTERM)
        command._run = run
        sys.exit(command.main(["--checkpoint", "x", "--output", "y"]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "mine")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 143
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_several_presets_fit_asks_for_one(capsys, tmp_path):
    config = CDNetConfig(backbone="resnet18", stem="v1b", channels=2)
    save_checkpoint(tmp_path / "own.safetensors", CDNet(config))
    line = fails(capsys, "--checkpoint", tmp_path / "own.safetensors", "--output", tmp_path / "out")
    assert "network is none of paper, paper_resnet34, paper_resnet101, official," in line
    assert line.endswith(": name the settings with --preset")


def test_the_defaults_are_one_onnx_artefact_in_float32():
    options = command.make_parser().parse_args(["--checkpoint", "a.safetensors", "--output", "b"])
    assert options.checkpoint == Path("a.safetensors")
    assert (options.target, options.precision, options.flip, options.pdm) == (None, "fp32", None, None)
    assert (options.fdm, options.checkpoint_index, options.local_checkpoint) == ("dense", None, None)
    both = command.make_parser().parse_args(
        ["--checkpoint", "a", "--output", "b", "--target", "onnxruntime", "--target", "torchscript", "--flip"]
    )
    assert both.target == ["onnxruntime", "torchscript"]
    assert both.flip
