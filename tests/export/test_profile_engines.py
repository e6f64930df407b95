"""The time of a plan's layers, on doubles of TensorRT and CUDA."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "sdk"))
from bundles import make_bundle
from gpu_machine import pretended

from clickmask.bundle import load_bundle
from clickmask.errors import BackendError
from clickmask_export.profiling.tensorrt_layers import profile_engines


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return pretended(monkeypatch, tmp_path / "bundle", "tensorrt")


def profiled(machine, runs):
    bundle = load_bundle(make_bundle(machine.folder, backends=("tensorrt",), encodes_once=True))
    (artefact,) = bundle.manifest.artefacts
    graphs = ["encoder", "decoder"]
    return profile_engines(bundle, artefact, graphs, 96, runs, device=1, trust_host_code=False)


def test_layers_are_timed_in_warm_runs_and_told_by_their_first_node(machine):
    found = profiled(machine, runs=3)
    for graph in ("encoder", "decoder"):
        times, origins = found[graph]
        assert times == {f"{graph} layer": 3.0}  # of 1, 2, 3 and 4, the first left out
        assert origins == {f"{graph} layer": f"network.{graph}/Conv"}
    shapes = [run["image"] for context in machine.trt.contexts[:1] for run in context.runs]
    assert shapes == [(1, 3, 96, 96)] * 4
    assert {context.profile for context in machine.trt.contexts} == {1}  # of the sizes 64, 96 and 128


@pytest.mark.parametrize("fails", [None, "set_tensor_address", "execute_async_v3"])
def test_profiling_leaves_nothing_on_the_device(machine, fails):
    if fails is None:
        profiled(machine, runs=1)
    else:
        machine.trt.fail.add(fails)
        with pytest.raises(BackendError, match="TensorRT refuses"):
            profiled(machine, runs=1)
    assert {kind: machine.cuda.live(kind) for kind in ("device", "stream")} == {"device": 0, "stream": 0}
    assert (machine.cuda.driver.stack, machine.cuda.driver.primaries) == ([], {1})
