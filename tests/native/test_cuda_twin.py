"""The CUDA twin: that it compiles where nvcc is, and on a GPU that it equals the float64 reference."""

from __future__ import annotations

import ctypes
import dataclasses
import re
import shutil
import subprocess

import numpy as np
import pytest
import reference_pixel_diffusion as reference
import torch
from scenes import assert_same_state, make_scene

from clickmask.backends.device_diffusion import DeviceDiffusion, declared
from clickmask.native_diffusion import DiffusionOptions, as_struct
from clickmask_export.recipes import describe_diffusion
from clickmask_models.pixel_diffusion import PixelDiffusionConfig
from clickmask_models.presets import preset

PAPER = PixelDiffusionConfig()
OFFICIAL = preset("official").pixel_diffusion


@pytest.fixture(scope="session")
def cuda_library(root, tmp_path_factory):
    """The twin, freshly built."""
    for tool in ("nvcc", "cmake"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} to build the CUDA twin")
    build = tmp_path_factory.mktemp("cuda")
    settings = ["-DCLICKMASK_CUDA=ON", "-DCLICKMASK_TESTS=OFF"]
    said = ""
    for command in (
        ["cmake", "-S", str(root), "-B", str(build), *settings],
        ["cmake", "--build", str(build), "--target", "clickmask_native_cuda", "--verbose"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
    (path,) = (path for path in build.rglob("*clickmask_native_cuda*") if path.suffix in (".so", ".dll"))
    library = ctypes.CDLL(str(path))
    library.clickmask_cuda_affinity_bytes.restype = ctypes.c_size_t
    library.clickmask_cuda_scratch_bytes.restype = ctypes.c_size_t
    library.compiled_for = {int(number) for number in re.findall(r"\bsm_([0-9]+)", said)}
    return library


@pytest.mark.slow
def test_it_builds_for_turing_to_blackwell(cuda_library):
    known = subprocess.run(["nvcc", "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
    known = {int(number) for number in re.findall(r"sm_([0-9]+)", known)}
    assert cuda_library.compiled_for == {75, 80, 86, 89, 90, 100, 120} & known
    assert {75, 80, 86, 89, 90} <= known


@pytest.mark.slow
def test_it_loads_without_a_gpu(cuda_library):
    options = as_struct(DiffusionOptions.from_spec(describe_diffusion(PAPER)))
    assert cuda_library.clickmask_cuda_affinity_bytes(ctypes.byref(options), 30, 40) == 30 * 40 * (4 + 2 * 32)
    assert cuda_library.clickmask_cuda_scratch_bytes(30, 40) == 30 * 40 * 2 * 4
    kernel = DeviceDiffusion(declared(cuda_library), DiffusionOptions.from_spec(describe_diffusion(PAPER)))
    assert kernel.scratch_bytes(40) == 40 * 40 * (4 + 2 * 32 + 2 * 4)
    assert cuda_library.clickmask_view_abi() == 6
    options.dilation_count = 9
    assert cuda_library.clickmask_cuda_affinity_bytes(ctypes.byref(options), 30, 40) == 0


def run_on_gpu(library, config, scene):
    logits, image, clicks = (torch.from_numpy(np.ascontiguousarray(array)).cuda() for array in scene)
    image = image.permute(2, 0, 1).contiguous()
    options = ctypes.byref(as_struct(DiffusionOptions.from_spec(describe_diffusion(config))))
    size, stream = logits.shape, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    affinity_bytes = library.clickmask_cuda_affinity_bytes(options, *size)
    affinity = torch.empty(affinity_bytes, dtype=torch.uint8, device="cuda")
    scratch = torch.empty(library.clickmask_cuda_scratch_bytes(*size), dtype=torch.uint8, device="cuda")
    result = torch.empty_like(logits)

    def at(tensor):
        return ctypes.c_void_p(tensor.data_ptr())

    assert library.clickmask_cuda_affinity(options, at(image), *size, at(affinity), stream) == 0
    given = (at(logits), at(clicks), len(clicks), *size, at(scratch), at(result), stream)
    assert library.clickmask_cuda_diffuse(options, at(affinity), *given) == 0
    torch.cuda.synchronize()
    return result.cpu().numpy()


@pytest.mark.gpu
@pytest.mark.parametrize("config", [PAPER, OFFICIAL], ids=["paper", "official"])
@pytest.mark.parametrize("kind", ["textured", "flat", "letterboxed", "noise"])
@pytest.mark.parametrize(("height", "width"), [(96, 120), (1, 33), (256, 256)])
def test_on_a_gpu_it_is_the_reference(cuda_library, config, kind, height, width):
    config = dataclasses.replace(config, output="state")
    scene = make_scene(height, width, kind)
    assert_same_state(run_on_gpu(cuda_library, config, scene), reference.pixel_diffusion(*scene, config))
