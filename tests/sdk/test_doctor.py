"""``clickmask doctor``: what it says of a bundle that runs, and of each reason why one does not."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path

import pytest
from bundles import DIFFUSION, artefact, change_manifest, engine, file_entry, make_bundle, read_manifest
from tensorrt_double import HOST, pretend_gpu

from clickmask import doctor
from clickmask.backends import host
from clickmask.backends.host_facts import Gpu
from clickmask.doctor import Finding, Report, examine


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answers on a machine with a GPU."""
    monkeypatch.setattr(host, "cuda_devices", lambda: 0)


def finding(report: Report, subject: str) -> Finding:
    return next(f for f in report.findings if f.subject == subject)


@pytest.mark.parametrize(
    "pipeline",
    [{}, {"encodes_once": True}, {"local_network": True}],
    ids=["one_graph", "two_graphs", "two_networks"],
)
def test_bundle_that_runs(tmp_path: Path, pipeline: dict[str, bool]) -> None:
    report = examine(make_bundle(tmp_path, **pipeline))

    assert report.usable
    assert finding(report, "bundle").text == "'fake', 1 artefact(s) unaltered"
    assert finding(report, "onnxruntime fp32 on cpu").status == "ok"
    assert "a click at 64 x 64 takes" in finding(report, "onnxruntime fp32 on cpu").text


def test_ok_says_what_does_pixel_diffusion(tmp_path: Path) -> None:
    text = finding(examine(make_bundle(tmp_path, pixel_diffusion=DIFFUSION)), "onnxruntime fp32 on cpu").text

    assert ", Pixel Diffusion: graph (pixel_diffusion: expected the options of the native library" in text


def test_device_that_is_missing_is_a_note_while_another_serves(tmp_path: Path) -> None:
    found = finding(examine(make_bundle(tmp_path)), "onnxruntime fp32 on cuda")

    assert (found.status, found.text) == ("note", "no CUDA device found; check that nvidia-smi lists one")


def test_runtime_that_is_missing_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_bundle(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    report = examine(folder)

    assert not report.usable
    assert finding(report, "onnxruntime fp32 on cpu").status == "problem"
    assert 'pip install "clickmask[cpu]"' in finding(report, "onnxruntime fp32 on cpu").text


def test_hollow_runtime_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_bundle(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))

    report = examine(folder)

    assert not report.usable
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in finding(report, "onnxruntime fp32 on cpu").text


def test_every_artefact_is_opened_and_not_the_best_alone(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    (folder / "half.onnx").write_bytes(b"junk")
    half = artefact("onnxruntime", {"network": file_entry(folder / "half.onnx")}, precision="fp16")
    change_manifest(folder, artefacts=[*read_manifest(folder)["artefacts"], half])

    report = examine(folder)

    assert report.usable
    assert finding(report, "onnxruntime fp32 on cpu").status == "ok"
    assert finding(report, "onnxruntime fp16 on cpu").status == "problem"
    assert "does not load 'half.onnx'" in finding(report, "onnxruntime fp16 on cpu").text


def test_damaged_bundle(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    (folder / "network.onnx").write_bytes(b"")

    report = examine(folder)

    assert not report.usable
    assert finding(report, "bundle").status == "problem"
    assert "truncated" in finding(report, "bundle").text


def test_no_bundle(tmp_path: Path) -> None:
    assert not examine(tmp_path / "nowhere").usable


def test_network_that_gives_nan_does_not_run(tmp_path: Path) -> None:
    report = examine(make_bundle(tmp_path, bias=float("nan")))

    assert not report.usable
    assert "expected finite logits" in finding(report, "onnxruntime fp32 on cpu").text


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    """A bundle with an ONNX graph and plans for two GPUs, the second of which carries code."""
    folder = make_bundle(tmp_path, backends=("onnxruntime", "tensorrt"))
    onnx, plan = read_manifest(folder)["artefacts"]
    other = engine(
        gpu_name="NVIDIA A10",
        compute_capability="8.6",
        hardware_compatibility="ampere_plus",
        version_compatible=True,
        lean_runtime_inside=True,
    )
    change_manifest(folder, artefacts=[onnx, plan, {**plan, "engine": other}])
    return folder


def test_plans_without_a_gpu_are_notes_of_a_bundle_that_runs(
    plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "host_facts", lambda: dataclasses.replace(HOST, cuda=None, gpus=()))

    report = examine(plans)

    assert report.usable
    found = finding(report, "tensorrt fp32 on cuda (NVIDIA H100 80GB HBM3)")
    assert found.status == "note"
    assert "expected an NVIDIA driver, got none that works" in found.text


def test_each_plan_has_its_own_verdict(plans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "host_facts", lambda: dataclasses.replace(HOST, gpus=(Gpu("L4", (8, 9)),)))

    report = examine(plans)

    assert (
        "expected the GPU of the plan"
        in finding(report, "tensorrt fp32 on cuda (NVIDIA H100 80GB HBM3)").text
    )
    assert "expected trust_host_code=True" in finding(report, "tensorrt fp32 on cuda (NVIDIA A10)").text


def test_plan_that_fits_is_run(plans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch)
    monkeypatch.setattr(doctor, "host_facts", lambda: HOST)

    for trust, status in ((False, "note"), (True, "ok")):
        report = examine(plans, trust_host_code=trust)
        assert finding(report, "tensorrt fp32 on cuda (NVIDIA H100 80GB HBM3)").status == "ok"
        assert finding(report, "tensorrt fp32 on cuda (NVIDIA A10)").status == status


def test_two_onnxruntimes_and_two_opencvs_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "installed", lambda _: "1")

    report = examine(make_bundle(tmp_path))

    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in finding(report, "onnxruntime").text
    assert "pip uninstall -y opencv-python opencv-python-headless" in finding(report, "opencv").text
    assert report.usable
